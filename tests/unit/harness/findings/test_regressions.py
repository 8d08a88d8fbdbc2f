# SPDX-License-Identifier: Apache-2.0
"""What is like a finding that the corpus keeps, and what is new; tests/vm/test_corpus_live.py checks the file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.paths import KEPT
from harness.errors import InputError
from harness.findings.finding import Difference, Finding, Subject, Tries
from harness.findings.regressions import Regression, errata_of, like, likeness, load_regressions, new_text
from harness.relations.errata import NO_DEBUG, SIGN_EXTENDED

ROW = Regression("a", "A.", "Why.", "kvm", "Source.", ("kvm-nvhe",), ("host.esr_el1/IABT_LOW",), ("s",))
WIDE = replace(ROW, id="wide", ones=0xFFFFFFFF_00000000)
ELSEWHERE = replace(ROW, id="elsewhere", targets=("kvm-vhe",))
KEPT_ROWS = (ROW, WIDE, ELSEWHERE)


def finding(observed: str, target: str = "kvm-nvhe", *signature: str, kind: str = "divergence") -> Finding:
    difference = Difference("host", "esr_el1", "0x1", observed, "IABT_LOW", 1, 0, "")
    never, subject = Tries(0, 0), Subject(target, "6.1.0", "00" * 32, "spec")
    key = signature or ("host", "esr_el1", "IABT_LOW", "")
    return Finding(kind, key, subject, (difference,), 1, never, never, "2026-01-02T03:04:05+00:00")


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (finding("0x2"), ("a",)),
        (finding("0xffffffff86000010"), ("a", "wide")),
        (finding("text"), ("a",)),
        (finding("0x2", "kvm-vhe"), ("elsewhere",)),
        (finding("0x2", "kvm-nvhe@6.12.117%cortex-a57"), ("a",)),
        (finding("0x2", "kvm-nvhe%qemu-10.0"), ("a",)),
        (finding("0x2", "kvm-6.12-nvhe"), ()),
        (finding("0x2", "kvm-nvhe", "host", "esr_el1", "forged:IABT_LOW", ""), ()),
        (finding("0x2", "kvm-nvhe", "host", "esr_el1", "IABT_LOW", "prep_abort"), ()),
        (finding("0x2", "kvm-nvhe", "restore", "esr_el1", "IABT_LOW", ""), ()),
        (finding("0x2", kind="internal"), ()),
        (replace(finding("0x2"), other=Subject("kvm-vhe", "6.1.0", "00" * 32, "spec")), ()),
    ],
)
def test_the_same_signature_on_the_same_target(found: Finding, names: tuple[str, ...]) -> None:
    assert like(KEPT_ROWS, found) == names
    assert likeness(names) == (f"like {' or '.join(names)}" if names else "new")


def test_an_alarm_is_like_a_kept_one_where_that_is() -> None:
    row = replace(ROW, targets=(), elsewhere="kvm-protected@7.2.6", signatures=("warn/kvm_arch_vm_ioctl",))
    key = ("warn", "kvm_arch_vm_ioctl")
    alarms = [
        replace(finding("", target, *key, kind="alarm"), divergences=())
        for target in ("kvm-protected@7.2.6", "kvm-protected@7.2.9", "kvm-protected")
    ]
    assert [like((row,), alarm) for alarm in alarms] == [("a",), (), ()]
    assert like((row,), replace(alarms[0], signature=("warn", "bad_trap"))) == ()


def test_all_values_that_are_kept_have_the_bits() -> None:
    wide = finding("0xffffffff86000010")
    mixed = replace(wide, divergences=(*wide.divergences, *finding("0x2").divergences))
    assert like((WIDE,), wide) == ("wide",) and like((WIDE,), mixed) == ()


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("host.gic_list/SYS64", "host.gic_list/*"),
        ("host.gic_list/forged:WFX", "host.gic_list/*"),
        ("host.gic_list/SYS64/prep_abort", None),
        ("host.gic_list", None),
        ("host.gic_lists/SYS64", None),
        ("restore.pc/WFX/prep_abort", "restore.pc/*/prep_abort"),
        ("restore.pc/WFX", None),
        ("switch.pc/HVC64", "switch.pc/HVC64"),
        ("switch.pc/WFX", None),
        ("restore.x0/RESET/none", "restore.x0/RESET/*"),
        ("restore.x0/WFX/none", None),
        ("restore.x0/RESET", None),
    ],
)
def test_a_cause_that_no_exit_class_or_helper_matters_to(text: str, pattern: str | None) -> None:
    signatures = ("host.gic_list/*", "restore.pc/*/prep_abort", "switch.pc/HVC64", "restore.x0/RESET/*")
    row = replace(ROW, signatures=signatures)
    assert row.matching(text) == pattern


def test_a_finding_of_any_class_is_like_it() -> None:
    row = replace(ROW, signatures=("host.esr_el1/*",))
    assert like((row,), finding("0x2", "kvm-nvhe", "host", "esr_el1", "SYS64", "")) == ("a",)
    assert like((row,), finding("0x2", "kvm-nvhe", "host", "elr_el1", "SYS64", "")) == ()


def test_what_some_signatures_need_beside() -> None:
    row = replace(ROW, signatures=("host.esr_el1/*", "host.esr_el1/*/*"), where={"host.esr_el1/*": "*, observed 0x?"})
    found = finding("0x2", "kvm-nvhe", "host", "esr_el1", "SYS64", "")
    assert like((row,), found) == ("a",)
    assert like((row,), finding("0x22", "kvm-nvhe", "host", "esr_el1", "SYS64", "")) == ()
    assert like((row,), finding("0x22", "kvm-nvhe", "host", "esr_el1", "SYS64", "prep_abort")) == ("a",)
    more = replace(found, divergences=(*found.divergences, *finding("0x22").divergences))
    assert like((row,), more) == (), "each of its divergences"


def test_a_machine_that_ended_as_one_did_before() -> None:
    row = replace(ROW, signatures=("oops/access_vm_reg",))
    lost = Finding(
        *("crash", ("oops", "kernel BUG at sys_regs.c:N!", "access_vm_reg"), Subject("kvm-nvhe", "6.1", "00", "spec")),
        *((), 1, Tries(0, 0), Tries(0, 0), "2026-01-02T03:04:05+00:00"),
    )
    assert like((row,), lost) == ("a",)
    for signature in (("oops", "kernel BUG at sys_regs.c:N!", "access_rw"), ("oops",)):
        assert like((row,), replace(lost, signature=signature)) == ()
    assert like((row,), replace(lost, subject=replace(lost.subject, target="kvm-vhe"))) == ()


def test_how_many_are_new() -> None:
    assert (new_text(0), new_text(3)) == ("none of them new", "3 of them new")


def test_what_the_project_keeps() -> None:
    rows = {row.id: row for row in load_regressions(KEPT)}
    assert {"mmio-load-loses-sign", "reset-completes-pending-mmio"} <= set(rows)
    assert all(row.signatures and row.scenarios and (row.targets or row.elsewhere) for row in rows.values())
    assert rows["reset-completes-pending-mmio"].divergences == ("host.pc", "host.pstate", "host.xN", "restore.xN")
    assert load_regressions(KEPT.with_name("nothing")) == ()


TEXT = """[[finding]]
id = "a"
summary = "A."
why = "Why."
verdict = "kvm"
source = "Source."
targets = ["kvm-nvhe"]
signatures = ["host.esr_el1/IABT_LOW"]
scenarios = ["s"]
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "no list of findings"),
        ("finding = 1", "expected [[finding]] entries"),
        ("finding = [1]", "finding 1: expected a table"),
        (TEXT + TEXT, "the id 'a' is used twice"),
        (TEXT + 'ones = "many"', "finding 1: ones: expected a number in quotes, found 'many'"),
        (TEXT + "ends = 1", "finding 1: ends: expected text"),
        (TEXT + 'divergences = ["host.pc"]', "finding 1: divergences: no such key, expected id, "),
        (TEXT.replace('["s"]', '"s"'), "finding 1: scenarios: expected a list of texts"),
        (TEXT.replace('["s"]', "[1]"), "finding 1: scenarios: expected a list of texts"),
        (TEXT.replace("host.esr_el1/", "*/"), "'*/IABT_LOW': expected * as the exit class"),
        (TEXT.replace("IABT_LOW", "IABT*"), "'host.esr_el1/IABT*': expected * as the exit class"),
        (TEXT.replace("IABT_LOW", "*/*/*"), "'host.esr_el1/*/*/*': expected * as the exit class"),
        (TEXT + "where = 1", "finding 1: where: expected a table of texts"),
        (TEXT + "where = {a = 1}", "finding 1: where: expected a table of texts"),
        (TEXT + 'where = {"host.pc/WFX" = "*"}', "where: 'host.pc/WFX' is none of its signatures"),
        (TEXT.replace('why = "Why."', ""), "finding 1: why: expected text"),
    ],
)
def test_a_file_that_is_none(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(TEXT)
    assert load_regressions(path) == (ROW,)
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_regressions(path)
    assert reason in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("kvm-nvhe", True),
        ("kvm-7.3-nvhe", False),
        ("kvm-nvhe@6.1.164", True),
        ("kvm-nvhe@6.1.0-44-cloud-arm64", True),  # Debian's name of a 6.1 does not say which
        ("kvm-7.3-nvhe@6.17.13-1~bpo13+1%cortex-a57", True),
        ("kvm-nvhe@6.18.5+deb13-cloud-arm64", False),
        ("kvm-nvhe@7.0.4", True),
        ("kvm-nvhe@7.3", False),
        ("kvm-protected@6.1.164", False),
        ("kvm-vhe@6.18.5", False),
    ],
)
def test_a_target_with_another_kernel_has_what_was_measured_there(target: str, here: bool) -> None:
    """Of a mode that was not measured it has what its configuration has."""
    spans = {"nvhe": ("6.1.164 to 6.17.13", "7.0.4 to 7.1.13"), "protected": ("7.2.6 to 7.2.13",)}
    assert replace(ROW, releases=spans).is_on(target) == here


@pytest.mark.parametrize("releases", ['["6.1.164"]', "{ nvhe = 1 }", '{ nvhe = ["6.1"] }', '{ nvhe = ["7.3.4 to"] }'])
def test_releases_that_are_none(tmp_path: Path, releases: str) -> None:
    text = KEPT.read_text(encoding="utf-8")
    (tmp_path / "expected.toml").write_text(re.sub("releases = .*", f"releases = {releases}", text, count=1))
    with pytest.raises(InputError, match="releases"):
        load_regressions(tmp_path / "expected.toml")


def test_errata_of_protected_mode_are_looked_for_in_protected_mode_only() -> None:
    kept = load_regressions(KEPT)
    assert NO_DEBUG not in errata_of(kept, "kvm-nvhe").elsewhere | errata_of(kept, "kvm-vhe@7.3.4").elsewhere
    assert NO_DEBUG in errata_of(kept, "kvm-7.3-protected%qemu-10.0").elsewhere
    assert SIGN_EXTENDED in errata_of(kept, "kvm-7.3-nvhe").elsewhere, "an erratum of the other modes"
