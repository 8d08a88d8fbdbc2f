# SPDX-License-Identifier: Apache-2.0
"""The job of a node as text: it comes back as it was, and anything else is one clear error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fuzz.cluster.node_job import NodeJob
from fuzz.targets.options import TargetOptions
from harness.errors import InputError

JOB = NodeJob("ab12", "cd34", TargetOptions("kvm-nvhe", "spec"), 2, 7, "postgresql://h/db")
ROW = json.loads(JOB.to_json())


def test_a_job_comes_back_as_it_was() -> None:
    full = NodeJob(
        "a", "b", TargetOptions("t", "low", Path("/k")), 64, 0, "s", "kvm", ("/one", "/two"), "s3://b/x", "12"
    )
    for job in (JOB, full):
        assert NodeJob.from_json(job.to_json()) == job
    assert JOB.place(Path("/cache")) == Path("/cache/cluster/ab12/cd34")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"run": "../x"}, "run is '../x', expected letters and digits"),
        ({"node": ""}, "node is ''"),
        ({"workers": 0}, "workers is 0, expected 1 to 64"),
        ({"workers": 10**9}, "workers is 1000000000"),
        ({"coverage": "all"}, "coverage is 'all'"),
        ({"corpus": [1]}, "corpus is no list of directories"),
        ({"targets": {}}, "is missing"),
        ({"seed": "1"}, "seed is '1', expected int"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_anything_else_is_one_error(change: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)) as error:
        NodeJob.from_json(json.dumps({**ROW, **change}))
    assert "\n" not in str(error.value)


def test_no_json() -> None:
    for text in ("", "[]", "[" * 100_000):
        with pytest.raises(InputError, match=r"not what NodeJob\.to_json writes"):
            NodeJob.from_json(text)
