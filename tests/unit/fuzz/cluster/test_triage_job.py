# SPDX-License-Identifier: Apache-2.0
"""Jobs and answers of triage as text: they come back as they were, and anything else is one clear error."""

from __future__ import annotations

import json

import pytest

from fuzz.cluster.triage_job import Result, TriageJob
from harness.errors import InputError

ID = "divergence-" + "0a" * 6


def test_they_come_back_as_they_were() -> None:
    job = TriageJob("postgresql://h/db", 10, True)
    assert TriageJob.from_json(job.to_json()) == job
    result = Result(ID, "restore.x3: 7 steps -> 2", again=True)
    assert Result.from_json(result.to_json(), "n") == result
    cannot = Result(ID, "no QEMU", unable=True)
    assert Result.from_json(cannot.to_json(), "n") == cannot


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, json.dumps({"id": "../x", "words": "", "again": False, "unable": False})),
        json.dumps({"id": ID, "words": "", "again": 1, "unable": False}),
        json.dumps({"id": ID, "words": "x" * 20_000, "again": False, "unable": False}),
    ],
)
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(InputError, match="n: no answer of a node: ") as error:
        Result.from_json(text, "n")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"not what TriageJob\.to_json writes"):
        TriageJob.from_json(text)


def test_what_is_shown_is_one_line() -> None:
    assert (
        Result.from_json(json.dumps({"id": ID, "words": "a\x1b\nb", "again": False, "unable": False}), "n").words
        == "a  b"
    )
