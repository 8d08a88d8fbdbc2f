# SPDX-License-Identifier: Apache-2.0
"""The JSON report: plain data, against its golden file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from harness.report.replay_json import document
from harness.report.replay_result import TargetResult
from harness.report.terminal import Style
from harness.trace.tracefile import trace_from_json
from tests.support.reports import LEVEL, compare_with, recorded, results, run, tampered, text_report


def test_the_json_report() -> None:
    ran = run(tampered())
    ran = replace(ran, sites=ran.sites[2:4])  # one of each kind keeps the golden file short
    data = document((TargetResult("kvm-nvhe", "6.1.0-x", 1, 1.25, (ran,), results()[1].lost),), LEVEL)
    compare_with("report.json", json.dumps(data, indent=1) + "\n")


def test_json_is_plain_data_and_every_64_bit_value_a_string() -> None:
    data = json.loads(json.dumps(document(results(), LEVEL, traces=True)))

    def numbers(value: Any) -> list[int]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, int) else []

    assert max(numbers(data)) < 1 << 53
    assert data["exit_status"] == 3
    trace = data["targets"][0]["runs"][0]["trace"]
    assert trace_from_json(trace) == recorded()


def test_json_has_everything_that_the_text_has() -> None:
    text, data = text_report(Style(100), True), json.dumps(document(results(), LEVEL))
    for value in set(re.findall(r"\b0x[0-9a-f]{3,}\b", text)):  # smaller values are fields, which are numbers in JSON
        assert f"{int(value, 16):#x}" in data, value
