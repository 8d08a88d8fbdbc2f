# SPDX-License-Identifier: Apache-2.0
"""What the check of a recording showed, as text for people and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from harness.arch import exits
from harness.findings.check_recording import Cluster, Tally
from harness.findings.finding import signature_text
from harness.report.terminal import LABEL, Style, many, printable, shown
from harness.trace.recording import End, Head


@dataclass(frozen=True, slots=True)
class Report:
    """One checked recording; ``size`` is that of its file in bytes, ``seconds`` what the check took."""

    path: str
    size: int
    head: Head
    end: End
    level: str
    tally: Tally
    seconds: float


def text(report: Report, style: Style) -> str:
    """Return a block of lines."""
    return "\n".join(_lines(report, style))


def end_text(end: End) -> str:
    """Say how the recorded program ended."""
    return {
        "exited": f"exited with status {end.code}",
        "signalled": f"killed by signal {end.code}",
        "stopped": "still running when the recording was stopped",
        "lost": "still running when the target was lost",
    }[end.status]


def _lines(report: Report, style: Style) -> Iterator[str]:
    head, end, tally = report.head, report.end, report.tally
    yield style.paint("bold", printable(report.path))
    mode = "VHE" if head.vhe else "nVHE"
    yield from _field("program", f"{printable(head.program)}: {end_text(end)}", style)
    yield from _field("host", f"{printable(head.target)}, Linux {head.kernel_release}, {head.cpu}, {mode}", style)
    each = f"{report.size / end.exits:.1f} bytes an exit" if end.exits else "no exit"
    vms = len({vm for vm, _ in tally.vcpus})
    owners = f"{many(len(tally.vcpus), 'vCPU')} in {many(vms, 'VM')}"
    size = f"{many(end.records, 'record')}, {many(end.exits, 'exit')} of {owners}, {each}"
    yield from _field("recorded", size, style)
    if end.dropped:
        yield from _field("missing", style.paint("red", f"{end.dropped} records found no room"), style)
    yield from _field("exits", _counts(tally.exits) or "none", style)
    yield from _field("compared", _counts(tally.relations) or "nothing", style)
    for label, counts in (("known", tally.known), ("unchecked", tally.unchecked), ("undefined", tally.undefined)):
        for why, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            yield from _field(label, f"{count}x {why}", style)
    for key, cluster in sorted(tally.clusters.items(), key=lambda item: -item[1].count):
        yield from _field("unexplained", f"{cluster.count}x {signature_text(key)}", style)
        yield from _field("", f"first {_first(cluster)}", style)
    if tally.unexplained:
        clusters = many(len(tally.clusters), "cluster")
        verdict = f"{many(tally.unexplained, 'unexplained divergence')} in {clusters}, level {report.level}"
    else:
        verdict = f"nothing unexplained, level {report.level}"
    yield style.paint("red" if tally.unexplained else "green", f"{verdict} ({report.seconds:.1f} s)")


def _first(cluster: Cluster) -> str:
    example = cluster.example
    found = example.divergence
    exit_ = example.round.exit if example.round is not None else None
    what = f", ESR_EL2 {exit_.esr:#x}" if exit_ is not None and exit_.code == exits.EXCEPTION_TRAP else ""
    values = f"expected {shown(found.expected)}, observed {shown(found.observed)}"
    return f"at record {found.event}, vCPU {example.vm}.{example.vcpu}{what}: {values}"


def _field(label: str, value: str, style: Style) -> Iterator[str]:
    first, *rest = textwrap.wrap(value, style.width - LABEL - 3) or [""]
    yield f"  {style.paint('dim', f'{label:{LABEL}}')} {first}"
    for line in rest:
        yield f"  {'':{LABEL}} {line}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def as_json(report: Report) -> dict[str, object]:
    """Return plain data for :mod:`json`; values of registers are hexadecimal texts."""
    tally = report.tally
    return {
        "file": report.path,
        "bytes": report.size,
        "head": asdict(report.head),
        "end": asdict(report.end),
        "level": report.level,
        "seconds": round(report.seconds, 3),
        "vcpus": [f"{vm}.{vcpu}" for vm, vcpu in sorted(tally.vcpus)],
        "exits": dict(tally.exits),
        "relations": dict(tally.relations),
        "known": dict(tally.known),
        "unchecked": dict(tally.unchecked),
        "undefined": dict(tally.undefined),
        "unexplained": [_cluster_json(key, cluster) for key, cluster in tally.clusters.items()],
    }


def _cluster_json(key: tuple[str, ...], cluster: Cluster) -> dict[str, object]:
    found = cluster.example.divergence
    return {
        "signature": signature_text(key),
        "count": cluster.count,
        "record": found.event,
        "vcpu": f"{cluster.example.vm}.{cluster.example.vcpu}",
        "expected": shown(found.expected),
        "observed": shown(found.observed),
    }
