# SPDX-License-Identifier: Apache-2.0
"""The nodes of the last campaign on many machines, as a part of the report."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.campaign_data import NodeRow, Run
from harness.report.html_markup import Markup, el, put, table, when
from harness.report.terminal import many


def nodes(rows: Sequence[NodeRow], runs: Sequence[Run]) -> Markup:
    """Return the part about nodes; empty where the last run had none."""
    last = runs[-1].id if runs else ""
    shown = [row for row in rows if row.run == last]
    if not shown:
        return put()
    working = [row for row in shown if row.workers]
    told = f"{many(len(working), 'node')} of {len(shown)} at work, {sum(row.rate for row in working):,} checked exits/s"
    cells = [
        (
            row.host,
            row.target,
            row.state,
            f"{row.workers}",
            f"{row.rate:,}",
            f"{row.checked_exits:,}",
            f"{row.coverage:,}",
            when(row.seen),
        )
        for row in sorted(shown, key=lambda row: (not row.workers, row.host, row.node))
    ]
    heads = ("host", "target", "state", "workers", "exits/s", "checked exits", "coverage", "last word")
    body = table(heads, cells, "Nodes of the last run", "stack")
    return el("section", el("h2", "Nodes"), el("p", told), body, id="nodes")
