# SPDX-License-Identifier: Apache-2.0
"""One instruction of KVM's world switch is changed in a copy of the image: the seeds must show the right registers.

The stock kernel is clean on the seeds (test_corpus_live).  On a patched kernel the first divergent exit of a scenario
must have unexplained divergences of relation ``switch`` in the registers that the instruction handles and in no other
(later effects of a wrong value are arbitrary).  This proves that the check detects a lost register, and reports the
right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.findings.checked import CheckResult
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config
from tests.vm.patching import PATCHES, Patch, apply
from tests.vm.running import SEEDS, run_all, two_at_a_time

ROWS: tuple[tuple[str, Patch], ...] = (
    *((DEFAULT_TARGET, patch) for patch in PATCHES),
    *((name, PATCHES[0]) for name in list_configs() if name != DEFAULT_TARGET),
)
IDS = tuple(f"{name}-{patch.what.replace(' ', '_')}" for name, patch in ROWS)


class Outcome(NamedTuple):
    """The places of the pattern, the divergences of each scenario at its first divergent exit, and the statuses."""

    places: int
    blamed: Mapping[str, frozenset[str]]
    statuses: frozenset[str]


def _blamed(checked: CheckResult) -> frozenset[str]:
    """Return the unexplained divergences at the first exit with any; the host cannot see a lost register either."""
    first = min((d.event for d in checked.unexplained), default=None)
    return frozenset(d.name for d in checked.unexplained if d.event == first and d.relation != "save.reveal")


def _run(target: str, patch: Patch, directory: Path) -> Outcome:
    config = load_config(target)
    image, places = apply(prepare(config).kernel.read_bytes(), patch)
    kernel = directory / "Image"
    kernel.write_bytes(image)
    results = run_all(target, SEEDS, kernel=kernel)
    kernel.unlink()
    blamed = {name: names for name, checked in results.items() if (names := _blamed(checked))}
    return Outcome(places, blamed, frozenset(checked.status for checked in results.values()))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    jobs = (
        partial(_run, target, patch, tmp_path_factory.mktemp(f"kernel{number}"))
        for number, (target, patch) in enumerate(ROWS)
    )
    return dict(zip(IDS, two_at_a_time(jobs), strict=True))


@pytest.mark.parametrize(("row", "patch"), [(name, row[1]) for name, row in zip(IDS, ROWS, strict=True)], ids=IDS)
def test_exactly_the_patched_registers(outcomes: Mapping[str, Outcome], row: str, patch: Patch) -> None:
    places, blamed, statuses = outcomes[row]
    assert places > 0, "the pattern is not in this kernel"
    switched = {f"switch.{register}" for register in patch.registers}
    assert switched <= frozenset().union(*blamed.values())
    wrong = {name: names for name, names in blamed.items() if not names <= switched | patch.also}
    assert len(wrong) <= (len(blamed) // 10 if patch.jumps else 0), wrong
    assert "ok" in statuses <= {"ok", "runaway"}, "the target keeps running"


def test_a_patch_changes_one_word_in_each_place() -> None:
    patch = PATCHES[0]
    image = b"\0" * 16 + b"".join(word.to_bytes(4, "little") for word in patch.run) * 2
    patched, places = apply(image, patch)
    assert (places, len(patched)) == (2, len(image))
    changed = [i // 4 for i in range(0, len(image), 4) if image[i : i + 4] != patched[i : i + 4]]
    assert changed == [4 + patch.at, 4 + len(patch.run) + patch.at]
