# SPDX-License-Identifier: Apache-2.0
"""A campaign's findings are run on other emulators once, and only if a second QEMU is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import story_of
from fuzz.targets.options import TargetOptions
from fuzz.triage import kept_on_emulators
from fuzz.triage.other_emulators import EmulatorQuery, EmulatorSweep
from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult
from harness.vm.config import load_config
from harness.vm.qemu_versions import Emulator
from tests.support.kept import SUBJECT, filled

HERE = (Emulator("7.2.22", ("qemu",)), Emulator("10.0.2", ("other",)))
SWEEP = EmulatorSweep(load_config("kvm-nvhe"), TargetOptions("kvm-nvhe", "spec"))
FOUND = (EmulatorResult("max", Tries(2, 2)),)


def test_each_confirmed_divergence_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, said, tried = filled(tmp_path), list[str](), list[EmulatorQuery]()

    def measure(
        _: EmulatorSweep, asked: Sequence[EmulatorQuery], here: Sequence[Emulator], __: Callable[[str], None]
    ) -> list[tuple[EmulatorResult, ...]]:
        assert tuple(here) == HERE
        tried.extend(asked)
        return [FOUND] * len(asked)

    monkeypatch.setattr(kept_on_emulators, "measure_on_emulators", measure)
    assert kept_on_emulators.measure_kept(database, SUBJECT, SWEEP, HERE[:1], said.append) == 0
    assert len(said) == 1 and "none is installed" in said[0] and not tried
    count = kept_on_emulators.measure_kept(database, SUBJECT, SWEEP, HERE, said.append)
    assert count == len(tried) > 0 and f"trying {count} divergences" in said[1]
    store = Store(database, FINDINGS)
    measured = [id_ for id_ in store.ids() if story_of(store, id_).kept.elsewhere == FOUND]
    assert len(measured) == count
    assert kept_on_emulators.measure_kept(database, SUBJECT, SWEEP, HERE, said.append) == 0
    assert len(said) == 2, "no divergence is left to run"
