# SPDX-License-Identifier: Apache-2.0
"""How a node of a cluster stands, as one value and as JSON text; what others send is untrusted input."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fuzz.campaign.counters_file import COVERAGE_SIZE, EMPTY, MINIMUM, NAME_BYTES, SLOTS, Name, Stats
from fuzz.campaign.limits import MAX_JOBS
from fuzz.campaign.worker_job import fields_of
from harness.errors import InputError
from harness.findings.finding import Subject

PREPARING, RUNNING, ENDED, FAILED = "preparing", "running", "ended", "failed"
STATES = (PREPARING, RUNNING, ENDED, FAILED)
MAX_REPORT = 1 << 22
"""A report has at most so many characters."""
MAX_SENTENCES, MAX_SENTENCE = 100, 500
MAX_WORDS = SLOTS * MAX_JOBS
MAX_SECONDS = 1e9
MAX_COUNT = 1 << 62


@dataclass(frozen=True, slots=True)
class NodeReport:
    """How a node stands.

    ``life`` differs whenever its process is another one; counts begin at 0 with each.  ``subjects`` are known once its
    targets are prepared.  ``seconds`` since its first worker was ready (0: none is), ``first_exit`` from then to its
    first checked exit (None: there was none).  ``alive`` are workers.  ``deaths`` of workers, at the end with what of
    the corpus was dropped or refused, and ``said``, are sentences; ``why`` it failed, or what is wrong just now.
    ``guide`` guides it, ``kvm_off``: why KVM's edges do not.  ``stats`` counts only findings that are in the shared
    database.
    """

    life: str
    host: str
    state: str
    stats: Stats = EMPTY
    subjects: tuple[Subject, ...] = ()
    seconds: float = 0.0
    first_exit: float | None = None
    alive: int = 0
    deaths: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    why: str = ""
    guide: str = ""
    kvm_off: str = ""

    def to_json(self) -> str:
        """Return the report as text that :meth:`from_json` reads."""
        row = asdict(replace(self, stats=EMPTY))
        words = [[*name, value] for name, value in self.stats.words.items() if value and name[0] != MINIMUM]
        row["stats"] = {"words": words, "seen": b64encode(zlib.compress(self.stats.seen, 1)).decode()}
        return json.dumps(row)

    @classmethod
    def from_json(cls, text: str, where: str) -> NodeReport:
        """Read a report.  InputError: it is none, or too large."""
        try:
            if len(text) > MAX_REPORT:
                raise ValueError(f"{len(text)} characters, expected at most {MAX_REPORT}")
            return cls(**_checked(fields_of(json.loads(text), _FIELDS)))
        except (ValueError, TypeError, RecursionError, zlib.error) as error:
            raise InputError(where, None, f"no report of a node: {_line(str(error))}") from error


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "life": (str,),
    "host": (str,),
    "state": (str,),
    "stats": (dict,),
    "subjects": (list,),
    "seconds": (float, int),
    "first_exit": (float, int, type(None)),
    "alive": (int,),
    "deaths": (list,),
    "said": (list,),
    "why": (str,),
    "guide": (str,),
    "kvm_off": (str,),
}
_STATS: Mapping[str, tuple[type, ...]] = {"words": (list,), "seen": (str,)}
_SUBJECT: Mapping[str, tuple[type, ...]] = dict.fromkeys(("target", "kernel_release", "kernel_sha256", "level"), (str,))


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    if row["state"] not in STATES:
        raise ValueError(f"state is {row['state'][:40]!r}, expected one of {', '.join(STATES)}")
    if not 0 <= row["seconds"] <= MAX_SECONDS or not 0 <= (row["first_exit"] or 0) <= MAX_SECONDS:
        raise ValueError("seconds are out of range")
    if not 0 <= row["alive"] <= MAX_JOBS:
        raise ValueError(f"alive is {row['alive']}, expected 0 to {MAX_JOBS}")
    if len(row["subjects"]) > 2:
        raise ValueError("expected at most two subjects")
    subjects = tuple(Subject(**{k: _line(v) for k, v in fields_of(each, _SUBJECT).items()}) for each in row["subjects"])
    lists = {name: _sentences(row[name], name) for name in ("deaths", "said")}
    lines = {name: _line(row[name]) for name in ("life", "host", "why", "guide", "kvm_off")}
    return {**row, **lists, **lines, "subjects": subjects, "stats": _stats(row["stats"])}


def _stats(row: object) -> Stats:
    fields = fields_of(row, _STATS)
    words: dict[Name, int] = {}
    if len(fields["words"]) > MAX_WORDS:
        raise ValueError(f"more than {MAX_WORDS} counters")
    for word in fields["words"]:
        if not isinstance(word, list) or [type(part) for part in word] != [str, str, int]:
            raise ValueError(f"a counter is {str(word)[:60]!r}, expected group, name, number")
        group, name, value = word
        if not 0 <= value < MAX_COUNT or len(group) + len(name) > NAME_BYTES or group == MINIMUM:
            raise ValueError(f"counter {group[:40]}/{name[:40]} is out of range")
        words[group, name] = value
    seen = zlib.decompressobj().decompress(b64decode(fields["seen"], validate=True), COVERAGE_SIZE + 1)
    if len(seen) != COVERAGE_SIZE or set(seen) - {0, 1}:
        raise ValueError(f"coverage is no map of {COVERAGE_SIZE} bytes 0 or 1")
    return Stats(words, seen)


def _sentences(rows: list[object], name: str) -> tuple[str, ...]:
    if len(rows) > MAX_SENTENCES or not all(isinstance(row, str) for row in rows):
        raise ValueError(f"{name} are not at most {MAX_SENTENCES} sentences")
    return tuple(_line(str(row)) for row in rows)


def _line(text: str) -> str:
    """Return a text as one line that a terminal can be shown."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_SENTENCE]
