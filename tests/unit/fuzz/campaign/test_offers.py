# SPDX-License-Identifier: Apache-2.0
"""What a worker offers: scenarios that cover something that it did not see before, by number."""

from __future__ import annotations

import json
from pathlib import Path

from fuzz.campaign.offers import FIRST_EDGE, MAX_FILE, NewEdges, Offers, edge_feature, take_offers
from fuzz.store.shared_corpus import MAX_FEATURE, Offer
from harness.errors import InputError
from harness.scenario.scenario import Scenario, Step, format_scenario
from harness.vm.plugins import edges
from harness.vm.plugins.edges import EdgeMap


def scenario(steps: int) -> Scenario:
    return Scenario("It.", (), (Step("hvc", (0,)),) * steps)


class Memory(EdgeMap):
    """A map that a test fills as the plugin does."""

    def take(self, *slots: int) -> None:
        for slot in range(edges.EDGES):
            self._memory[edges.COUNTERS_AT + slot] = 255 if slot in slots else 0
        for slot in slots:
            at = edges.COUNTERS_AT + edges.EDGES + 8 * slot
            self._memory[at : at + 8] = (0x1000).to_bytes(4, "little") + (slot + 1).to_bytes(4, "little")


def test_an_edge_is_told_once() -> None:
    memory = Memory()
    new = NewEdges(memory)
    assert new() == frozenset()
    memory.take(0, 5)
    assert new() == {edge_feature((0x1000, 1)), edge_feature((0x1000, 6))}
    assert new() == frozenset()
    memory.take(5)
    assert new() == frozenset()
    memory.take(5, edges.EDGES - 1)
    assert new() == {edge_feature((0x1000, edges.EDGES))}
    assert all(FIRST_EDGE <= edge_feature((n, n + 1)) < MAX_FEATURE for n in range(1000))


def test_what_is_offered(tmp_path: Path) -> None:
    new_edges = [frozenset[int](), frozenset({FIRST_EDGE}), frozenset[int]()]
    offers = Offers(tmp_path, lambda: new_edges.pop(0))
    offers(scenario(1), {1, 2})
    offers(scenario(2), {1})
    offers(scenario(3), {2})
    found = {offer.text: offer.features for offer in take_offers(tmp_path) if isinstance(offer, Offer)}
    assert found == {
        format_scenario(scenario(1)): {1, 2},
        format_scenario(scenario(2)): {1, FIRST_EDGE},
    }
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_none(tmp_path: Path) -> None:
    row = {"scenario": format_scenario(scenario(1)), "features": [1]}
    (tmp_path / "x.json").write_text(json.dumps(row) + " " * MAX_FILE)
    (found,) = take_offers(tmp_path)
    assert isinstance(found, InputError) and "no offer of a worker" in str(found)


def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path) -> None:
    Offers(tmp_path / "not there")(scenario(1), {1})
