# SPDX-License-Identifier: Apache-2.0
"""Show the result of the check of a recording, as text and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from harness.arch import exits
from harness.findings.check_recording import Cluster, Tally
from harness.findings.finding import Signature, cause_of, signature_text
from harness.findings.regressions import likeness, new_text
from harness.report.terminal import LABEL, Style, many, printable, shown
from harness.trace.recording import End, Head


@dataclass(frozen=True, slots=True)
class Report:
    """One checked recording; ``size`` is the size of its file in bytes, ``seconds`` the duration of the check.

    ``tallies`` has one for each level of the model; comparisons without a model are in each of them.  ``like``: the
    kept findings that are the cause of a cluster, or have its signature, by signature.
    """

    path: str
    size: int
    head: Head
    end: End
    tallies: Mapping[str, Tally]
    like: Mapping[Signature, tuple[str, ...]]
    seconds: float

    @property
    def tally(self) -> Tally:
        """The tally of the first level."""
        return next(iter(self.tallies.values()))

    @property
    def clusters(self) -> tuple[tuple[tuple[str, ...], Signature, Cluster], ...]:
        """The clusters of all levels: the levels that show it, its signature, the cluster; new ones first."""
        levels: dict[Signature, list[str]] = {}
        found: dict[Signature, Cluster] = {}
        for level, tally in self.tallies.items():
            for key, cluster in tally.clusters.items():
                levels.setdefault(key, []).append(level)
                found.setdefault(key, cluster)
        order = sorted(found, key=lambda key: (bool(self.like.get(key)), -found[key].count, key))
        return tuple((tuple(levels[key]), key, found[key]) for key in order)

    @property
    def new(self) -> tuple[Signature, ...]:
        """The signatures that no kept finding has."""
        return tuple(key for _, key, _ in self.clusters if not self.like.get(key))


def text(report: Report, style: Style) -> str:
    """Return a block of lines."""
    return "\n".join(_lines(report, style))


def end_text(end: End) -> str:
    """Describe how the recorded program ended."""
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
        yield from _field("missing", style.paint("red", f"{end.dropped} records were dropped (area full)"), style)
    yield from _field("exits", _counts(tally.exits) or "none", style)
    shared = {name: count for name, count in tally.relations.items() if name not in _OF_THE_MODEL}
    yield from _field("compared", _counts(shared) or "nothing", style)
    for level, one in report.tallies.items():
        yield from _field("model", f"{level}: {_of_level(one)}", style)
    for label in ("known", "unchecked", "undefined"):
        for why, numbers in _by_reason(report, label):
            yield from _field(label, f"{numbers} {why}", style)
    for levels, key, cluster in report.clusters:
        kept = report.like.get(key, ())
        of = "" if levels == tuple(report.tallies) else f", level {', '.join(levels)}"
        like = f" ({likeness(kept)})" if kept and not cause_of(key) else ""
        label = "unexplained" if not kept else "kept"
        yield from _field(label, f"{cluster.count}x {signature_text(key)}{like}{of}", style)
        yield from _field("", f"first {_first(cluster)}", style)
    yield style.paint("red" if report.new else "green", f"{_verdict(report)} ({report.seconds:.1f} s)")


def _verdict(report: Report) -> str:
    levels = f"level{'s' * (len(report.tallies) > 1)} {' and '.join(report.tallies)}"
    clusters = report.clusters
    if not clusters:
        return f"nothing unexplained, {levels}"
    number = sum(cluster.count for _, _, cluster in clusters)
    return (
        f"{many(number, 'unexplained divergence')} in {many(len(clusters), 'cluster')}, "
        f"{new_text(len(report.new))}, {levels}"
    )


_OF_THE_MODEL = ("save", "restore")


def _of_level(tally: Tally) -> str:
    """Return the number of rounds that a level could check."""
    shares = (f"{name} {tally.relations[name]} of {tally.rounds}" for name in _OF_THE_MODEL)
    return f"{', '.join(shares)} rounds" if tally.rounds else "no round"


def _by_reason(report: Report, name: str) -> Iterator[tuple[str, str]]:
    """Yield the count of each reason, by level if the levels differ, and the reason; the most frequent first."""
    counts: list[Mapping[str, int]] = [vars(tally)[name] for tally in report.tallies.values()]
    most = {why: max(each.get(why, 0) for each in counts) for each in counts for why in each}
    for why in sorted(most, key=lambda why: (-most[why], why)):
        numbers = dict(zip(report.tallies, (each.get(why, 0) for each in counts), strict=True))
        same = len(set(numbers.values())) == 1
        by_level = ", ".join(f"{number}x at {level}" for level, number in numbers.items() if number)
        yield why, f"{most[why]}x" if same else f"{by_level}:"


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
        "seconds": round(report.seconds, 3),
        "vcpus": [f"{vm}.{vcpu}" for vm, vcpu in sorted(tally.vcpus)],
        "exits": dict(tally.exits),
        "levels": {
            level: {
                "turns": each.rounds,
                "relations": dict(each.relations),
                "known": dict(each.known),
                "unchecked": dict(each.unchecked),
                "undefined": dict(each.undefined),
            }
            for level, each in report.tallies.items()
        },
        "unexplained": [
            _cluster_json(key, cluster) | {"levels": list(levels), "like": list(report.like.get(key, ()))}
            for levels, key, cluster in report.clusters
        ],
    }


def _cluster_json(key: Signature, cluster: Cluster) -> dict[str, object]:
    found = cluster.example.divergence
    return {
        "signature": signature_text(key),
        "count": cluster.count,
        "record": found.event,
        "vcpu": f"{cluster.example.vm}.{cluster.example.vcpu}",
        "expected": shown(found.expected),
        "observed": shown(found.observed),
        "basis": found.basis,
    }
