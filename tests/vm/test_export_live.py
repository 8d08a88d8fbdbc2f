# SPDX-License-Identifier: Apache-2.0
"""The C programs of ``shadowfuzz findings export``, each as PID 1 of a machine: they show the divergence."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from harness.findings.checked import signature
from harness.findings.finding import Finding, Tries, difference, place_text
from harness.report.export import c_program, reproducer
from harness.report.finding_data import Kept, Story, build_story
from harness.scenario.scenario import format_scenario, load, parse
from harness.vm.config import PROJECT
from tests.vm.bare import run_as_init

TARGET = "kvm-nvhe"
NEVER = Tries(1, 1)

CASES = (
    # regression, its divergence
    ("mmio_load_signed_byte_x", "host.xN/DABT_LOW"),
    ("fetch_outside_slots", "host.esr_el1/IABT_LOW"),
    ("reset_then_stale_completion", "host.pc/RESET"),
    ("reset_then_stale_completion", "restore.xN/RESET/prep_abort.mmio"),
    ("reset_twice", "host.elr_el1/RESET"),
    ("slot_gone_signed_load", "host.xN/DABT_LOW"),
    ("external_abort_instead_of_mmio", "host.esr_el1/DABT_LOW"),
    ("external_abort_while_stepped", "host.esr_el1/DABT_LOW"),
)


@pytest.fixture(scope="module")
def targets() -> Iterator[PreparedTargets]:
    """Yield the target to record on."""
    with open_targets(TargetOptions(TARGET, "spec")) as targets:
        yield targets


def story(targets: PreparedTargets, name: str, wanted: str) -> Story:
    """Record a regression and return the story of one of its divergences."""
    scenario = load(PROJECT / "corpus" / "regressions" / f"{name}.scn")
    seen = targets.run_and_check(scenario)
    trace, checked, side = seen.trace, seen.checked, targets.sides[0]
    (key,) = (key for key in signatures(checked) if place_text(key) == wanted)
    members = tuple(difference(d) for d in checked.unexplained if signature(d) == key)
    finding = Finding("divergence", key, targets.subject, members, len(members), NEVER, NEVER, "2026-01-01")
    return build_story(
        Kept(finding, True, 1, "2026-01-01", scenario, trace, {}), side.cpu, side.catalogue, errata=side.errata
    )


def run_program(program: str, work: Path) -> str:
    """Compile a C program, boot the target's kernel with it as PID 1, return its output."""
    source, binary = work / "repro.c", work / "repro"
    source.write_text(program)
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", binary, source]
    subprocess.run(compiler, check=True)
    return run_as_init(TARGET, binary.read_bytes(), work)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "wanted"), CASES, ids=["-".join(case) for case in CASES])
def test_the_program_shows_the_divergence(targets: PreparedTargets, name: str, wanted: str, tmp_path: Path) -> None:
    told = story(targets, name, wanted)
    program = c_program(told, "repro.c")
    assert program is not None
    out = run_program(program, tmp_path)
    assert "RESULT 1: diverges" in out, out
    assert told.divergence is not None and isinstance(told.divergence.observed, int)
    assert f"observed {told.divergence.observed:#x}; shadowfuzz saw {told.divergence.observed:#x}" in out


@pytest.mark.timeout(180)
def test_a_program_without_divergence_says_so(targets: PreparedTargets, tmp_path: Path) -> None:
    program = c_program(story(targets, *CASES[0]), "repro.c")
    assert program is not None
    out = run_program(
        program.replace("complete 0x80", "complete 0x7f")
        .replace("0x80ull, 0x0ull", "0x7full, 0x0ull")
        .replace("0xffffffffffffff80ull, 0x80ull", "0x7full, 0x80ull"),
        tmp_path,
    )
    assert "RESULT 0: as expected" in out, out


@pytest.mark.timeout(60)
def test_the_reproducer_is_a_scenario_that_says_all(targets: PreparedTargets) -> None:
    told = story(targets, *CASES[0])
    text = reproducer(told)
    assert text is not None and told.kept.scenario is not None
    assert parse(text) == told.kept.scenario
    for what in (told.id, told.title, targets.subject.kernel_sha256, "verdict kvm", "shadowfuzz replay"):
        assert what in text
    assert text.endswith(format_scenario(told.kept.scenario).split("\n", 1)[1])
