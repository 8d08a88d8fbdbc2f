# SPDX-License-Identifier: Apache-2.0
"""Check recordings of whole programs against the model, offline, and write excerpts with unexplained divergences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.corpus.recordings import read_with_progress
from fuzz.paths import KEPT, KNOWN_DIR
from harness.arch.cpu_models import cpu_model
from harness.findings.check_recording import Against, Cluster, Tally, check_records
from harness.findings.finding import Signature, cause_of, difference, place_text
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import Regression, errata_of, explaining, load_regressions
from harness.report.recording import Report
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Reader, rewrite


def check_file(path: Path, levels: Sequence[str], progress: Callable[[str], None]) -> Report:
    """Check one recording with levels of the model.  InputError: it is no recording; SetupError: unknown CPU model."""
    start, kept = time.monotonic(), load_regressions(KEPT)
    reader, tallies = Reader(path), {level: Tally() for level in levels}
    head, first = reader.head, tallies[levels[0]]

    def describe(count: int) -> str:
        return f"{path}: {count} records, {first.exits.total()} exits, {first.unexplained} unexplained"

    catalogues = {level: Catalogue.load(KNOWN_DIR, level) for level in levels}
    against = Against(catalogues, cpu_model(head.cpu), head.vhe, errata_of(kept, head.target))
    check_records(read_with_progress(reader, progress, describe), against, tallies, reader.absent)
    assert reader.end is not None  # otherwise Reader has raised
    like = {key: _like(kept, head.target, key, cluster) for tally in tallies.values()
            for key, cluster in tally.clusters.items()}  # fmt: skip
    return Report(str(path), path.stat().st_size, head, reader.end, tallies, like, time.monotonic() - start)


def _like(kept: Sequence[Regression], target: str, key: Signature, cluster: Cluster) -> tuple[str, ...]:
    shown = place_text(key), cause_of(key)
    return explaining(kept, target, shown, (difference(cluster.example.divergence),))


def write_excerpt(report: Report, out: Path) -> None:
    """Write the first round of each unexplained cluster as a new recording."""
    reader = Reader(Path(report.path))
    rewrite(out, reader, excerpt(reader, [cluster.example.span for _, _, cluster in report.clusters]))
