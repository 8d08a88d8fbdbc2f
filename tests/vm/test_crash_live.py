# SPDX-License-Identifier: Apache-2.0
"""Real losses of real machines: the state that is read from them, and their classification."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.worker import Worker, WorkerContext
from fuzz.paths import CRASHES
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.errors import Remains, VmLost
from harness.findings.regressions import Regression, crash_text, load_regressions
from harness.scenario.scenario import format_scenario, load
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from harness.vm.crash import End, Reproduction, end_of, from_text
from harness.vm.postmortem import PostMortem
from harness.vm.qemu import Qemu
from harness.vm.target import boot, machine_of
from tests.vm.crashing import BRANCH_TO_ITSELF, BRK, EL1, EL2, HARMLESS, UNDEFINED, crashing, load_of

CASES = (
    # target, function, its first word, kind, the place in the report
    ("kvm-nvhe", EL1, BRK, "oops", f"{EL1}+0x0"),
    ("kvm-nvhe", EL1, BRANCH_TO_ITSELF, "hang", f"{EL1}+0x0"),
    ("kvm-nvhe", EL2, BRANCH_TO_ITSELF, "hang", f"{EL2}+0x0"),
    # 6.1 names the place of the panic, not the one that failed.
    ("kvm-nvhe", EL2, UNDEFINED, "el2-panic", "__kvm_nvhe___guest_exit_panic+0x0"),
    ("kvm-6.12-nvhe", EL2, UNDEFINED, "el2-panic", f"{EL2}+0x0"),
)


def lose(target: str, kernel: Path | None, dump: Path | None) -> tuple[VmLost, End, Remains]:
    """Run a harmless scenario, then one that kills the patched kernel."""
    config = load_config(target)
    prepared = prepare(config, kernel=kernel)
    examine = PostMortem(prepared.kernel, None if dump is None else lambda: dump)
    with pytest.raises(VmLost) as lost, boot(config, prepared, timeout=1.5, post_mortem=examine) as executor:
        assert executor.run(HARMLESS).status == "ok"
        executor.run(load_of(3))
    error = lost.value
    assert error.remains is not None
    return error, end_of(error.reason, error.console_tail, error.remains), error.remains


@pytest.mark.parametrize(
    ("target", "function", "word", "kind", "place"), CASES, ids=[f"{c[0]}-{c[3]}-{c[4]}" for c in CASES]
)
def test_a_kernel_that_dies(target: str, function: str, word: int, kind: str, place: str, tmp_path: Path) -> None:
    kernel = crashing(prepare(load_config(target)).kernel, function, word, tmp_path)
    dump = tmp_path / "memory" if kind == "oops" else None
    error, end, remains = lose(target, kernel, dump)
    assert (end.kind, end.place) == (kind, place)
    assert ("did not answer" in error.reason or "no answer" in error.reason) == (kind == "hang")
    assert len(remains.registers) > 180 and remains.missing == ()
    assert {"pc", "x0", "x30", "sp", "cpsr", "ELR_EL1", "ELR_EL2", "HCR_EL2", "VTTBR_EL2"} <= set(remains.registers)
    assert remains.places["pc"]
    if (kind, function) != ("hang", EL2):  # while a guest is loaded, the vectors are at another address
        assert remains.places["VBAR_EL2"].startswith("__kvm_nvhe_")
    if kind == "hang":
        assert sum(remains.samples.values()) == 9 and end.signature[-1] != place
    else:
        assert end.signature[-1] == place.partition("+")[0]
    if dump is not None:
        assert remains.dump is not None and remains.dump.ram_bytes == 512 << 20
        assert dump.read_bytes()[:12] == b"makedumpfile" and 1 << 20 < remains.dump.file_bytes < 64 << 20


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("SIGKILL", "qemu-death", "status -9"),
        ("SIGSEGV", "qemu-death", "status -11"),
        ("SIGSTOP", "qemu-hang", "did not answer"),
    ],
)
def test_an_emulator_that_dies(how: str, kind: str, says: str, tmp_path: Path) -> None:
    config = load_config("kvm-nvhe")
    prepared = prepare(config)
    examine = PostMortem(prepared.kernel)
    with pytest.raises(VmLost) as lost, Qemu(machine_of(config, prepared), post_mortem=examine) as qemu:
        os.kill(qemu.pid, signal.Signals[how])
        while True:
            qemu.check_alive()
            time.sleep(0.01)
    error = lost.value
    assert error.remains is not None and error.remains.registers == {}
    (why,) = error.remains.missing
    assert why.startswith("no registers and no memory")
    end = end_of(error.reason, error.console_tail, error.remains)
    assert end.kind == kind and says in end.words


def test_a_worker_keeps_all_of_a_crash_and_goes_on(tmp_path: Path) -> None:
    kernel = crashing(prepare(load_config("kvm-nvhe")).kernel, EL1, BRK, tmp_path)
    dumps = Dumps(tmp_path / DUMPS)
    targets = open_targets(TargetOptions("kvm-nvhe", "spec", kernel, cold=True))
    database = Database(default_url(tmp_path))
    findings, stats = Store(database, FINDINGS), StatsWriter(tmp_path / "stats")
    worker = Worker(
        WorkerContext(
            targets=targets.examined(dumps.new_path),
            count_coverage=lambda index: None,
            on_run=lambda: None,
            stats=stats,
            findings=findings,
            flaky=Store(database, FLAKY),
            dumps=dumps,
            now=lambda: "2026-01-01T00:00:00+00:00",
            ticks=time.monotonic_ns,
        )
    )
    worker.begin()
    try:
        for scenario in (HARMLESS, HARMLESS, load_of(3), load_of(4), HARMLESS):
            worker.run_input(format_scenario(scenario).encode())
    finally:
        worker.close()
    (id_,) = (id_ for id_ in findings.ids() if id_.startswith("crash"))
    kept, texts = findings.load(id_), findings.texts(id_)
    assert kept.signature == ("oops", "Internal error: BRK handler: N [#N] SMP", EL1)
    report = from_text(texts["crash.json"])
    assert report.again == Reproduction((3, 3), (0, 0), 0), "the load alone reproduces it"
    assert len(report.remains.registers) > 180 and report.remains.dump is not None
    assert (tmp_path / report.remains.dump.path).read_bytes()[:12] == b"makedumpfile"
    assert findings.entry(id_).scenario == format_scenario(load_of(3)) and findings.count(id_) == 2
    assert f"pc : {EL1}+0x0/" in texts["console.txt"]
    assert texts["earlier-01.scn"] == texts["earlier-02.scn"] == format_scenario(HARMLESS)
    assert [stats.get("count", "scenarios"), stats.get("dumps", "written"), stats.get("reproduced", "yes")] == [3, 2, 1]


@pytest.mark.parametrize("row", load_regressions(CRASHES), ids=lambda row: row.id)
def test_the_crashes_that_are_kept(row: Regression) -> None:
    """On one target of each; a second or two."""
    target = row.targets[0]
    config = load_config(target)
    prepared = prepare(config)
    for name in row.scenarios:
        path = CRASHES.with_name(f"{name}.scn")
        scenario = load(path)
        assert format_scenario(scenario) == path.read_text()
        with (
            pytest.raises(VmLost) as lost,
            boot(config, prepared, post_mortem=PostMortem(prepared.kernel, None)) as executor,
        ):
            executor.run(scenario)
        end = end_of(lost.value.reason, lost.value.console_tail, lost.value.remains)
        assert row.shows(crash_text(end.signature), ())
