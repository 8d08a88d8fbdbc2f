# SPDX-License-Identifier: Apache-2.0
"""What a node says of itself is untrusted: it comes back as it was, or is one clear error."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64encode

import pytest

from fuzz.campaign.counters_file import COVERAGE_SIZE, Stats
from fuzz.cluster.node_report import RUNNING, NodeReport
from harness.errors import InputError
from harness.findings.finding import Subject

SEEN = bytes([0, 1]) * (COVERAGE_SIZE // 2)
REPORT = NodeReport(
    *("life", "host", RUNNING, Stats({("count", "scenarios"): 7, ("time", "ready"): 5, ("lost", "a/b"): 1}, SEEN)),
    subjects=(Subject("kvm-nvhe", "6.1", "ab" * 32, "spec"),),
    seconds=3.5,
    first_exit=1.25,
    alive=2,
    deaths=("one died",),
    said=("built",),
    guide="both",
)
ROW = json.loads(REPORT.to_json())


def test_a_report_comes_back_as_it_was_but_for_points_in_time() -> None:
    found = NodeReport.from_json(REPORT.to_json(), "host")
    assert found.stats == Stats({("count", "scenarios"): 7, ("lost", "a/b"): 1}, SEEN)
    assert found.to_json() == REPORT.to_json()
    assert len(REPORT.to_json()) < 1000, "a map of coverage is packed"


def packed(data: bytes) -> str:
    return b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "asleep"}, "state is 'asleep'"),
        ({"alive": 65}, "alive is 65"),
        ({"seconds": -1}, "seconds are out of range"),
        ({"seconds": float("nan")}, "seconds are out of range"),
        ({"first_exit": float("inf")}, "seconds are out of range"),
        ({"subjects": [ROW["subjects"][0]] * 3}, "at most two subjects"),
        ({"subjects": [{}]}, "is missing"),
        ({"deaths": ["x"] * 101}, "at most 100 sentences"),
        ({"said": [1]}, "at most 100 sentences"),
        ({"stats": {"words": [["a", "b"]], "seen": packed(SEEN)}}, "expected group, name, number"),
        ({"stats": {"words": [["a", "b", True]], "seen": packed(SEEN)}}, "expected group, name, number"),
        ({"stats": {"words": [["a", "b", -1]], "seen": packed(SEEN)}}, "a/b is out of range"),
        ({"stats": {"words": [["time", "ready", 1]], "seen": packed(SEEN)}}, "time/ready is out of range"),
        ({"stats": {"words": [["a" * 999, "b", 1]], "seen": packed(SEEN)}}, "is out of range"),
        ({"stats": {"words": [], "seen": packed(bytes(1 << 24))}}, "coverage is no map"),
        ({"stats": {"words": [], "seen": packed(SEEN[:-1] + b"x")}}, "coverage is no map"),
        ({"stats": {"words": [], "seen": "*"}}, "no report of a node"),
        ({"stats": {"words": [], "seen": b64encode(b"x").decode()}}, "no report of a node"),
        ({"why": "x" * (1 << 22)}, "characters, expected at most"),
    ],
)
def test_anything_else_is_one_error(change: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)) as error:
        NodeReport.from_json(json.dumps({**ROW, **change}), "host")
    assert str(error.value).startswith("host: ") and "\n" not in str(error.value)


def test_what_is_shown_is_one_line() -> None:
    found = NodeReport.from_json(json.dumps({**ROW, "host": "a\x1b[2J\nb", "deaths": ["x\r" * 900]}), "host")
    assert found.host == "a [2J b" and len(found.deaths[0]) == 500 and "\r" not in found.deaths[0]
