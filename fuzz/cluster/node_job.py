# SPDX-License-Identifier: Apache-2.0
"""What one node of a cluster is to do, as one value and as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz.campaign.limits import MAX_JOBS, MODES
from fuzz.campaign.worker_job import fields_of, targets_of
from fuzz.targets.options import TargetOptions
from harness.errors import InputError


@dataclass(frozen=True, slots=True)
class NodeJob:
    """What one node does.

    ``run`` names the campaign and ``node`` the node, both are names of directories.  ``workers`` are on this node.
    ``store`` is the URL of the database of all.  ``coverage`` guides (:data:`fuzz.campaign.limits.MODES`; None: the
    best that the node can do).  ``corpus`` are directories on the node; none: the project's.  ``files`` is the URL of
    the files of all (:mod:`fuzz.cluster.files`; None: there are none), ``secret`` signs what nodes give each
    other there.
    """

    run: str
    node: str
    targets: TargetOptions
    workers: int
    seed: int
    store: str
    coverage: str | None = None
    corpus: tuple[str, ...] = ()
    files: str | None = None
    secret: str = ""

    def to_json(self) -> str:
        """Return the job as text that :meth:`from_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> NodeJob:
        """Read a job.  InputError: the text is not what :meth:`to_json` writes."""
        try:
            row = fields_of(json.loads(text), _FIELDS)
            targets = targets_of(row["targets"])
            if row["coverage"] not in (*MODES, None):
                raise ValueError(f"coverage is {row['coverage']!r}, expected one of {', '.join(MODES)}")
            if not 0 < row["workers"] <= MAX_JOBS:
                raise ValueError(f"workers is {row['workers']}, expected 1 to {MAX_JOBS}")
            for name in ("run", "node"):
                if not row[name].isalnum() or not row[name].isascii():
                    raise ValueError(f"{name} is {row[name][:60]!r}, expected letters and digits")
            if not all(isinstance(each, str) for each in row["corpus"]):
                raise ValueError("corpus is no list of directories")
        except (ValueError, RecursionError) as error:
            raise InputError("job of a node", None, f"not what NodeJob.to_json writes: {str(error)[:200]}") from error
        return cls(**{**row, "targets": targets, "corpus": tuple(row["corpus"])})

    def place(self, cache: Path) -> Path:
        """Return the node's directory below the cache of its machine."""
        return cache / PLACES / self.run / self.node


PLACES = "cluster"
"""The directory of the cache in which nodes have theirs: CAMPAIGN/NODE."""
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "run": (str,),
    "node": (str,),
    "targets": (dict,),
    "workers": (int,),
    "seed": (int,),
    "store": (str,),
    "coverage": (str, type(None)),
    "corpus": (list,),
    "files": (str, type(None)),
    "secret": (str,),
}
