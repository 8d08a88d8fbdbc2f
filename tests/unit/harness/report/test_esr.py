# SPDX-License-Identifier: Apache-2.0
"""Syndromes decoded to text."""

from __future__ import annotations

from harness.arch.registers import NAMES
from harness.report.esr import ISS_FIELDS, decode, fault_name
from harness.trace.events import EXIT, Switch


def test_syndromes_in_words() -> None:
    blank = Switch(EXIT, 0, 2, 0, 0x93C3_8007, 0x9000, 0x90, 0, 0, 0, 0, 0, 0, (0,) * len(NAMES))
    syndrome = decode(blank)
    assert syndrome is not None
    assert dict(syndrome.fields)["SRT"] == 3
    assert syndrome.note == "read, translation fault, level 3"
    assert syndrome.ipa == 0x9000
    without = decode(blank._replace(esr=0x9200_0047))
    assert without is not None
    assert "SRT" not in dict(without.fields)
    assert without.note == "write, translation fault, level 3"
    assert decode(blank._replace(code=0)) is None
    assert fault_name(0x10) == "synchronous external abort"
    assert fault_name(0x3F) == "fault status 0x3f"
    assert all(field.low + field.width <= 25 for fields in ISS_FIELDS.values() for field in fields)
