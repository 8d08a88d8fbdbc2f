# SPDX-License-Identifier: Apache-2.0
"""Format the summary of a campaign as text: one screen, or every count."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fuzz.campaign.summary import Summary
from fuzz.paths import out_words
from fuzz.store.dumps import DUMPS
from fuzz.store.findings import FLAKY
from harness.findings.regressions import NEW, likeness, new_text
from harness.model import LEVEL_NAMES
from harness.report.terminal import many, times
from harness.trace.events import FORGED

SUMMARY = "summary.json"
"""The file in the campaign's directory that has every count."""
WIDTH = 100
"""Columns of the screen."""
MAX_PROBLEMS, MAX_ERRATA = 3, 8
"""Maximum numbers of problems and errata on the screen, so that it has at most 30 lines."""
LEAST_GROWTH = 0.0005
"""The smallest growth that is shown as such: less would be shown as 0.0%."""
_LABEL, _LEAST = 9, 12


def screen(summary: Summary) -> str:
    """Return a summary of at most 30 lines of 100 columns: new problems, known errata, the health of the campaign.

    A command may be longer than a line of the screen: it stays on one line, to be copied.
    """
    s = summary
    lines = [
        *_fit(
            f"{s.program.rpartition('/')[2]} fuzz: {s.target}, Linux {s.kernel_release}, level {s.level}, "
            f"{s.jobs} workers, seed {s.seed}, {s.seconds:.0f} s"
            + (f"; against {s.against[0]}, Linux {s.against[1]}" if s.against else "")
            + _emulator(s)
        ),
        *_new(s),
        *_known(s),
        *_health(s),
        *_reach(s),
        *_next(s),
    ]
    return "\n".join(lines)


def _emulator(s: Summary) -> str:
    return f"; fast QEMU, problems confirmed on Debian's own {s.confirmed_on}" if s.confirmed_on else ""


def _new(s: Summary) -> Iterator[str]:
    if not s.problems:
        yield _row("NEW", "nothing")
        return
    clusters = sum(len(problem.clusters) for problem in s.problems)
    yield _row("NEW", f"{_many(len(s.problems), 'problem')} to look at, {_many(clusters, 'cluster')}")
    for number, problem in enumerate(s.problems[:MAX_PROBLEMS], 1):
        more = len(problem.clusters) - 1
        also = f" and {_many(more, 'cluster')} more" if more else ""
        back = f", reproduced {problem.hits} of {problem.runs}" if problem.runs else ""
        seen = f"{also}; seen {times(problem.members, _number)}{back}"
        what = _short(problem.words or problem.what, WIDTH - 6 - len(seen))
        yield f"  N{number}  {what}{seen}"
        yield f"      {problem.show}"
    if len(s.problems) > MAX_PROBLEMS:
        more = len(s.problems) - MAX_PROBLEMS
        yield f"      and {more} more: {s.program} findings --new{out_words(Path(s.out), s.store)}"


def _known(s: Summary) -> Iterator[str]:
    if not s.errata:
        yield _row("KNOWN", "no erratum of this kernel occurred")
        return
    clusters = sum(not cluster.new for cluster in s.findings)
    yield _row(
        "KNOWN", f"{_many(len(s.errata), 'erratum', 'errata')} of this kernel occurred, {_many(clusters, 'cluster')}"
    )
    shown = s.errata[:MAX_ERRATA]
    width = max(len(row.id) for row in shown)
    for row in shown:
        mark = "~" if row.by_signature else " "
        words = _short(row.what, WIDTH - width - 16)
        yield f"  {row.id:{width}} {row.members:9}{mark}  {words}"
    rest = [f"and {len(s.errata) - MAX_ERRATA} more"] if len(s.errata) > MAX_ERRATA else []
    if any(row.by_signature for row in s.errata):
        rest.append("~ by signature: the cause is not determined")
    if rest:
        yield f"  {'; '.join(rest)}"


def _health(s: Summary) -> Iterator[str]:
    alarms = sum(cluster.kind == "alarm" for cluster in s.findings)
    parts = [
        f"flaky {len(s.flaky_by_cluster)}",
        f"unstable {s.unstable} of {s.run_again}",
        f"lost machines {s.lost_vms}",
        f"alarms {alarms}",
        f"invalid {s.invalid_inputs}",
        f"runaway {s.statuses.get('runaway', 0)} of {_number(s.scenarios)}",
    ]
    health = _fit(_row("HEALTH", ", ".join(parts)))
    yield from health
    troubles = [
        *([f"{len(s.worker_deaths)} dead workers"] if s.worker_deaths else []),
        *([f"{s.internal_errors} failures of shadowfuzz itself"] if s.internal_errors else []),
        *([f"records dropped {s.dropped_records}"] if s.dropped_records else []),
        *([f"kernel alarms at boot: {'; '.join(s.boot_alarms)}"] if s.boot_alarms else []),
        *(f"not written, {times(count, _number)}: {why}" for why, count in s.findings_unwritten.items()),
        *(["stopped early by a signal"] if s.interrupted else []),
        *([f"stopped early: {s.failure}"] if s.failure else []),
        *([f"coverage of KVM is OFF, the model alone guided: {s.kvm_off}"] if s.kvm_off else []),
    ]
    if troubles:
        yield from _fit(f"{'':{_LABEL}}{'; '.join(troubles)}", 4 - len(health))


def _reach(s: Summary) -> Iterator[str]:
    first = s.seconds_to_first_checked_exit
    share = f" ({s.checked_exits / s.exits:.0%})" if s.exits else ""
    rate = f", {_number(round(s.checked_exits_per_s))} a second"
    when = f"; the first after {first:.1f} s" if first is not None else ""
    yield _row("CHECKED", f"{_number(s.checked_exits)} of {_number(s.exits)} exits{share}{rate}{when}")
    edges = "" if s.kvm_edges is None else f", {_number(s.kvm_edges)} edges of KVM"
    covered = f"{_number(s.coverage)} features of the model{edges}; corpus {_number(s.corpus)}{_growth(s)}"
    yield _row("COVERED", covered)
    entries = _many(len(s.known_by_entry), "entry", "entries")
    explained = f"{_number(s.divergences_known)} differences known by {entries}, {s.known_by_rule:.1%} by rule"
    impossible = sum(s.unchecked.values())
    compared = f"{explained}; {s.complete:.1%} of comparisons complete"
    yield from _fit(_row("COMPARED", f"{compared}{_most(s.unchecked, impossible, WIDTH - _LABEL - len(compared))}"))


def _growth(s: Summary) -> str:
    """Format the growth of coverage in the last seconds, which shows whether a longer campaign would reach more."""
    if s.growth is None:
        return ""
    how = f"+{s.growth:.1%}" if s.growth >= LEAST_GROWTH else "none new"
    return f"; last {s.growth_seconds:.0f} s: {how}"


def _most(reasons: Mapping[str, int], total: int, room: int) -> str:
    """Format the largest of some counts, in at most ``room`` columns; return an empty text if it does not fit."""
    if not total:
        return ""
    name, count = max(reasons.items(), key=lambda one: one[1])
    words = f', {count / total:.0%} "'
    left = room - len(words) - 1
    return f'{words}{_short(name, left)}"' if left >= _LEAST else ""


def _next(s: Summary) -> Iterator[str]:
    steps = []
    if s.problems:
        words = [s.program, "triage", "--new", "--target", s.asked_targets[0]]
        words += [] if s.level == LEVEL_NAMES[0] else ["--level", s.level]
        words += ["--against", s.asked_targets[-1]] if s.against else []
        steps.append(
            (shlex.join(words) + out_words(Path(s.out), s.store), "minimise the new findings, measure their rates")
        )
    if s.findings:
        steps.append((f"{s.program} findings{out_words(Path(s.out), s.store)}", "all findings, with their commands"))
        steps.append((f"{s.program} findings open{out_words(Path(s.out), s.store)}", "the same as an HTML page"))
    steps.append((str(Path(s.out) / SUMMARY), "every count; --verbose prints them"))
    width = max(len(command) for command, _ in steps)
    for number, (command, what) in enumerate(steps):
        line = f"{'' if number else 'NEXT':{_LABEL}}{command:{width}}  {what}"
        yield line if len(line) <= WIDTH else line[: _LABEL + len(command)]


def _short(words: str, room: int) -> str:
    """Shorten a text to ``room`` columns, but not to fewer than a minimum."""
    return textwrap.shorten(words, max(_LEAST, room), placeholder=" ...")


def _row(label: str, words: str) -> str:
    return f"{label:{_LABEL}}{words}"


def _fit(words: str, lines: int = 2) -> Sequence[str]:
    """Wrap a text at the width of the screen."""
    return textwrap.wrap(words, WIDTH, subsequent_indent=" " * _LABEL, max_lines=lines, placeholder=" ...")


def _many(count: int, one: str, several: str = "") -> str:
    return many(count, one, several, _number)


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def all_counts(summary: Summary) -> str:
    """Return every count of a campaign, and every cluster with the command that shows it."""
    s = summary
    first = s.seconds_to_first_checked_exit
    lines = [
        f"target {s.target}, Linux {s.kernel_release}, level {s.level}, {s.jobs} workers, seed {s.seed}",
        *([f"against {s.against[0]}, Linux {s.against[1]}"] if s.against else []),
        *([_emulator(s)[2:]] if s.confirmed_on else []),
        f"{s.seconds:.1f} s of fuzzing" + (f", first checked exit after {first:.1f} s" if first is not None else ""),
        f"scenarios          {s.scenarios}  (invalid inputs {s.invalid_inputs})",
        f"coverage           {s.coverage} of the model{_edges(s.kvm_edges)}  (corpus {s.corpus})",
        *([f"coverage of KVM    OFF, the model alone guided: {s.kvm_off}"] if s.kvm_off else []),
        f"checked exits/s    {s.checked_exits_per_s:.0f}  ({s.checked_exits} checked of {s.exits})",
        f"exits by class     {_exits(s.exits_by_class)}",
        f"relations checked  {_counts(s.relations)}",
        f"scenarios ended    {_counts(s.statuses)}"
        + (f", records dropped {s.dropped_records}" * bool(s.dropped_records)),
        *_table(f"known divergences  {s.divergences_known}", s.known_by_entry),
        f"complete           {s.complete:.1%} of all comparisons  ({_shares(s.complete_by_relation)})",
        *(_table(f"stood in           {sum(s.stood_in.values())}", s.stood_in) if s.stood_in else []),
        *_table(f"not compared       {sum(s.unchecked.values())}", s.unchecked),
        *_table(f"model undefined    {sum(s.undefined.values())}", s.undefined),
        *_table(f"flaky              {s.divergences_flaky}  (in {Path(s.out) / FLAKY})", s.flaky_by_cluster),
        *([f"unstable           {_unstable(s)}"] if s.run_again else []),
        *_table(f"lost VMs           {s.lost_vms}", s.lost_by_reason),
        *([f"memory dumps       {_counts(s.memory_dumps)}  (in {Path(s.out) / DUMPS})"] if s.memory_dumps else []),
        *(
            _table(f"asserted           {sum(s.asserted.values())}  of exits that were forged", s.asserted)
            * bool(s.asserted)
        ),
        *([f"brought back       {_counts(s.losses_reproduced)}"] if s.losses_reproduced else []),
    ]
    lines += [f"alarm at boot      {sentence}" for sentence in s.boot_alarms]
    if s.worker_deaths:
        lines.append(f"dead workers       {len(s.worker_deaths)}")
        lines += [f"    {why}" for why in dict.fromkeys(s.worker_deaths)]
    if s.overflow:
        lines.append(f"counted under no name: {s.overflow} (too many different reasons)")
    new = f", {new_text(s.clusters_new)}" if s.clusters else ""
    lines.append(f"unexplained        {s.divergences_unexplained} divergences in {s.clusters} clusters{new}")
    for cluster in s.findings:
        lines.append(f"  {cluster.id}{f', {NEW}' if cluster.new else ''}: {cluster.what}")
        named = "" if cluster.new else f", {likeness(cluster.like)}"
        lines.append(f"    {cluster.members} times{named}; {cluster.replay or cluster.where}")
    for why, count in s.findings_unwritten.items():
        lines.append(f"findings could not be written, {count} times: {why}")
    if s.interrupted:
        lines.append("stopped early by a signal")
    if s.failure:
        lines.append(f"stopped early: {s.failure}")
    return "\n".join(lines)


def _unstable(s: Summary) -> str:
    return f"{s.unstable / s.run_again:.1%} ({s.unstable} of {s.run_again} scenarios that were run again)"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _edges(count: int | None) -> str:
    return "" if count is None else f", {count} edges of KVM"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _exits(by_class: Mapping[str, int]) -> str:
    """Format exits by class; the many classes of forged exits are one sum."""
    forged = {name: count for name, count in by_class.items() if name.startswith(FORGED)}
    text = _counts({name: count for name, count in by_class.items() if name not in forged})
    return f"{text}, forged {sum(forged.values())} (of {len(forged)} classes)" if forged else text


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return [title.partition("  (in")[0]]
    width = max(len(str(count)) for count in counts.values())
    return [title, *(f"    {count:{width}}  {name}" for name, count in counts.items())]
