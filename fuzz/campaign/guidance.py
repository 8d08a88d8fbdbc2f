# SPDX-License-Identifier: Apache-2.0
"""Choose what guides a campaign: the model's decisions, the edges of the hypervisor's code, or both."""

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
"""Suffix of the file with a worker's map of edges; the rest of its name is that of the worker's statistics."""


@dataclass(frozen=True, slots=True)
class Guide:
    """One of :data:`fuzz.campaign.limits.MODES`.

    ``kvm_off`` is why the hypervisor's edges do not guide although no option excluded them.
    """

    mode: str
    kvm_off: str = ""


def choose_guide(wanted: str | None, prepared: PreparedTarget, say: Callable[[str], None]) -> Guide:
    """Build what a mode needs and return it; if ``wanted`` is None, choose the best mode that this machine supports.

    SetupError: the wanted mode needs the plugin, which cannot be built.
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
    """Return the edges that any worker of a campaign reached; ``run`` is the directory of their maps."""
    return frozenset[Edge]().union(*(read_edges(path) for path in run.glob(f"*{SUFFIX}")))
