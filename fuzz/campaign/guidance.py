# SPDX-License-Identifier: Apache-2.0
"""What guides a campaign: the model's decisions, the hypervisor's edges, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.campaign.limits import BOTH, MODEL
from harness.errors import SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.plugins.edges import Edge, read_edges
from harness.vm.plugins.kvm_coverage import prepare_coverage

SUFFIX = ".edges"
"""A worker's map of edges has the name of its statistics, with this suffix."""


@dataclass(frozen=True, slots=True)
class Guide:
    """One of :data:`fuzz.campaign.limits.MODES`.

    ``kvm_off`` is why the hypervisor's edges are not in it although they were not left out.
    """

    mode: str
    kvm_off: str = ""


def choose(wanted: str | None, prepared: PreparedTarget, say: Callable[[str], None]) -> Guide:
    """Return the mode to run in, everything for it built; with nothing ``wanted``, the best that this machine can do.

    SetupError: the mode that is wanted needs the plugin, and it cannot be built.
    """
    if wanted == MODEL:
        return Guide(MODEL)
    try:
        prepare_coverage(prepared, progress=say)
    except SetupError as error:
        if wanted is not None:
            raise
        say(f"WARNING: coverage of KVM is off, the model alone guides: {error}")
        return Guide(MODEL, str(error))
    return Guide(wanted or BOTH)


def edges_in(run: Path) -> frozenset[Edge]:
    """Return the edges that any worker of a campaign saw; ``run`` has their maps."""
    return frozenset[Edge]().union(*(read_edges(path) for path in run.glob(f"*{SUFFIX}")))
