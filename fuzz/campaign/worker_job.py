# SPDX-License-Identifier: Apache-2.0
"""The job of one worker process: a value, its JSON text, and the command line that starts the worker."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz.campaign.guidance import SUFFIX
from fuzz.campaign.limits import MODEL, MODES
from fuzz.targets.options import TargetOptions
from harness.errors import InputError

MODULE = "fuzz.campaign.worker_start"
"""The module that ``python -m`` runs as a worker."""


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """The job of one worker.

    ``out`` is the campaign's directory and ``store`` the URL of its database.  ``stats`` is the file for the worker's
    counters, ``edges`` the one for the hypervisor's edges (None: they are not counted).  ``coverage`` selects the
    counters that libFuzzer sees (:data:`fuzz.campaign.limits.MODES`).  A worker whose parent is not the process
    ``parent`` ends.
    ``offers`` is the directory for scenarios with new coverage (:mod:`fuzz.campaign.offers`; None: none are written).
    """

    targets: TargetOptions
    seed: int
    out: Path
    store: str
    stats: Path
    parent: int
    coverage: str = MODEL
    edges: Path | None = None
    offers: Path | None = None

    def to_json(self) -> str:
        """Return the job as text that :meth:`from_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> WorkerJob:
        """Read a job.  InputError: the text is not a result of :meth:`to_json`."""
        try:
            row = fields_of(json.loads(text), _JOB)
            targets = targets_of(row["targets"])
            if row["coverage"] not in MODES:
                raise ValueError(f"coverage is {row['coverage']!r}, expected one of {', '.join(MODES)}")
        except (ValueError, RecursionError) as error:
            raise InputError("worker job", None, f"not what WorkerJob.to_json writes: {str(error)[:200]}") from error
        paths = {name: None if row[name] is None else Path(row[name]) for name in ("out", "stats", "edges", "offers")}
        return cls(**{**row, **paths, "targets": targets})

    @property
    def argv(self) -> list[str]:
        """Return the command line of a worker with this job."""
        return [sys.executable, "-m", MODULE, self.to_json()]

    @property
    def command(self) -> str:
        """Return the command line as text for a shell."""
        return shlex.join(self.argv)


_JOB: Mapping[str, tuple[type, ...]] = {
    "targets": (dict,),
    "seed": (int,),
    "out": (str,),
    "store": (str,),
    "stats": (str,),
    "parent": (int,),
    "coverage": (str,),
    "edges": (str, type(None)),
    "offers": (str, type(None)),
}
_TARGETS: Mapping[str, tuple[type, ...]] = {
    "target": (str,),
    "level": (str,),
    "kernel": (str, type(None)),
    "against": (str, type(None)),
    "cold": (bool,),
    "deterministic": (bool,),
    "hyp_copy": (bool, type(None)),
    "fast_qemu": (bool, type(None)),
}


def targets_of(row: object) -> TargetOptions:
    """Return the targets that a decoded object describes.  ValueError: it is another one."""
    fields = fields_of(row, _TARGETS)
    return TargetOptions(**{**fields, "kernel": None if fields["kernel"] is None else Path(fields["kernel"])})


def fields_of(row: object, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return an object's fields.  ValueError: a field is missing, unknown, or of another type."""
    if not isinstance(row, dict):
        raise ValueError(f"expected an object with {', '.join(kinds)}")
    if odd := sorted(set(row) ^ set(kinds)):
        raise ValueError(f"{odd[0]} is {'unknown' if odd[0] in row else 'missing'}")
    for name, types in kinds.items():
        if type(row[name]) not in types:
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise ValueError(f"{name} is {row[name]!r}, expected {expected}")
    return row


@dataclass(frozen=True, slots=True)
class Launcher:
    """The common settings of a campaign's workers; a call returns the command line of one of them.

    With ``watched``, the hypervisor's edges are counted even if they do not guide the campaign.
    ``offers``: as in a job.
    """

    targets: TargetOptions
    seed: int
    out: Path
    store: str
    coverage: str
    watched: bool = False
    offers: Path | None = None

    def __call__(self, index: int, incarnation: int, stats: Path) -> list[str]:
        """Return the command line of a worker whose statistics go to the file ``stats``."""
        return self.job(index, incarnation, stats).argv

    def job(self, index: int, incarnation: int, stats: Path) -> WorkerJob:
        """Return the job of a worker."""
        # Each worker and each incarnation has its own seed: else a restarted worker would repeat the run that ended it.
        seed = (self.seed + 1009 * index + 65537 * incarnation) % (1 << 32)
        counted = self.watched or self.coverage != MODEL
        edges = stats.with_suffix(SUFFIX) if counted else None
        return WorkerJob(
            *(self.targets, seed, self.out, self.store, stats, os.getpid()), self.coverage, edges, self.offers
        )
