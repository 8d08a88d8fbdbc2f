# SPDX-License-Identifier: Apache-2.0
"""Read the corpus's findings of stock kernels, and find those that another finding is like.  Pure except for loading.

``corpus/regressions/expected.toml`` has the signatures of each of them by target; tests/vm/test_corpus_live.py runs its
scenarios there and fails if they differ.  ``corpus/crashes/expected.toml`` has those that end the machine,
``corpus/alarms/expected.toml`` those that show as an alarm of its kernel.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.findings.finding import Difference, Finding, Signature, cause_of, place_text
from harness.relations.divergence import causes, is_new
from harness.relations.errata import SHARED, Rule, TargetErrata, rule_of
from harness.relations.gic_errata import GIC_RULES, GicRule

NEW = "new"
PROTECTED = "protected"
"""The mode of KVM, as in :attr:`Regression.releases`."""
ANY = "*"
"""In place of a signature's exit class or helper: the cause does not depend on it."""


@dataclass(frozen=True, slots=True)
class Regression:
    """A finding that the corpus keeps; its scenarios show ``signatures`` on each of its ``targets``.

    In place of a signature's exit class or helper ``*`` is any of them: the cause does not depend on it.  ``ones``:
    bits that are set in every value observed.  ``where``: for some of the signatures, the values of each of its
    divergences as in reports, ``expected 0x1, observed 0x0``, as a shell pattern.  ``elsewhere`` is where it shows if
    it is on none of the project's own targets, ``ends`` how its scenarios end.  ``releases``: by mode (``nvhe``), the
    kernels that were measured to show it, each ``6.1.164 to 7.1.13``, first and last in the order of versions.
    """

    id: str
    summary: str
    why: str
    verdict: str
    source: str
    targets: tuple[str, ...]
    signatures: tuple[str, ...]
    scenarios: tuple[str, ...]
    elsewhere: str = ""
    ends: str = "ok"
    ones: int = 0
    where: Mapping[str, str] = field(default_factory=dict)
    releases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def is_on(self, target: str) -> bool:
        """Whether a target has it: a configuration, with another kernel or emulator ``CONFIG@KERNEL%CPU``.

        For a Debian kernel the measured ``releases`` of its mode count, if there are any; a kernel that was built in a
        directory, ``CONFIG@DIR``, is treated as its configuration's.
        """
        if target == self.elsewhere:
            return True
        configuration, _, kernel = target.partition("%")[0].partition("@")
        spans = self.releases.get(release_mode(configuration))
        if not kernel[:1].isdigit() or spans is None:
            return configuration in self.targets
        return any(_is_within(kernel, span) for span in spans)

    @property
    def divergences(self) -> tuple[str, ...]:
        """Relations with their registers, without exit class and helper."""
        return tuple(dict.fromkeys(each.partition("/")[0] for each in self.signatures))

    @property
    def does(self) -> str:
        """The behaviour of a kernel that has it, in a few words, if it has a rule."""
        rule = any_rule_of(self.id)
        return self.summary if rule is None else rule.does

    def matching(self, text: str) -> str | None:
        """Return its signature that matches a signature's text; None: none does."""
        return next((each for each in self.signatures if _has(each, text)), None)

    def shows(self, text: str, differences: Iterable[Difference]) -> bool:
        """Whether it shows a signature's text with these values."""
        signature = self.matching(text)
        return signature is not None and all(self._has_values(signature, each) for each in differences)

    def _has_values(self, signature: str, found: Difference) -> bool:
        values = f"expected {found.expected}, observed {found.observed}"
        if not fnmatchcase(values, self.where.get(signature, ANY)):
            return False
        observed = _number(found)
        return not self.ones or (isinstance(observed, int) and observed & self.ones == self.ones)


def _has(pattern: str, text: str) -> bool:
    wanted, found = pattern.split("/"), text.split("/")
    return len(wanted) == len(found) and all(w in (f, ANY) for w, f in zip(wanted, found, strict=True))


def like(kept: Iterable[Regression], finding: Finding) -> tuple[str, ...]:
    """Return the names of those that are the finding's cause, or show its signature on its target; none: it is new.

    If the cause is not determined, the signature is compared, which does not prove the cause.  For a lost machine that
    is how it ended, and the function it was in; for an alarm its kind and function.  :meth:`Regression.is_on` decides
    whether a target has a kept finding; a difference between two targets is like none of them.
    """
    if finding.kind not in _TEXTS_OF or finding.other is not None:
        return ()
    cause = cause_of(finding.signature) if is_by_cause(finding) else ""
    shown = _TEXTS_OF[finding.kind](finding.signature), cause
    return explaining(kept, finding.subject.target, shown, finding.divergences)


def is_by_cause(finding: Finding) -> bool:
    """Whether the cause of a finding is determined, by a rule that predicts it bit for bit."""
    return finding.kind == "divergence" and bool(cause_of(finding.signature))


def explaining(
    kept: Iterable[Regression], target: str, signature: tuple[str, str], differences: Iterable[Difference] = ()
) -> tuple[str, ...]:
    """Return the errata that are a cause; where it is not determined, a target's kept findings that show a signature.

    ``signature`` is the place and the cause (:func:`harness.findings.finding.split_text`); ``differences`` are
    values that the kept findings must have.  None: it is new.
    """
    text, cause = signature
    if cause:
        return () if is_new(cause) else causes(cause)
    shown = tuple(differences)
    return tuple(row.id for row in kept if row.is_on(target) and row.shows(text, shown))


def release_mode(target: str) -> str:
    """Return the key in :attr:`Regression.releases` of a target's mode of KVM: the end of its configuration's name."""
    return target.partition("%")[0].partition("@")[0].rpartition("-")[2]


def errata_of(kept: Iterable[Regression], target: str) -> TargetErrata:
    """Return the kept findings of a target, those with a rule and the others.

    The rules are in :mod:`harness.relations.errata` and :mod:`harness.relations.gic_errata`.
    """
    rows = tuple(kept)
    here = [row for row in rows if row.is_on(target)]
    # What protected mode alone has been seen to do is code that does not run in another mode.
    protected = release_mode(target) == PROTECTED
    possible = (row for row in rows if protected or row.releases.keys() != {PROTECTED})
    every = frozenset(SHARED.get(row.id, row.id) for row in possible if rule_of(row.id) is not None)
    ruled = frozenset(SHARED.get(row.id, row.id) for row in here if rule_of(row.id) is not None)
    shown = (text.split("/") for row in here if any_rule_of(row.id) is None for text in row.signatures)
    unruled = frozenset((name, rest[0]) for name, *rest in shown if rest)
    return TargetErrata(ruled, unruled, every - ruled, frozenset(row.id for row in here).intersection(GIC_RULES))


def any_rule_of(finding: str) -> Rule | GicRule | None:
    """Return the rule of a kept finding, of the GIC or another one, None if it has none."""
    return rule_of(finding) or GIC_RULES.get(finding)


_SPAN = re.compile(r"(\d+\.\d+\.\d+) to (\d+\.\d+\.\d+)")


def _is_within(kernel: str, span: str) -> bool:
    """Whether a kernel's version is in a span.  Of one without a third number (``6.1.0-44``, ``7.3``) two count."""
    ends = _SPAN.fullmatch(span)
    assert ends is not None
    numbers = tuple(int(number) for number in re.findall(r"\d+", kernel)[:3])
    least = numbers[:2] if len(numbers) < 3 or not numbers[2] else numbers
    first, last = (tuple(map(int, end.split(".")))[: len(least)] for end in ends.groups())
    return first <= least <= last


def crash_text(signature: Sequence[str]) -> str:
    """Return how a machine ended and where, without the message between: the key of kept crashes."""
    return f"{signature[0]}/{signature[-1]}"


def _number(difference: Difference) -> int | str:
    try:
        return int(difference.observed, 16)
    except ValueError:
        return difference.observed


def alarm_text(signature: Sequence[str]) -> str:
    """Return the key of kept alarms: kind, and function or words."""
    return "/".join(signature)


_TEXTS_OF: Mapping[str, Callable[[Signature], str]] = {
    "divergence": place_text,
    "crash": crash_text,
    "alarm": alarm_text,
}
"""How the text of a signature is made, by the kind of a finding that may be kept."""


def likeness(names: Sequence[str]) -> str:
    """Return the result of :func:`like` as text: ``new``, or ``like A or B``."""
    return f"like {' or '.join(names)}" if names else NEW


def new_text(count: int) -> str:
    """Return as text how many of some clusters are new."""
    return f"{count or 'none'} of them {NEW}"


def modes_by_spans(releases: Mapping[str, Sequence[str]]) -> Mapping[tuple[str, ...], list[str]]:
    """Return ``releases`` of a kept finding the other way round: the modes of KVM that have the same stretches."""
    found: dict[tuple[str, ...], list[str]] = {}
    for mode, spans in releases.items():
        found.setdefault(tuple(spans), []).append(mode)
    return found


def load_regressions(*paths: Path) -> tuple[Regression, ...]:
    """Return the findings of each ``expected.toml``; none of a missing file.  InputError: it is invalid."""
    return tuple(row for path in paths for row in _load(path))


def _load(path: Path) -> tuple[Regression, ...]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), None, f"no list of findings: {error}") from error
    rows = document.get("finding")
    if not isinstance(rows, list):
        raise InputError(str(path), None, "no list of findings: expected [[finding]] entries")
    found = tuple(_regression(row, f"{path}, finding {number}") for number, row in enumerate(rows, 1))
    ids = [row.id for row in found]
    if len(set(ids)) != len(ids):
        raise InputError(str(path), None, f"the id {next(i for i in ids if ids.count(i) > 1)!r} is used twice")
    return found


_TEXTS, _LISTS = ("id", "summary", "why", "verdict", "source"), ("targets", "signatures", "scenarios")
_OPTIONAL = ("elsewhere", "ends", "ones", "where", "releases")
_SIGNATURE = re.compile(r"[^/*]+(/(\*|[^/*]+)){0,2}")
_KEYS = (*_TEXTS, *_LISTS, *_OPTIONAL)


def _releases(value: object, where: str) -> Mapping[str, tuple[str, ...]]:
    """Return the spans of each mode.  InputError: they are invalid."""
    modes: Iterable[tuple[str, Any]] = value.items() if isinstance(value, dict) else [("", None)]
    if all(isinstance(spans, list) and all(_SPAN.fullmatch(str(span)) for span in spans) for _, spans in modes):
        return {mode: tuple(spans) for mode, spans in modes}
    raise InputError(where, None, 'releases: expected lists such as ["6.1.164 to 7.1.13"], by mode')


def _regression(row: object, where: str) -> Regression:
    if not isinstance(row, dict):
        raise InputError(where, None, "expected a table")
    if unknown := next((name for name in row if name not in _KEYS), None):
        raise InputError(where, None, f"{unknown}: no such key, expected {', '.join(_KEYS)}")
    values: dict[str, Any] = {}
    for name in _KEYS:
        value: Any = row.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            raise InputError(where, None, f"{name}: expected a list of texts")
        if name == "where":
            if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
                raise InputError(where, None, "where: expected a table of texts")
        elif name == "releases":
            value = _releases(value, where)
        elif name not in _LISTS and not isinstance(value, str):
            raise InputError(where, None, f"{name}: expected text")
        values[name] = tuple(value) if name in _LISTS else value
    if odd := next((each for each in values["signatures"] if not _SIGNATURE.fullmatch(each)), None):
        raise InputError(where, None, f"signatures: {odd!r}: expected {ANY} as the exit class or helper, nowhere else")
    if odd := next((each for each in values.get("where", ()) if each not in values["signatures"]), None):
        raise InputError(where, None, f"where: {odd!r} is none of its signatures")
    try:
        values["ones"] = int(values.get("ones", "0"), 0)
    except ValueError:
        raise InputError(where, None, f"ones: expected a number in quotes, found {row['ones'][:40]!r}") from None
    return Regression(**values)
