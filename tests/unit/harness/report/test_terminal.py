# SPDX-License-Identifier: Apache-2.0
"""Reports against golden files, from a recorded trace.

``UPDATE_GOLDEN=1 pytest tests/unit/harness/report/test_terminal.py`` rewrites them; read the diff before a commit.
The trace is ``shadowfuzz replay tests/golden/mixture.scn --json --trace``, its ``trace`` converted by ``format_trace``.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.findings.asserted_alarms import Asserted
from harness.report import terminal
from harness.report.left_out import FailedStep, LeftOut
from harness.report.terminal import Style
from harness.report.trace_text import trace_lines
from harness.vm.alarms import Alarm
from tests.support.reports import LEVEL, compare_with, recorded, results, run, tampered, text_report


@pytest.mark.parametrize(
    ("name", "width", "known"),
    [("report.100.txt", 100, False), ("report.80.txt", 80, False), ("report.known.txt", 100, True)],
)
def test_the_text_report(name: str, width: int, known: bool) -> None:
    text = text_report(Style(width), known)
    compare_with(name, text)
    too_long = [line for line in text.splitlines() if len(line) > width]
    assert not too_long
    assert "\x1b" not in text


def test_the_trace_view() -> None:
    compare_with("report.trace.txt", "\n".join([*trace_lines(recorded()), ""]))


def test_colour_marks_the_differing_digits_and_nothing_else_changes() -> None:
    plain, coloured = text_report(Style(100), True), text_report(Style(100, True), True)
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain.replace("\x1b", "")


def test_what_a_switch_lost_is_shown_from_entry_to_exit() -> None:
    site = next(s for s in run(tampered()).sites if s.action is None)
    (row,) = site.rows
    assert site.columns == ("entry", "expected", "observed")
    assert row.register == "x19"
    assert row.bits == 0xFF00_0000_0000_0001
    assert row.values[0] == row.values[1]


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0, ""), (1, "0"), (1 << 63, "63"), ((1 << 64) - 1, "63:0"), (0xF000_0000_0000_0101, "63:60, 8, 0")],
)
def test_bit_ranges(bits: int, text: str) -> None:
    assert terminal.bit_ranges(bits) == text


@given(st.integers(0, (1 << 64) - 1))
def test_bit_ranges_name_exactly_the_bits(bits: int) -> None:
    back = 0
    for part in filter(None, terminal.bit_ranges(bits).split(", ")):
        high, _, low = part.partition(":")
        for bit in range(int(low or high), int(high) + 1):
            back |= 1 << bit
    assert back == bits


def test_what_was_left_out_what_failed_and_what_was_asserted_have_lines() -> None:
    alarm = Alarm("warn", "bad_trap", "Unexpected register access", "")
    gap = LeftOut("switch", "loaded from RAM", "the value", 7, 2, "HVC64")
    ran = replace(
        run(recorded()),
        asserted=(Asserted(alarm, "register-without-accessor", 0x623A_0081),),
        left_out=(gap, gap._replace(event=None)),
        failed=(FailedStep(1, "abort", "ENOENT"),),
    )
    style = Style(200)
    (asserted,) = terminal.asserted_lines(ran, style)
    assert "bad_trap at a forged register-without-accessor, ESR_EL2 0x623a0081" in asserted
    first, second = terminal.left_out_lines(ran, style)
    assert first.endswith("event 7, step 2, HVC64: switch: loaded from RAM; needs: the value")
    assert "in the whole trace" in second
    (failed,) = terminal.failed_lines(ran, style)
    assert failed.endswith("step 1: abort: ENOENT")
    result = replace(results()[0], ran=(ran,), boot_alarms=(alarm,))
    text = terminal.summary((result,), LEVEL, style)
    assert "failed      1 host step\n" in text and "asserted    1 time by KVM about forged exits\n" in text
    assert f"at boot     {alarm.sentence}\n" in text
