# SPDX-License-Identifier: Apache-2.0
"""The fast QEMU is used where it recorded what Debian's does, and only there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fuzz.cli.main import parsed
from fuzz.cli.options import targets_of
from fuzz.targets import fast_qemu
from fuzz.targets.fast_qemu import MAX_DIFFERENCES, Comparison, choose_qemu, compare_machines, corpus_of, set_up
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import PreparedSide
from harness.arch.cpu_models import cpu_model
from harness.errors import AgentProtocolError, SetupError, VmLost
from harness.findings.known_divergences import Catalogue
from harness.scenario.scenario import Scenario, Step
from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache
from harness.vm.config import load_config, parse_config
from harness.vm.fast_qemu.build import FastQemu
from tests.support.fake_worker import SUBJECT

CONFIG = load_config("kvm-nvhe")
ROWS = [(f"{n}.scn", Scenario("A call.", (), (Step("hvc", (n,)),))) for n in range(20)]


@dataclass
class FakeMachine:
    """Records the scenario's own text, or what stands in for it."""

    odd: dict[str, bytes | Exception]
    exits: int = 0
    last: bytes | Exception = b""

    def run_bare(self, scenario: Scenario, *, fresh_vm: bool, record: bool) -> None:
        """Stand in for a run."""
        assert fresh_vm and record
        name = f"{scenario.steps[0].args[0]}.scn"
        self.last = self.odd.get(name, name.encode())
        self.exits += 2
        if isinstance(self.last, VmLost):
            raise self.last

    def recorded(self) -> bytes:
        """Stand in for the area."""
        if isinstance(self.last, Exception):
            raise self.last
        return self.last


def compared(**odd: bytes | Exception) -> Comparison:
    wanted = {f"{name.removeprefix('s')}.scn": value for name, value in odd.items()}
    return compare_machines(FakeMachine({}), FakeMachine(wanted), ROWS)


def test_machines_that_record_the_same() -> None:
    found = compared()
    assert (found.scenarios, found.exits, found.differ) == (20, 40, ())


def test_one_byte_is_a_difference_and_so_is_a_failure_of_one() -> None:
    assert compared(s7=b"7.scm").differ == ("7.scn",)
    assert compared(s3=AgentProtocolError("operation 1 failed")).differ == ("3.scn",)
    both = FakeMachine({"3.scn": AgentProtocolError("operation 1 failed (ioctl), errno 22")})
    assert compare_machines(both, replace(both), ROWS).differ == ()


def test_a_machine_that_took_another_number_of_exits_differs() -> None:
    other = FakeMachine({}, exits=1)
    assert compare_machines(FakeMachine({}), other, ROWS).differ == ("0.scn", "1.scn", "2.scn")


def test_a_build_that_is_wrong_everywhere_is_not_run_to_the_end() -> None:
    found = compared(**{f"s{n}": b"?" for n in range(5, 15)})
    assert found.differ == ("5.scn", "6.scn", "7.scn") and found.scenarios == 5 + MAX_DIFFERENCES


def test_a_lost_machine_is_no_result() -> None:
    with pytest.raises(VmLost):
        compared(s1=VmLost("t", "QEMU ended"))


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedTarget:
    for name in ("Image", "initrd"):
        (tmp_path / name).write_text(name)
    nowhere = tmp_path / "nowhere"
    return PreparedTarget("t", tmp_path / "Image", "0", "6.1.0", "p", "1", tmp_path / "initrd", nowhere, nowhere)


@pytest.fixture
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastQemu:
    (tmp_path / "fast").write_text("program")
    found = FastQemu(tmp_path / "fast", "7.2.22", "1:7.2")
    for name in ("find_fast_qemu", "build_fast_qemu"):
        monkeypatch.setattr(fast_qemu, name, lambda *_: found)
    (tmp_path / "qemu-system-aarch64").write_text("Debian's")
    (tmp_path / "qemu-system-aarch64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return found


def test_without_a_proof_debian_s_own_is_used(tmp_path: Path, prepared: PreparedTarget, fast: FastQemu) -> None:
    said: list[str] = []
    assert choose_qemu(CONFIG, prepared, said.append, Cache(tmp_path / "cache")) == prepared
    assert said == [
        "no fast QEMU: it was not compared with Debian's on kvm-nvhe "
        "(`shadowfuzz setup --fast-qemu --target kvm-nvhe`); Debian's QEMU is used"
    ]


def test_what_is_not_built_or_not_wanted_is_said(
    tmp_path: Path, prepared: PreparedTarget, fast: FastQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    cache = Cache(tmp_path / "cache")
    assert choose_qemu(load_config("kvm-nvhe%qemu-10.0"), prepared, said.append, cache) == prepared
    monkeypatch.setattr(fast_qemu, "find_fast_qemu", lambda _: None)
    assert choose_qemu(CONFIG, prepared, said.append, cache) == prepared
    assert "kvm-nvhe%qemu-10.0 names a QEMU; Debian's" in said[0] and "it is not built (`" in said[1]


def test_set_up_compares_once_and_then_it_is_used(
    tmp_path: Path, prepared: PreparedTarget, fast: FastQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def prove(*_: object) -> Comparison:
        runs.append("run")
        return Comparison(3, 9, 1.0, ())

    monkeypatch.setattr(fast_qemu, "prove", prove)
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        assert set_up(CONFIG, prepared, cache=cache) == fast
    assert runs == ["run"]
    assert choose_qemu(CONFIG, prepared, cache=cache).qemu == (str(fast.program),)
    fast.program.write_text("another program")
    assert choose_qemu(CONFIG, prepared, cache=cache) == prepared


def test_a_sabotaged_build_is_not_used(
    tmp_path: Path, prepared: PreparedTarget, fast: FastQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boot(_config: object, target: PreparedTarget, **_: object) -> FakeContext:
        return FakeContext(FakeMachine({"4.scn": b"stale"} if target.qemu != prepared.qemu else {}))

    monkeypatch.setattr(fast_qemu, "boot", boot)
    monkeypatch.setattr(fast_qemu, "corpus_of", lambda *_: ROWS)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(SetupError, match=r"kvm-nvhe: the fast QEMU records something else than Debian's in 4\.scn"):
        set_up(CONFIG, prepared, cache=cache)
    assert choose_qemu(CONFIG, prepared, cache=cache) == prepared


@dataclass
class FakeContext:
    """A machine that was booted."""

    machine: FakeMachine

    def __enter__(self) -> FakeMachine:
        return self.machine

    def __exit__(self, *_: object) -> None:
        pass


def test_a_target_that_names_its_qemu_is_refused(tmp_path: Path, prepared: PreparedTarget) -> None:
    with pytest.raises(SetupError, match="names a QEMU"):
        set_up(load_config("kvm-nvhe%qemu-10.0"), prepared, cache=Cache(tmp_path / "cache"))


def test_the_corpus_of_a_target_without_protected_vms(prepared: PreparedTarget) -> None:
    names = [name for name, _ in corpus_of(CONFIG, prepared)]
    later = replace(prepared, kernel_release="7.3.0")
    protected = [name for name, _ in corpus_of(load_config("kvm-7.3-protected"), later)]
    assert 300 < len(names) < len(protected)


def test_only_campaigns_ask_for_it_or_leave_it_to_the_target() -> None:
    text = "like = 'kvm-nvhe'\nfast_qemu = true\n"
    assert parse_config("t", text, "t.toml").fast_qemu and not CONFIG.fast_qemu
    wanted = {"fuzz --fast-qemu": True, "fuzz": None, "replay a.scn": False, "triage": False}
    for words, value in wanted.items():
        given = parsed(words.split())
        if isinstance(given.target, str):
            assert targets_of(given).fast_qemu is value, words
    assert TargetOptions("t", "spec").fast_qemu is False


def test_a_side_on_the_fast_qemu_has_the_other_one_for_confirming(prepared: PreparedTarget, fast: FastQemu) -> None:
    side = PreparedSide(
        *(CONFIG, fast_qemu.on_fast(prepared, fast), SUBJECT, cpu_model(CONFIG.cpu), Catalogue("spec", ())),
        own=prepared,
    )
    assert side.on_own_qemu().prepared == prepared and side.on_own_qemu().own is None
    assert side.on_own_qemu().on_own_qemu() == side.on_own_qemu()
