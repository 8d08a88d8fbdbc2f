# SPDX-License-Identifier: Apache-2.0
"""One instruction of KVM's world switch is changed in a copy of the image: the seeds must show it, by name.

The stock kernel is clean on the seeds (test_corpus_live).  A patched one must have unexplained divergences of relation
``switch`` in the registers that the instruction handles and in no other: a check that cannot see a register lost, or
that blames its neighbour, is worth nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from harness.vm.build import prepare
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config
from tests.vm.patching import PATCHES, Patch, apply
from tests.vm.running import SEEDS, findings, run_all, two_at_a_time

ROWS: tuple[tuple[str, Patch], ...] = (
    *((DEFAULT_TARGET, patch) for patch in PATCHES),
    *((name, PATCHES[0]) for name in list_configs() if name != DEFAULT_TARGET),
)
IDS = tuple(f"{name}-{patch.what.replace(' ', '_')}" for name, patch in ROWS)


def _run(target: str, patch: Patch, directory: Path) -> tuple[int, Counter[tuple[str, str]], set[str], set[str]]:
    """How often the pattern was found; unexplained (relation, register) by number; findings; how scenarios ended."""
    config = load_config(target)
    image, places = apply(prepare(config).kernel.read_bytes(), patch)
    kernel = directory / "Image"
    kernel.write_bytes(image)
    results = run_all(target, SEEDS, kernel=kernel)
    kernel.unlink()
    seen = Counter((d.relation, d.register) for checked in results.values() for d in checked.unexplained)
    names = {name for checked in results.values() for name in findings(checked)}
    return places, seen, names, {checked.status for checked in results.values()}


Outcome = tuple[int, Counter[tuple[str, str]], set[str], set[str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    jobs = (
        partial(_run, target, patch, tmp_path_factory.mktemp(f"kernel{number}"))
        for number, (target, patch) in enumerate(ROWS)
    )
    return dict(zip(IDS, two_at_a_time(jobs), strict=True))


@pytest.mark.parametrize(("row", "patch"), [(name, row[1]) for name, row in zip(IDS, ROWS, strict=True)], ids=IDS)
def test_exactly_the_patched_registers(outcomes: Mapping[str, Outcome], row: str, patch: Patch) -> None:
    places, seen, names, statuses = outcomes[row]
    assert places > 0, "the pattern is not in this kernel"
    switched = {register for relation, register in seen if relation == "switch"}
    assert switched - set(patch.timing) == set(patch.registers)
    # What is lost on the way out the host does not see either.
    assert {name for name in names if not name.startswith("switch.")} - {"save.reveal"} == patch.also
    assert "ok" in statuses <= {"ok", "runaway"}, "the target goes on"


def test_a_patch_changes_one_word_in_each_place() -> None:
    patch = PATCHES[0]
    image = b"\0" * 16 + b"".join(word.to_bytes(4, "little") for word in patch.run) * 2
    patched, places = apply(image, patch)
    assert (places, len(patched)) == (2, len(image))
    changed = [i // 4 for i in range(0, len(image), 4) if image[i : i + 4] != patched[i : i + 4]]
    assert changed == [4 + patch.at, 4 + len(patch.run) + patch.at]
