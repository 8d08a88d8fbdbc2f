# SPDX-License-Identifier: Apache-2.0
"""What a node of a cluster is to do with findings, and what it answers, as values and as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fuzz.campaign.worker_job import fields_of
from harness.errors import InputError
from harness.findings.finding import ID

MAX_ANSWER, MAX_RESULT = 10_000, 500


@dataclass(frozen=True, slots=True)
class TriageJob:
    """Minimise and confirm findings of the database ``store``; ``runs`` and ``only_new`` as in a plan of triage."""

    store: str
    runs: int
    only_new: bool

    def to_json(self) -> str:
        """Return the job as text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TriageJob:
        """Read a job.  InputError: the text is not what :meth:`to_json` writes."""
        try:
            return cls(**fields_of(json.loads(text), _JOB))
        except (ValueError, RecursionError) as error:
            raise InputError("job of triage", None, f"not what TriageJob.to_json writes: {str(error)[:200]}") from error


@dataclass(frozen=True, slots=True)
class Result:
    """What came of the task ``id``: a sentence, ``words``.

    ``again``: it is to be tried on another node; ``unable``: this node cannot run its target at all.
    """

    id: str
    words: str
    again: bool = False
    unable: bool = False

    def to_json(self) -> str:
        """Return the answer as text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> Result:
        """Read an answer.  InputError: it is none."""
        try:
            if len(text) > MAX_ANSWER:
                raise ValueError(f"{len(text)} characters, expected at most {MAX_ANSWER}")
            row = fields_of(json.loads(text), _RESULT)
            if not ID.fullmatch(row["id"]):
                raise ValueError(f"id is {row['id'][:40]!r}, expected that of a finding")
        except (ValueError, RecursionError) as error:
            raise InputError(where, None, f"no answer of a node: {str(error)[:200]}") from error
        return cls(row["id"], one_line(row["words"]), row["again"], row["unable"])


def one_line(words: str) -> str:
    """Return what a node says as it can be shown: one line of limited length."""
    return "".join(c if c.isprintable() else " " for c in words)[:MAX_RESULT]


_JOB: Mapping[str, tuple[type, ...]] = {"store": (str,), "runs": (int,), "only_new": (bool,)}
_RESULT: Mapping[str, tuple[type, ...]] = {"id": (str,), "words": (str,), "again": (bool,), "unable": (bool,)}
