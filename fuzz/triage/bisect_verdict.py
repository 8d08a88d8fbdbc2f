# SPDX-License-Identifier: Apache-2.0
"""Classify a commit from a replay for ``git bisect run``: good, bad or undetermined.  Pure.

Source of the statuses: git-bisect(1), "Bisect run".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import difference, place_text, signature_text
from harness.findings.regressions import Regression, crash_text, explaining
from harness.relations.registry import ALL
from harness.report.replay_result import Lost, Ran, TargetResult
from harness.vm.alarms import KINDS
from harness.vm.crash import ENDS, end_of

GOOD, BAD = ExitStatus.OK, ExitStatus.DIVERGENCE
UNDETERMINED, ABORT = ExitStatus.NOT_TESTED, ExitStatus.BAD_COMMAND
"""125 skips a commit; 128 and higher end the search: a wrong command must not classify a commit."""


@dataclass(frozen=True, slots=True)
class CommitVerdict:
    """An exit status for git, and its reason."""

    status: ExitStatus
    why: str

    @property
    def text(self) -> str:
        """Return the verdict as one line."""
        return f"{({GOOD: 'good', BAD: 'bad'}).get(self.status, 'not determined')}: {self.why}"


def check_signature(text: str) -> str:
    """Return a valid signature unchanged.  InputError: it is malformed, so that no run could show it."""
    name = text.partition("/")[0]
    relation, _, register = name.partition(".")
    known = {row.shows.partition(".")[0] for row in ALL} | {kind.name for kind in KINDS} | set(ENDS)
    if re.fullmatch(r"x\d+", register):
        raise InputError("--signature", None, f"{name}: general-purpose registers have the common name {relation}.xN")
    if relation not in known:
        raise InputError("--signature", None, f"{text[:60]!r}: expected one from the summary of `shadowfuzz replay`")
    return text


def commit_verdict(results: Sequence[TargetResult], wanted: str | None, kept: Sequence[Regression]) -> CommitVerdict:
    """Return the verdict for a signature; None: for any signature that is like no kept finding of the target.

    ``*`` as a part of the signature matches any value.  One run that shows it makes the commit bad; a good commit also
    requires that all runs ended without an error.
    """
    runs = [(result.target, ran) for result in results for ran in result.ran]
    lost = [item for result in results for item in result.lost]
    shown = [text for target, ran in runs for text in _shown(target, ran, wanted, kept)]
    shown += [text for item in lost for text in _ends(item, wanted)]
    total = len(runs) + len(lost)
    if shown:
        return CommitVerdict(BAD, f"{', '.join(dict.fromkeys(shown))} in {_count(len(shown), total)}")
    if lost:
        return CommitVerdict(UNDETERMINED, f"the target was lost: {lost[0].reason}")
    odd = next((ran.checked.status for _, ran in runs if ran.checked.status != "ok"), "")
    if odd or not runs:
        return CommitVerdict(UNDETERMINED, f"a run ended with status {odd}" if odd else "nothing was run")
    return CommitVerdict(GOOD, f"{wanted or 'nothing new'} in {_count(0 if wanted else total, total)}")


def _count(some: int, total: int) -> str:
    return f"{some} of {total} run{'s' * (total != 1)}"


def _shown(target: str, ran: Ran, wanted: str | None, kept: Sequence[Regression]) -> Iterator[str]:
    """Yield the wanted signature of a run, once; if none is wanted, the new signatures."""
    alarms = [signature_text(alarm.signature) for alarm in ran.alarms]
    if wanted is not None:
        texts = [*_texts(ran.checked), *alarms]
        if any(_matches(text, wanted) for text in texts):
            yield wanted
        return
    for divergence in ran.checked.unexplained:
        found = signature(divergence)
        if not explaining(kept, target, (place_text(found), divergence.cause), (difference(divergence),)):
            yield signature_text(found)
            return
    failed = [f"expect {one.expect.name} {one.expect.value:#x}" for one in ran.expected if one.failed]
    yield from (*failed, *alarms)[:1]


def _texts(checked: CheckResult) -> Iterator[str]:
    """Yield each signature without its cause, which matches any cause, and with it."""
    for found in map(signature, checked.unexplained):
        yield place_text(found)
        yield signature_text(found)


def _ends(item: Lost, wanted: str | None) -> Iterator[str]:
    """Yield the signature of a loss, if it is wanted; a machine that did not boot shows none."""
    if wanted is not None and item.job is not None:
        end = end_of(item.reason, item.console_tail)
        if _matches(crash_text(end.signature), wanted) or _matches(signature_text(end.signature), wanted):
            yield wanted


def _matches(text: str, wanted: str) -> bool:
    parts, patterns = text.split("/"), wanted.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
