# SPDX-License-Identifier: Apache-2.0
"""Expected values are judged at the next exit of their vCPU that shows them; what cannot be judged says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.scenario.scenario import parse
from harness.trace.events import Switch
from harness.trace.expectations import judge_expectations
from harness.trace.tracefile import load_trace
from tests.support.paths import GOLDEN

TEXT = (GOLDEN / "mixture.scn").read_text()
TRACE = load_trace(GOLDEN / "mixture.trace.json")


def judged(after: str, *lines: str) -> list[tuple[int | None, bool, str]]:
    """Put expectations after a line of the scenario, or at its end, and judge them on its trace."""
    head, line, tail = TEXT.partition(f"{after}\n")
    text = head + line + "".join(f"expect {one}\n" for one in lines) + tail
    return [(one.observed, one.failed, one.why) for one in judge_expectations(parse(text), TRACE)]


def test_no_expectation_is_no_judgement() -> None:
    assert judge_expectations(parse(TEXT), TRACE) == ()


@pytest.mark.parametrize(
    ("after", "name", "value"),
    [
        ("reg x9 0x9000000", "x9", 0x9000000),
        ("reg x9 0x9000000", "pc", 0x40000000),
        ("hvc 0x0", "pc", 0x40000004),
        ("complete 0x80", "x3", 0x80),  # stock KVM does not sign-extend: the finding mmio-load-loses-sign
        ("set tpidr_el1 0x1234", "x4", 0xFEED),
        ("set tpidr_el1 0x1234", "tpidr_el1", 0x1234),
        ("str w4, [x9, 0x20]", "mmio_data", 0xFEED),
    ],
)
def test_values(after: str, name: str, value: int) -> None:
    assert judged(after, f"{name} {value:#x}") == [(value, False, "")]
    assert judged(after, f"{name} {value ^ 1:#x}") == [(value, True, "")]


def test_the_right_value_of_a_signed_load_is_not_seen() -> None:
    assert judged("complete 0x80", "x3 0xffffffffffffff80", "x9 0x9000000") == [
        (0x80, True, ""),
        (0x9000000, False, ""),
    ]


def test_what_cannot_be_judged() -> None:
    ((seen, failed, why),) = judged("hvc 0x0", "mmio_data 0x0")
    assert (seen, failed) == (None, False) and "showed userspace no store" in why
    ((seen, failed, why),) = judged(
        "reset",
        "x0 0x0",
    )
    assert failed is False and (seen is not None or "did not come to an exit" in why)
    protected = parse(TEXT.replace("hvc 0x0\n", "vcpu p.0\nexpect x0 0x0\nhvc 0x0\n"))
    (one,) = judge_expectations(protected, TRACE)
    assert one.observed is None and "a protected VM" in one.why


def test_only_the_bytes_of_a_store_are_its_data() -> None:
    """KVM writes as many bytes of kvm_run as the access has: what an earlier one left there is not this one's."""
    events = tuple(
        e._replace(mmio_data=e.mmio_data | 0xABCD << 48) if isinstance(e, Switch) and e.mmio_len & 0x100 else e
        for e in TRACE.events
    )
    stale = replace(TRACE, events=events)
    text = TEXT.replace("str w4, [x9, 0x20]\n", "str w4, [x9, 0x20]\nexpect mmio_data 0xfeed\n")
    (one,) = judge_expectations(parse(text), stale)
    assert one.observed == 0xFEED and not one.failed
