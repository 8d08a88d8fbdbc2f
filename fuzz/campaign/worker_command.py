# SPDX-License-Identifier: Apache-2.0
"""The command line of a campaign's worker: the one place that knows the arguments of
:mod:`fuzz.campaign.worker_process`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fuzz.campaign.guidance import MODEL, SUFFIX


@dataclass(frozen=True, slots=True)
class Launcher:
    """What all workers of a campaign have in common; called, it gives the command line of one of them.

    ``coverage`` is what guides them (:data:`fuzz.campaign.guidance.MODES`); with ``watched``, the hypervisor's edges
    are counted even if they guide nobody.
    """

    target: str
    level: str
    kernel: Path | None
    seed: int
    out: Path
    store: str
    coverage: str
    watched: bool = False
    against: str | None = None
    cold: bool = False
    deterministic: bool = False
    hyp_copy: bool | None = False

    def __call__(self, index: int, incarnation: int, stats: Path) -> list[str]:
        """Return the command line of a worker whose statistics go to the file ``stats``."""
        # Workers differ, and so do lives of one worker: else it would run into the same death again.
        own_seed = (self.seed + 1009 * index + 65537 * incarnation) % (1 << 32)
        argv = [sys.executable, "-m", "fuzz.campaign.worker_process", "--target", self.target, "--level", self.level]
        argv += ["--seed", str(own_seed), "--out", str(self.out), "--stats", str(stats), "--parent", str(os.getpid())]
        argv += ["--store", self.store, "--coverage", self.coverage]
        argv += ("--cold",) if self.cold else ()
        argv += ("--deterministic",) if self.deterministic else ()
        argv += () if self.hyp_copy is None else ("--hyp-copy" if self.hyp_copy else "--no-hyp-copy",)
        argv += () if self.against is None else ("--against", self.against)
        if self.watched or self.coverage != MODEL:
            argv += ["--edges", str(stats.with_suffix(SUFFIX))]
        return argv if self.kernel is None else [*argv, "--kernel", str(self.kernel)]
