# SPDX-License-Identifier: Apache-2.0
"""Check recordings of whole programs against the model, offline, and keep what shows the unexplained."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fuzz.corpus.recordings import read_with_progress
from fuzz.paths import KNOWN_DIR
from harness.arch.cpu_models import cpu_model
from harness.findings.check_recording import Tally, check_records
from harness.findings.known_divergences import Catalogue
from harness.report.recording import Report
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Reader, rewrite


def check_file(path: Path, level: str, progress: Callable[[str], None]) -> Report:
    """Check one recording.  InputError: it is none; SetupError: of an unknown CPU model."""
    start, catalogue = time.monotonic(), Catalogue.load(KNOWN_DIR, level)
    reader, tally = Reader(path), Tally()

    def describe(count: int) -> str:
        return f"{path}: {count} records, {tally.exits.total()} exits, {tally.unexplained} unexplained"

    records = read_with_progress(reader, progress, describe)
    cpu, vhe = cpu_model(reader.head.cpu), reader.head.vhe
    check_records(records, level, cpu, catalogue, vhe=vhe, tally=tally, absent=reader.absent)
    assert reader.end is not None  # or Reader had raised
    return Report(str(path), path.stat().st_size, reader.head, reader.end, level, tally, time.monotonic() - start)


def write_excerpt(report: Report, out: Path) -> None:
    """Write the first turn of each unexplained cluster of a recording as a recording of its own."""
    reader = Reader(Path(report.path))
    rewrite(out, reader, excerpt(reader, [cluster.example.span for cluster in report.tally.clusters.values()]))
