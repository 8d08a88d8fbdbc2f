# SPDX-License-Identifier: Apache-2.0
"""Scenarios from recordings: the scenario of each kind of exit, and excerpts of a Linux boot (golden/recordings)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.cli.main import main
from fuzz.corpus.extract_seeds import KEPT, ExtractedSeeds, extract_seeds
from fuzz.triage.check_recording import check_file
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX
from harness.findings.check_recording import Against, Tally, check_records
from harness.findings.known_divergences import Catalogue
from harness.model import LEVEL_NAMES
from harness.scenario.scenario import format_scenario, load, parse
from harness.trace.events import EXIT, Switch, Trace
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Api, Reader, Recorded, create
from harness.vm.config import PROJECT
from tests.support.traces import but, entry, esr, irq, load_esr, trap, user
from tests.unit.harness.findings.test_check_recording import GIC, MACHINE, RAM, UART, S, started
from tests.unit.harness.findings.test_check_recording import load as emulated_load

RECORDINGS = PROJECT / "tests" / "golden" / "recordings"
WRITE_TCR = esr("SYS64", 3 << 20 | 2 << 17 | 2 << 10 | 7 << 5)  # msr tcr_el1, x7


def lines(result: ExtractedSeeds) -> list[str]:
    """Return the registers and steps of the only seed."""
    (seed,) = result.seeds
    return format_scenario(seed.scenario).splitlines()[2:]


def one(exit_: Switch, *, pending: int = 0) -> ExtractedSeeds:
    """Return the seeds of a recording with one exit, after which nothing changes."""
    return extract_seeds(started(exit_, entry(exit_.values, pending)), "a guest")


def store(target: int, size: int, address: int) -> Switch:
    """Return the exit of a store that faults; each register has its number as its value."""
    state = but(S, **{f"x{i}": i for i in range(31)})
    return trap(state, load_esr(target, size, write=True, wide=size == 8), far=address, hpfar=address >> 12 << 4)


CALL = trap(but(S, x0=0x8400_0000, x1=7), esr("HVC64", 0x12))
CASES = (
    # the exit, the scenario's lines
    (CALL, ["reg x0 0x84000000", "reg x1 0x7", "reg x2 0x0", "reg x3 0x0", "hvc 0x12"]),
    (trap(S, esr("WFX", 0)), ["wfi"]),
    (trap(S, esr("WFX", 1)), ["wfe"]),
    (trap(but(S, x7=0x123), WRITE_TCR), ["reg x7 0x123", "msr tcr_el1, x7"]),
    (store(5, 2, RAM + 0x3456), ["reg x1 0x40020456", "reg x5 0x5", "strh w5, [x1]"]),
    (store(1, 8, UART + 8), ["reg x1 0x1", "reg x2 0x9000008", "str x1, [x2]"]),
    (store(31, 4, UART), ["reg x1 0x9000000", "str wzr, [x1]"]),
)


@pytest.mark.parametrize(("exit_", "wanted"), CASES, ids=[" ".join(wanted[-1:]) for _, wanted in CASES])
def test_an_exit_becomes_a_scenario(exit_: Switch, wanted: list[str]) -> None:
    result = one(exit_)
    assert lines(result) == wanted
    assert result.exits == 1 and not result.unsupported
    assert len(result.spans) == 1


def test_a_load_is_completed_with_the_recorded_value() -> None:
    for address, where in ((UART, "device"), (GIC + 8, "device_of_kvm")):
        in_kernel = where == "device_of_kvm"
        result = extract_seeds(emulated_load(3, 0x8055, address, users=not in_kernel, kernel=in_kernel), "a guest")
        assert lines(result) == [f"reg x1 {address:#x}", "ldr w3, [x1]", "complete 0x8055"]
        assert result.seeds[0].name == f"recorded_ldr_w_{where}"


@pytest.mark.parametrize("program", ["two\nlines", "long " * 200, "", "\x1b[31m"])
def test_any_program_may_be_named(program: str) -> None:
    (seed,) = extract_seeds(started(irq(S), entry(S), trap(S, esr("WFX")), entry(S)), program).seeds
    assert parse(format_scenario(seed.scenario)) == seed.scenario


def test_el0_is_kept() -> None:
    exit_ = trap(but(S, pstate=0), esr("IABT_LOW", 7), far=RAM + 0x10, hpfar=RAM >> 8)
    assert lines(one(exit_)) == ["reg x1 0x40020010", "reg pstate 0x3c0", "br x1"]


UNKNOWN_READ = "SYS64: read of S3_0_C15_C15_0, not in harness/arch/sysregs.py"
UNSUPPORTED = (
    (irq(S), "IRQ: an interrupt of the host is asynchronous"),
    (trap(S, esr("SOFTSTP_LOW")), "SOFTSTP_LOW: no step has this exit"),
    (trap(S, esr("SYS64", 3 << 20 | 15 << 10 | 15 << 1 | 1)), UNKNOWN_READ),
    (trap(S, load_esr(3) | 1 << 7, far=RAM, hpfar=RAM >> 8), "DABT_LOW: a fault on a stage-1 walk"),
    (trap(S, load_esr(3) | 1 << 14, far=RAM, hpfar=RAM >> 8), "DABT_LOW: a load-acquire or store-release"),
    (trap(S, load_esr(3) | 1 << 8, far=RAM, hpfar=RAM >> 8), "DABT_LOW: cache maintenance by address"),
)


@pytest.mark.parametrize(("exit_", "reason"), UNSUPPORTED, ids=[reason for _, reason in UNSUPPORTED])
def test_exits_that_no_scenario_reproduces_are_counted(exit_: Switch, reason: str) -> None:
    result = one(exit_)
    assert result.unsupported == {reason: 1} and not result.seeds


def test_one_scenario_per_kind() -> None:
    first, second = trap(but(S, x0=0x8400_0000), esr("HVC64")), trap(but(S, x0=0x8400_0001), esr("HVC64"))
    turns = [event for exit_ in (first, second, first, first, first) for event in (exit_, entry(exit_.values))]
    result = extract_seeds(started(*turns), "a guest")
    assert [(seed.count, seed.record) for seed in result.seeds] == [(4, len(MACHINE) + 3), (1, len(MACHINE) + 5)]
    assert len(result.spans) == KEPT + 1


def test_whether_a_trace_shows_the_exit() -> None:
    (seed,) = one(store(5, 2, RAM + 0x3456)).seeds
    at = {"far": 0x4002_0456, "hpfar": 0x400200}
    shows = trap(S, load_esr(5, 2, write=True, wide=False) ^ 1, **at)
    others = (
        trap(S, load_esr(5, 4, write=True, wide=False), **at),
        trap(S, load_esr(5, 2, write=True, wide=False), far=0x4002_0458, hpfar=0x400200),
        irq(S, **at),
        user(S, 6),
    )
    assert seed.shown_by(Trace((entry(S), shows), "ok", 0, False))
    assert not seed.shown_by(Trace((entry(S), *others), "ok", 0, False))


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.trace")), ids=lambda path: path.stem)
def test_a_linux_boot_is_clean_and_gives_seeds(path: Path) -> None:
    tally, reader = Tally(), Reader(path)
    catalogues = {"spec": Catalogue.load(PROJECT / "corpus" / "known", "spec")}
    against = Against(catalogues, cpu_model(reader.head.cpu), reader.head.vhe)
    check_records(reader, against, {"spec": tally}, reader.absent)
    assert not tally.clusters and not tally.undefined
    assert tally.relations["host"] == tally.exits.total() + len(tally.vcpus)
    assert {"HVC64", "SYS64", "DABT_LOW", "IABT_LOW", "IRQ"} <= set(tally.exits)
    assert len(tally.vcpus) == (2 if "smp" in path.stem else 1)
    result = extract_seeds(Reader(path), reader.head.program)
    assert len(result.seeds) > 60
    for seed in result.seeds:
        assert parse(format_scenario(seed.scenario)) == seed.scenario
    again = tuple(excerpt(Reader(path), result.spans))
    assert again == tuple(Reader(path))


CHANGES = ("drop", "copy", "value", "kind", "owner")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_an_inconsistent_recording_is_checked_without_an_internal_error(tmp_path: Path, random: Random) -> None:
    lines = gzip.decompress((RECORDINGS / "linux-6.1-vhe-smp.trace").read_bytes()).decode().splitlines()
    head, body = lines[0], lines[1:9]
    begin = random.randrange(9, len(lines) - 60)
    body += lines[begin : begin + 50]
    for _ in range(8):
        at = random.randrange(len(body))
        first, *words = body[at].split()
        change = random.choice(CHANGES)
        if change == "drop":
            del body[at]
        elif change == "copy":
            body.insert(random.randrange(len(body)), body[at])
        elif change == "value" and words:
            words[-1] = words[-1].rpartition("=")[0] + "=" * ("=" in words[-1]) + f"{random.getrandbits(64):x}"
            body[at] = " ".join((first, *words))
        elif change == "kind" and first[0] != "A":
            body[at] = random.choice("NEU") + body[at][1:]
        elif change == "owner":
            body[at] = " ".join((f"{first[0]}{random.randrange(3)}.{random.choice((0, 1, 999))}", *words))
    end = json.dumps({"status": "lost", "code": 0, "records": len(body), "exits": 0, "dropped": 0, "waits": 0})
    path = tmp_path / "odd.trace"
    path.write_bytes(gzip.compress("\n".join((head, *body, f"end {end}", "")).encode(), 1))
    assert check_file(path, LEVEL_NAMES, lambda line: None).end.status == "lost"
    assert extract_seeds(Reader(path), "a guest").exits <= len(body)


def test_one_wrong_register_in_a_linux_boot_is_found() -> None:
    path = RECORDINGS / "linux-6.1-nvhe.trace"
    records = list(Reader(path))
    exits = [i for i, r in enumerate(records) if isinstance(r.event, Switch) and r.event.kind == EXIT]
    at = next(i for i in exits[20:] if isinstance(records[i + 1].event, Switch)) + 1
    event = records[at].event
    assert isinstance(event, Switch)
    values = list(event.values)
    values[INDEX["x25"]] ^= 1 << 40
    records[at] = records[at]._replace(event=event._replace(values=tuple(values)))
    tally = Tally()
    catalogues = {"spec": Catalogue.load(PROJECT / "corpus" / "known", "spec")}
    check_records(records, Against(catalogues, cpu_model("cortex-a72"), vhe=False), {"spec": tally})
    assert {key[:2] for key in tally.clusters} >= {("host", "xN"), ("save", "dirty.xN")}
    assert {cluster.example.divergence.event for cluster in tally.clusters.values()} == {at + 1}


def test_the_command_writes_scenarios_and_an_excerpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, small = RECORDINGS / "linux-6.1-nvhe.trace", tmp_path / "seeds", tmp_path / "small.trace"
    argv = ["distil", str(source), "--out", str(out)]
    assert main([*argv, "--json", "--excerpt", str(small)]) == 0
    data = json.loads(capsys.readouterr().out)
    written = {path.stem: path for path in out.glob("*.scn")}
    assert set(written) == {row["name"] for row in data["scenarios"]}
    for row in data["scenarios"]:
        assert load(written[row["name"]]) == parse(row["scenario"])
    assert small.read_bytes() == source.read_bytes()
    assert main(argv) == 2  # no file is overwritten
    assert "is there already" in capsys.readouterr().err
    assert main(["check", str(small)]) == 0
    assert "nothing unexplained, levels spec and kernel" in capsys.readouterr().out


def test_the_command_shows_unexplained_divergences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, broken = RECORDINGS / "linux-6.1-nvhe.trace", tmp_path / "broken.trace"
    reader = Reader(source)
    with create(broken, reader.head) as writer:
        for recorded in reader:
            if isinstance(recorded.event, Api) and recorded.event.name == "set_register":
                recorded = Recorded(1, 0, recorded.event._replace(b=0x1234))
            writer.add(recorded)
        writer.end("exited", 0, 2, 0)
    small = tmp_path / "small.trace"
    assert main(["check", str(broken), "--excerpt", str(small)]) == 1
    assert sum(isinstance(r.event, Switch) for r in Reader(small)) == 1
    assert "host.pc/FIRST" in capsys.readouterr().out
    assert main(["check", str(small)]) == 1
    out = capsys.readouterr().out
    assert "missing     2 records were dropped (area full)" in out
    assert "unexplained 1x host.pc/FIRST" in out and "expected 0x1234, observed 0x40000000" in out


def test_missing_records_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader, path = Reader(RECORDINGS / "linux-6.1-nvhe.trace"), tmp_path / "some.trace"
    with create(path, reader.head) as writer:
        for recorded in reader:
            writer.add(recorded)
        writer.end("exited", 0, 2, 0)
    assert main(["check", str(path)]) == 3
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
