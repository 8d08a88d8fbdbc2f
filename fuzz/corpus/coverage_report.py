# SPDX-License-Identifier: Apache-2.0
"""Measure the coverage of KVM's own code and of the model by a corpus, for a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.corpus.coverage_survey import Watched, open_watched, possible_decisions, survey_corpus
from fuzz.corpus.files import read_corpus
from fuzz.targets.options import TargetOptions
from harness.coverage.kvm_code import decisions, files, functions, handlers, matrix
from harness.report.kvm_coverage import ReachReport
from harness.vm.config import Mode
from harness.vm.kernels.dwarf import LineRow, read_lines
from harness.vm.kernels.kallsyms import LOAD_OFFSET


def measure_coverage(
    paths: Sequence[Path], options: TargetOptions, repeat: int, vmlinux: Path | None, progress: Callable[[str], None]
) -> ReachReport:
    """Return the coverage of the scenarios of files and directories on a target, each run ``repeat`` times.

    ``vmlinux`` is the kernel with debug information, for source lines.  InputError, SetupError: a file, a name or the
    set-up is wrong.  TargetError: the machine was lost repeatedly.
    """
    corpus = read_corpus(paths)
    watched = open_watched(options, progress)
    found = survey_corpus(watched, corpus, repeat, progress)
    covered, text_of_kvm = found.covered, watched.coverage.text
    rows = _lines(vmlinux, watched, progress)
    return ReachReport(
        subject=watched.facts,
        scenarios=len(covered),
        lost=found.lost,
        invalid=len(corpus.invalid),
        edges=len(frozenset().union(*(one.edges for one in covered))),
        functions=functions(text_of_kvm, covered, found.sizes),
        handlers=handlers(text_of_kvm, covered, vhe=watched.targets.sides[0].config.mode is Mode.VHE),
        decisions=decisions(possible_decisions(options.level), covered),
        matrix=matrix(text_of_kvm, covered),
        files=files(rows, covered, found.sizes),
    )


def _lines(vmlinux: Path | None, watched: Watched, progress: Callable[[str], None]) -> tuple[LineRow, ...]:
    if vmlinux is None:
        return ()
    progress(f"reading line numbers from {vmlinux}")
    ranges = [(begin - LOAD_OFFSET, end - LOAD_OFFSET) for begin, end in watched.coverage.text.ranges]
    return read_lines(vmlinux, watched.kernel, ranges)
