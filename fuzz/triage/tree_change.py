# SPDX-License-Identifier: Apache-2.0
"""Compare a kernel with its base by scenarios: new problems, fixed problems, other changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from fuzz.targets.observation import Observation, signatures
from fuzz.targets.runner import TRIES
from fuzz.targets.target_set import Side, TargetSet
from harness.errors import TargetError, VmLost
from harness.findings.finding import Subject, signature_text
from harness.findings.regressions import crash_text
from harness.scenario.scenario import Scenario
from harness.vm.crash import end_of

Names = frozenset[str]
NONE: Names = frozenset()


@dataclass(frozen=True, slots=True)
class ScenarioChange:
    """The differences of one scenario between a kernel and its base, as texts of signatures.

    ``new``: unexplained on the kernel and not on the base; ``fixed``: unexplained on the base only; ``changed``: other
    differences between the two traces; ``intended``: names of intended changes; ``same``: unexplained on both.
    """

    name: str
    new: Names = NONE
    fixed: Names = NONE
    changed: Names = NONE
    intended: Names = NONE
    same: Names = NONE

    @property
    def differs(self) -> bool:
        """Return whether it shows a change that is not listed as intended."""
        return bool(self.new or self.fixed or self.changed)


def _twice(sets: Iterable[Names]) -> Names:
    """Return what is in at least two sets."""
    return frozenset(text for text, times in Counter(chain.from_iterable(sets)).items() if times > 1)


def _confirmed(runs: Sequence[ScenarioChange]) -> ScenarioChange:
    """Return the differences that at least two runs of a scenario show."""
    return ScenarioChange(
        runs[0].name,
        _twice(run.new for run in runs),
        _twice(run.fixed for run in runs),
        _twice(run.changed for run in runs),
        _twice(run.intended for run in runs),
        frozenset(chain.from_iterable(run.same for run in runs)),
    )


def compare_scenario(targets: TargetSet[Side], name: str, scenario: Scenario) -> ScenarioChange:
    """Return the differences of a scenario between two targets; a difference must occur in two runs, in fresh VMs.

    An interrupt can give a problem another signature in one of them: if two runs differ, but not in the same, a third
    one decides.  TargetError: both are lost, or one does not boot.
    """
    once = _show_once(targets, name, scenario)
    if not once.differs:
        return once
    again = _show_once(targets, name, scenario)
    if not again.differs or (again.new, again.fixed) == (once.new, once.fixed):
        return _confirmed((once, again))
    return _confirmed((once, again, _show_once(targets, name, scenario)))


def _show_once(targets: TargetSet[Side], name: str, scenario: Scenario) -> ScenarioChange:
    targets.start()
    for left in reversed(range(TRIES)):
        try:
            kernel, base, against = targets.run_and_check_each(scenario)
        except TargetError as error:
            return _lost(targets, name, scenario, error)
        # On a busy machine timer interrupts may be too frequent for guest progress.
        if not left or all(each.checked.status != "runaway" for each in (kernel, base)):
            break
    one, other = _texts(kernel), _texts(base)
    changed = frozenset(map(signature_text, signatures(against.checked)))
    intended = frozenset(judged.known.id for judged in against.checked.judged if judged.known is not None)
    return ScenarioChange(name, one - other, other - one, changed, intended, one & other)


def _texts(seen: Observation) -> Names:
    """Return the problems of a run: divergences, alarms, an early end."""
    texts = {signature_text(signature) for signature in signatures(seen.checked)}
    texts |= {signature_text(alarm.signature) for alarm in seen.alarms}
    return frozenset(texts | ({f"ends: {seen.checked.status}"} if seen.checked.status != "ok" else set()))


def _lost(targets: TargetSet[Side], name: str, scenario: Scenario, error: TargetError) -> ScenarioChange:
    """Run a scenario on each machine alone: after a loss on one, a common run has no result for the other."""
    subjects = targets.subjects
    kernel, base = (_end(targets, subject, scenario) for subject in subjects)
    if kernel and base and kernel != base:
        raise error  # no comparison is possible
    return ScenarioChange(name, kernel - base, base - kernel, same=kernel & base)


def _end(targets: TargetSet[Side], subject: Subject, scenario: Scenario) -> Names:
    """Return how a scenario ends a fresh machine; empty if it does not.  TargetError: the machine does not boot."""
    with targets.boot_again(subject) as machine:
        try:
            machine.run(scenario)
        except VmLost as error:
            return frozenset({crash_text(end_of(error.reason, error.console_tail, error.remains).signature)})
        except TargetError as error:
            return frozenset({crash_text(end_of(str(error), "", protocol=True).signature)})
    return NONE


@dataclass(frozen=True, slots=True)
class SignatureGroup:
    """One signature, and the scenarios that show it, in their order."""

    signature: str
    scenarios: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelChange:
    """All differences between a kernel and its base.

    ``fixed`` are of scenarios without new problems, because a new problem may hide others; ``changed`` are of scenarios
    with neither.  ``same`` are problems of both, ``intended`` counts scenarios by intended change.
    """

    new: tuple[SignatureGroup, ...]
    fixed: tuple[SignatureGroup, ...]
    changed: tuple[SignatureGroup, ...]
    same: tuple[SignatureGroup, ...]
    intended: Mapping[str, int]

    @property
    def text(self) -> str:
        """Return the counts as text."""
        counts = ((self.new, "new problem"), (self.fixed, "fixed"), (self.changed, "other change"))
        parts = [
            f"{len(groups)} {what}{'s' * (len(groups) > 1 and what != 'fixed')}" for groups, what in counts if groups
        ]
        return ", ".join(parts) or "no change"


def summarise(shown: Sequence[ScenarioChange]) -> KernelChange:
    """Return the differences of scenarios, grouped by signature, the most frequent first."""
    plain = [each for each in shown if not each.new and not each.fixed]
    intended = _groups((each.name, each.intended) for each in shown)
    return KernelChange(
        _groups((each.name, each.new) for each in shown),
        _groups((each.name, each.fixed) for each in shown if not each.new),
        _groups((each.name, each.changed) for each in plain),
        _groups((each.name, each.same) for each in shown),
        {group.signature: len(group.scenarios) for group in intended},
    )


def _groups(found: Iterable[tuple[str, Names]]) -> tuple[SignatureGroup, ...]:
    by_signature: dict[str, list[str]] = {}
    for name, texts in found:
        for text in sorted(texts):
            by_signature.setdefault(text, []).append(name)
    groups = [SignatureGroup(text, tuple(names)) for text, names in by_signature.items()]
    return tuple(sorted(groups, key=lambda group: (-len(group.scenarios), group.signature)))
