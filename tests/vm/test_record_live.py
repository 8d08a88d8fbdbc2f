# SPDX-License-Identifier: Apache-2.0
"""Programs recorded on real KVM: a Linux guest until power-off, and a user's program."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.arch.exits import FSC_ACCESS, FSC_TYPE, exit_class
from harness.findings.check_recording import DEBUGGED, FOREIGN, NO_VECTORS
from harness.trace.events import EXIT, USER, Switch
from harness.trace.recorded_rounds import PROTECTED, SYSTEM_SUSPEND
from harness.trace.recording import Api, Reader
from harness.vm.build.prepare import prepare
from harness.vm.build.programs import GUEST_LINE, build_programs, read_program
from harness.vm.config import PROJECT, load_config
from harness.vm.recorder import RecordingProgress, record
from tests.support.traces import MMIO_EXIT
from tests.vm.killing import descendants

QUIET = "console=ttyAMA0 panic=-1 quiet"


def checked(path: Path, status: int, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Check a recording by the command, which must end with ``status``; return its JSON."""
    capsys.readouterr()
    assert main(["check", str(path), "--json"]) == status
    (report,) = json.loads(capsys.readouterr().out)["recordings"]
    assert isinstance(report, dict)
    spec, kernel = (report["levels"][level] for level in ("spec", "kernel"))
    judged, of_spec = (level["relations"].get("restore", 0) for level in (kernel, spec))
    assert judged == kernel["turns"] == spec["turns"] >= of_spec
    return report | spec


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("target", "cpus"), [("kvm-nvhe", 1), ("kvm-vhe", 2), ("kvm-7.3-nvhe", 1)])
def test_linux_boots_is_recorded_and_checked(
    target: str, cpus: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "boot.trace"
    argv = ["record", "--linux", "--cpus", str(cpus), "--words", QUIET, "--target", target, "--out", str(out)]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert any(line.startswith(GUEST_LINE) and f"{cpus} CPUs" in line for line in result["console"])
    assert result["end"]["status"] == "exited" and result["end"]["dropped"] == 0
    assert result["end"]["exits"] > 5000
    assert result["bytes"] / result["end"]["exits"] < 60
    report = checked(out, 0, capsys)
    assert report["unexplained"] == [] and len(report["vcpus"]) == cpus  # type: ignore[arg-type]
    exits, relations = report["exits"], report["relations"]
    assert isinstance(exits, dict) and isinstance(relations, dict)
    assert {"HVC64", "DABT_LOW", "IABT_LOW", "SYS64", "IRQ"} <= set(exits)
    assert access_faults(out) == 0, "a part of the host samples the guest's memory"
    # Every exit but the last, SYSTEM_OFF, is followed by an entry; every vCPU has one entry without an exit.
    assert relations["host"] == relations["save"] == sum(exits.values())
    assert relations["host.mmio"] > 100
    assert ("isolate" in relations) is (cpus > 1)


def access_faults(path: Path) -> int:
    """Return the number of access flag faults of a recording; the host causes each."""
    events = [r.event for r in Reader(path) if isinstance(r.event, Switch) and r.event.kind == EXIT]
    aborts = [e for e in events if exit_class(e.code, e.esr) in ("DABT_LOW", "IABT_LOW")]
    return sum(e.esr & FSC_TYPE == FSC_ACCESS for e in aborts)


PROGRAM = r"""
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = 0x80000000, .memory_size = 0x10000 };
	struct kvm_vcpu_init init;
	uint64_t pc = 0x80000000, address = 0x1000;
	struct kvm_one_reg set_pc = { 0x6030000000100040, (uint64_t)(unsigned long)&pc };
	struct kvm_one_reg set_x1 = { 0x6030000000100002, (uint64_t)(unsigned long)&address };
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	int kvm = open("/dev/kvm", O_RDWR), gone = ioctl(kvm, KVM_CREATE_VM, 0), vm, vcpu, left = atoi(argv[1]);
	uint32_t *ram = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *data = fopen("data", "r");
	struct kvm_run *run;

	close(gone); /* the next VM may lie where this one was */
	vm = ioctl(kvm, KVM_CREATE_VM, argc > 2 ? strtoul(argv[2], NULL, 0) : 0);
	if (argc < 2 || kvm < 0 || vm < 0 || !data || fgetc(data) != 'd')
		return 1;
	ram[0] = 0x39400023; /* ldrb w3, [x1] */
	ram[1] = 0x17ffffff; /* b back */
	__builtin___clear_cache((char *)ram, (char *)(ram + 2));
	slot.userspace_addr = (uint64_t)(unsigned long)ram;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot))
		return 5;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) || ioctl(vcpu, KVM_ARM_VCPU_INIT, &init))
		return 2;
	if (ioctl(vcpu, KVM_SET_ONE_REG, &set_pc) || ioctl(vcpu, KVM_SET_ONE_REG, &set_x1))
		return 3;
	if (argc > 3) {
		if (ioctl(vcpu, KVM_SET_GUEST_DEBUG, &debug))
			return 6;
		while (left--)
			if (ioctl(vcpu, KVM_RUN, 0) || (run->exit_reason != KVM_EXIT_MMIO && run->exit_reason != KVM_EXIT_DEBUG))
				return 8;
		return 9;
	}
	while (left--) {
		if (ioctl(vcpu, KVM_RUN, 0) || run->exit_reason != KVM_EXIT_MMIO)
			return 4;
		run->mmio.data[0] = 0x80;
	}
	printf("done\n");
	return 7;
}
"""


def compile_program(work: Path) -> Path:
    """Compile PROGRAM, whose guest repeats one load."""
    source, binary = work / "vmm.c", work / "vmm"
    source.write_text(PROGRAM)
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", binary, source]
    subprocess.run(compiler, check=True)
    (work / "data").write_text("d")
    return binary


def counts(path: Path) -> tuple[int, int]:
    """Return the numbers of data aborts and of returns to userspace for MMIO of a recording."""
    events = [r.event for r in Reader(path) if isinstance(r.event, Switch)]
    aborts = sum(e.kind == EXIT and exit_class(e.code, e.esr) == "DABT_LOW" for e in events)
    return aborts, sum(e.kind == USER and e.code == MMIO_EXIT for e in events)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("target", "kind"), [("kvm-nvhe", 36), ("kvm-7.3-protected", PROTECTED)])
def test_a_users_program(target: str, kind: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, out = compile_program(tmp_path), tmp_path / "own.trace"
    argv = ["record", "--json", "--target", target, "--out", str(out), "--file", str(tmp_path / "data")]
    assert main([*argv, str(binary), "2000", str(kind)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "  | done" in captured.err
    assert (result["end"]["status"], result["end"]["code"]) == ("exited", 7)
    assert result["end"]["dropped"] == 0
    assert counts(out) == (2000, 2000)
    report = checked(out, 0, capsys)
    exits, relations = report["exits"], report["relations"]
    assert isinstance(exits, dict) and isinstance(relations, dict)
    assert exits["DABT_LOW"] == 2000 and "IABT_LOW" in exits and set(exits) <= {"DABT_LOW", "IABT_LOW", "IRQ"}
    assert relations.pop("host.mmio") == 1999  # the last one is never completed
    assert set(relations.values()) == {sum(exits.values())}
    assert set(report["unchecked"]) == {  # type: ignore[call-overload]
        f"switch: {FOREIGN}",
        f"save.reveal: {FOREIGN}",
        f"switch.v*: {NO_VECTORS}",
    }
    calls = [(r.vm, r.event.name) for r in Reader(out) if isinstance(r.event, Api)]
    of_second = ("create", "slot", "reset", "set_register", "set_register", "destroy")
    assert calls == [(1, "create"), (1, "destroy"), *((2, name) for name in of_second)]
    assert [r.event.a for r in Reader(out) if isinstance(r.event, Api) and r.event.name == "create"] == [0, kind]
    assert report["vcpus"] == ["2.0"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", ["kvm-nvhe", "kvm-7.3-protected"])
def test_a_program_that_steps_its_guest(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, out = compile_program(tmp_path), tmp_path / "stepped.trace"
    argv = ["record", "--target", target, "--out", str(out), "--file", str(tmp_path / "data")]
    assert main([*argv, str(binary), "50", "0", "step"]) == 0
    report = checked(out, 0, capsys)
    exits, unchecked = report["exits"], report["unchecked"]
    assert isinstance(exits, dict) and isinstance(unchecked, dict)
    assert report["end"]["code"] == 9  # type: ignore[index]
    assert exits["SOFTSTP_LOW"] > 10
    assert unchecked[f"save, restore, host, isolate: {DEBUGGED}"] == sum(exits.values())


@pytest.mark.timeout(120)
def test_nothing_is_lost_when_the_writer_is_slow(tmp_path: Path) -> None:
    binary, out, count = compile_program(tmp_path), tmp_path / "slow.trace", 10_000
    program = read_program(binary, (str(count),), {"data": tmp_path / "data"})
    config = load_config("kvm-nvhe")
    # A ring for 500 records, and a writer that sleeps: the probe must wait for it.
    done = record(
        config,
        prepare(config),
        program,
        build_programs(),
        out,
        seconds=60,
        ring_mib=1,
        tick=lambda tick: time.sleep(0.4),
    )
    assert (done.end.status, done.end.code, done.end.dropped) == ("exited", 7, 0)
    assert done.end.waits > 0
    assert counts(out) == (count, count)


@pytest.mark.timeout(120)
def test_the_program_of_the_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (PROJECT / "docs" / "recording.md").read_text()
    code = re.search(r"```c\n(.*?)```", text, re.DOTALL)
    assert code is not None
    (tmp_path / "count.c").write_text(code[1])
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-Wall", "-Werror", "-o", tmp_path / "count", tmp_path / "count.c"]
    subprocess.run(compiler, check=True)
    out = tmp_path / "count.trace"
    assert main(["record", "--out", str(out), str(tmp_path / "count")]) == 0
    report = checked(out, 1, capsys)
    # Every kernel before 7.2 zero-extends (corpus/regressions/expected.toml); the third is never completed.
    unexplained = report["unexplained"]
    assert isinstance(unexplained, list)
    assert [(u["signature"], u["count"], u["expected"], u["observed"]) for u in unexplained] == [
        ("host.xN/DABT_LOW (mmio-load-loses-sign)", 2, "0xffffff80", "0x80")
    ]
    assert "kept        2x host.xN/DABT_LOW (mmio-load-loses-sign)" in text
    assert main(["check", str(out), "--accept-kept"]) == 0
    capsys.readouterr()
    # The scenario that is made of it shows it as well.
    assert main(["distil", str(out), "--out", str(tmp_path / "seeds"), "--verify", "--json"]) == 1
    scenarios = {row["name"]: row for row in json.loads(capsys.readouterr().out)["scenarios"]}
    assert scenarios["recorded_ldrsb_w_device"]["unexplained"] == ["host.xN/DABT_LOW (mmio-load-loses-sign)"]
    assert (tmp_path / "seeds" / "recorded_ldrsb_w_device.scn").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", ["kvm-nvhe", "kvm-6.12-nvhe", "kvm-7.3-protected"])
def test_a_program_like_the_selftests_of_kvm(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, out = tmp_path / "selftest_like", tmp_path / "own.trace"
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary]
    subprocess.run([*compiler, PROJECT / "tests" / "vm" / "selftest_like.c"], check=True)
    assert main(["record", "--json", "--target", target, "--out", str(out), str(binary)]) == 0
    end = json.loads(capsys.readouterr().out)["end"]
    assert (end["status"], end["code"], end["dropped"]) == ("exited", 0, 0)
    calls = [r.event for r in Reader(out) if isinstance(r.event, Api)]
    named = {call.name: call for call in calls if not call.error}
    assert named["capability"].a == SYSTEM_SUSPEND
    # The filter exists since 6.4; its one function exits to userspace, which does not handle it.
    assert ("filter" in named) is (target != "kvm-nvhe")
    report = checked(out, 0 if target != "kvm-nvhe" else 1, capsys)
    known, unchecked = report["known"], report["unchecked"]
    assert isinstance(known, dict) and isinstance(unchecked, dict)
    # Only the abort before the first run shows 6.1's erratum.
    causes = {row["signature"].partition(" ")[2] for row in report["unexplained"]}  # type: ignore[attr-defined]
    assert causes == ({"(esr-el1-sign-extended)"} if target == "kvm-nvhe" else set())
    assert known["ram-below-window-class"] >= 2 and known["mmio-above-window-class"] >= 80
    chosen = "host: a call of a VM whose userspace chose its firmware"
    assert unchecked[chosen] == (2 if "filter" in named else 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("target", "mode", "smp"),
    [("kvm-vhe", "gic", 1), ("kvm-nvhe", "lines", 1), ("kvm-7.3-protected", "lines", 1), ("kvm-6.12-nvhe", "gic", 2)],
)
def test_two_vcpus_and_interrupts(
    target: str, mode: str, smp: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary, out = tmp_path / "interrupts", tmp_path / "interrupts.trace"
    count = 400 if "7.3" in target else 40  # this kernel can preempt a thread while it records
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-pthread", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary]
    subprocess.run([*compiler, PROJECT / "tests" / "vm" / "interrupts.c"], check=True)
    argv = ["record", "--json", "--target", target, "--smp", str(smp), "--out", str(out)]
    assert main([*argv, str(binary), mode, str(count)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["end"]["status"], result["end"]["code"], result["end"]["dropped"]) == ("exited", 0, 0)
    report = checked(out, 0, capsys)
    assert report["unexplained"] == [] and report["vcpus"] == ["1.0", "1.1"]
    relations = report["relations"]
    assert isinstance(relations, dict)
    assert relations["host.mmio"] >= 2 * count and relations["isolate"] > 0
    calls = Counter(r.event.name for r in Reader(out) if isinstance(r.event, Api))
    assert calls["irq_line"] == (0 if mode == "gic" else 8 * count)
    # A fourth of the accesses is completed by a KVM_RUN with immediate_exit.
    users = [r.event for r in Reader(out) if isinstance(r.event, Switch) and r.event.kind == USER]
    assert sum(user.error == errno.EINTR for user in users) >= sum(user.error == 0 for user in users) // 4


@pytest.mark.timeout(120)
def test_a_target_that_is_lost_leaves_what_was_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, out = compile_program(tmp_path), tmp_path / "lost.trace"
    program = read_program(binary, ("100000000",), {"data": tmp_path / "data"})
    config = load_config("kvm-nvhe")
    killed: list[int] = []

    def kill(tick: RecordingProgress) -> None:
        if not killed and sum(tick.exits.values()) > 500:
            killed.append(tick.records)
            (pid,) = (pid for pid, command in descendants(os.getpid()) if "qemu-system-aarch64" in command)
            os.kill(pid, signal.SIGKILL)

    done = record(config, prepare(config), program, build_programs(), out, seconds=60, tick=kill)
    assert done.lost is not None and done.end.status == "lost"
    assert done.end.records >= killed[0]
    assert counts(out)[0] > 500
    report = checked(out, 0, capsys)
    assert report["end"]["status"] == "lost"  # type: ignore[index]


@pytest.mark.timeout(120)
def test_a_recording_that_is_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, out = compile_program(tmp_path), tmp_path / "interrupted.trace"
    argv = [
        sys.executable,
        "-m",
        "fuzz.cli.main",
        "record",
        "--out",
        out,
        "--file",
        tmp_path / "data",
        binary,
        "100000000",
    ]
    with subprocess.Popen(argv, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert any("exits a second" in line and "DABT_LOW" in line for line in process.stderr), "no progress"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert checked(out, 0, capsys)["end"]["status"] == "stopped"  # type: ignore[index]


@pytest.mark.timeout(120)
def test_a_recording_that_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stopped.trace"
    assert main(["record", "--linux", "--words", QUIET, "--seconds", "4", "--out", str(out)]) == 0
    assert "still running when the recording was stopped" in capsys.readouterr().out
    assert checked(out, 0, capsys)["end"]["status"] == "stopped"  # type: ignore[index]
