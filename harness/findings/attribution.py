# SPDX-License-Identifier: Apache-2.0
"""Attribute divergences to errata: switch rules on, and test whether they predict the observed values.

A divergence belongs to an erratum only if its relation with that rule predicts the observed value, bit for bit, and
nothing else of the round, or of the run, gets worse.  Of several sets of rules the smallest counts.  A divergence that
no set predicts, although an erratum of the target may cause one with its name and exit class, has another cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from harness.relations.divergence import ANOTHER_CAUSE, SEEN_AGAIN, Divergence, Unchecked, joined
from harness.relations.errata import NONE, RULES, TargetErrata, claimants, may_cause
from harness.relations.evidence import RoundEvidence
from harness.relations.host import PARTIAL
from harness.relations.registry import OF_A_ROUND

MAX_ERRATA: Final = 3
"""At most so many errata are tried together on one round or run."""
MAX_MORE: Final = 2
"""So many are added at once to the best set of them, as long as more is predicted with them."""
MAX_WITH_OTHERS: Final = 2
"""So many, where one of them is recorded for other releases only."""
Again = Callable[[frozenset[str]], frozenset[str] | None]
"""Compares once more with some rules switched on: the names that still differ, None where nothing was predicted."""
_BY_RULE: Final = tuple(row for row in OF_A_ROUND if row.by_rule)
_DONE: Final = frozenset({"pc", "inject"})
"""Registers of ``save.*`` that are flags of KVM's, 0 where it did nothing and the guest continues as it was."""


class Attribution(NamedTuple):
    """The errata that predict a round or a run, and the names of the divergences that only they predict.

    ``other`` are the names that an erratum may have caused, and that no set of errata predicts.  ``elsewhere``: one of
    the errata is recorded for other releases only.  ``fewer``: names that some of the errata alone predict, and which.
    """

    errata: frozenset[str]
    explained: frozenset[str]
    other: frozenset[str]
    elsewhere: bool = False
    fewer: tuple[tuple[str, frozenset[str]], ...] = ()

    def cause_of(self, name: str) -> str:
        """Return the cause of an explained divergence."""
        errata = joined(dict(self.fewer).get(name, self.errata))
        return f"{errata} ({SEEN_AGAIN})" if self.elsewhere else errata


def attribute(differing: Mapping[str, str], again: Again, errata: TargetErrata) -> Attribution | None:
    """Return what the errata explain of the divergences at one event, given by name with their exit classes.

    None: no erratum of the target may have caused any of it.
    """
    base = frozenset(differing)
    best, left = NONE, base
    claimed = _claimed(errata.rules, differing)
    about = dict(differing)  # and what differs with some rules only: others may be the cause of that
    exit_class = next(iter(differing.values()), "")
    for chosen in _sets(errata.rules, about, MAX_ERRATA) if claimed else ():
        remaining = again(chosen)
        about.update(dict.fromkeys((remaining or NONE).difference(about), exit_class))
        if remaining is not None and remaining < left:
            best, left = chosen, remaining
            if not left & claimed:
                break
    best, left = _extend(best, left, errata.rules, differing, again)
    if claimed and not left & claimed:
        return Attribution(best, base - left, NONE, fewer=_fewer(best, base - left, again))
    # An erratum that is recorded for other releases counts only if nothing is left where it may show.
    for chosen in _sets(errata.rules | errata.elsewhere, differing, MAX_WITH_OTHERS) if errata.elsewhere else ():
        remaining = None if chosen <= errata.rules else again(chosen)
        if remaining is None or not remaining < left or remaining & _claimed(errata.rules | chosen, differing):
            continue
        return Attribution(chosen, base - remaining, NONE, elsewhere=True)
    if not claimed:
        return None
    other = frozenset(name for name in left & claimed if not errata.is_undecided(name, differing[name]))
    return Attribution(best, base - left, other, fewer=_fewer(best, base - left, again))


def _extend(
    best: frozenset[str], left: frozenset[str], rules: frozenset[str], differing: Mapping[str, str], again: Again
) -> tuple[frozenset[str], frozenset[str]]:
    """Return a set of errata, extended by those that predict more of ``left``, and the names that remain.

    So ``MAX_ERRATA`` may be exceeded step by step: four errata may meet in one round.
    """
    while best and left & _claimed(rules, differing):
        about = {name: differing[name] for name in left}
        sets = ((best | more, again(best | more)) for more in _sets(rules - best, about, MAX_MORE))
        found = next(((chosen, rest) for chosen, rest in sets if rest is not None and rest < left), None)
        if found is None:
            break
        best, left = found
    return best, left


def _fewer(best: frozenset[str], explained: frozenset[str], again: Again) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return which of the names that a set of errata explains fewer of them explain, and the smallest such set."""
    found: dict[str, frozenset[str]] = {}
    for size in range(1, len(best)):
        for chosen in map(frozenset, combinations(sorted(best), size)):
            remaining = again(chosen)
            if remaining is not None:
                found.update((name, chosen) for name in sorted((explained - remaining).difference(found)))
    return tuple(found.items())


def _claimed(rules: frozenset[str], differing: Mapping[str, str]) -> frozenset[str]:
    """Return the names that one of the rules may cause."""
    return frozenset(name for name, exit_class in differing.items() if may_cause(rules, name, exit_class))


def _sets(rules: frozenset[str], differing: Mapping[str, str], most: int) -> Iterator[frozenset[str]]:
    """Yield the sets of rules that may have caused some of it, up to ``most`` rules, the smallest ones first.

    Names added to ``differing`` meanwhile count for the larger sets.
    """
    for size in range(1, most + 1):
        names = sorted(rules & NONE.union(*(claimants(name, kind) for name, kind in differing.items())))
        yield from map(frozenset, combinations(names, size))


def of_a_round(
    found: Sequence[Divergence], by_rule: frozenset[str], at: RoundEvidence, errata: TargetErrata
) -> Attribution | None:
    """Return what the errata explain of the divergences of one round.

    ``by_rule`` are the names of those that the relations found which predict with rules, too.
    """

    def again(chosen: frozenset[str]) -> frozenset[str] | None:
        evidence = at._replace(errata=chosen)
        compared = [one for row in _BY_RULE for one in row.compare(evidence)]
        differing = frozenset(one.name for one in compared if isinstance(one, Divergence))
        unknown = any(isinstance(one, Unchecked) and one.why not in PARTIAL for one in compared)
        return differing if differing or not unknown else None

    return attribute({one.name: one.exit_class for one in found if one.name in by_rule}, again, errata)


def with_causes(found: Iterable[Divergence], event: int, known: Attribution) -> Iterator[Divergence]:
    """Yield divergences, those at an event with their causes."""
    for one in found:
        if one.event != event:
            yield one
        elif _follows(one, known):
            yield one._replace(cause=known.cause_of(_as_contract(one)))
        else:
            yield one._replace(cause=ANOTHER_CAUSE) if _as_contract(one) in known.other else one


def _as_contract(one: Divergence) -> str:
    """Return the name under which the contract compares the register of a divergence from the model."""
    if one.relation == "restore":
        return f"host.{'spsr_el1' if one.register == 'spsr_0' else one.register}"
    if one.relation == "save" and one.register.startswith("dirty."):
        return f"host.{one.register.removeprefix('dirty.')}"
    return one.name


def _follows(one: Divergence, known: Attribution) -> bool:
    """Whether the errata predict a divergence; one from the model has the cause of the contract's in the same register.

    If the contract is met, its cause is not determined.
    """
    if _as_contract(one) in known.explained:
        return True
    outcomes = {RULES[name].outcome for name in known.errata} - {""}
    if one.relation != "save" or not outcomes:
        return False
    if one.register == "class":
        return one.observed in outcomes
    return one.register in _DONE and one.observed == 0 and outcomes == {"resume"}


def by_catalogue(
    found: Iterable[Divergence],
    explainer: Callable[[frozenset[str]], Callable[[Divergence], object]],
    errata: TargetErrata,
) -> Iterator[Divergence]:
    """Yield divergences; those from the model with the smallest set of errata with which the catalogue explains them.

    ``explainer`` returns the catalogue's look-up in the round with some rules switched on.
    """
    for one in found:
        name = _as_contract(one)
        if one.cause or one.relation not in ("save", "restore"):
            yield one
            continue
        sets = _sets(errata.rules, {name: one.exit_class}, MAX_ERRATA)
        chosen = next((each for each in sets if explainer(each)(one) is not None), NONE)
        yield one._replace(cause=joined(chosen))


class StillDiffers(NamedTuple):
    """The names that differ at an event with some rules, and those of them that the rules leave open."""

    names: frozenset[str]
    left_open: frozenset[str] = NONE

    def and_also(self, name: str) -> StillDiffers:
        """Return the same with one more name."""
        return self._replace(names=self.names | {name})


NOTHING_DIFFERS: Final = StillDiffers(NONE)
Everywhere = Callable[[frozenset[str]], Mapping[int, StillDiffers]]
"""Compares a whole trace once more with some rules switched on: what still differs, by event."""


def of_a_trace(found: Sequence[Divergence], again: Everywhere, errata: TargetErrata) -> tuple[Divergence, ...]:
    """Return the divergences of the relations of runs and of whole traces, with their causes among the errata.

    A divergence that one of them leaves open, and none predicts, does not get another cause.
    """
    events: dict[int, dict[str, str]] = {}
    for one in found:
        events.setdefault(one.event, {})[one.name] = one.exit_class
    caused = tuple(found)
    for event, differing in events.items():
        left_open: set[str] = set()

        def here(chosen: frozenset[str], event: int = event, left_open: set[str] = left_open) -> frozenset[str]:
            left = again(chosen).get(event, NOTHING_DIFFERS)
            left_open |= left.left_open
            return left.names

        known = attribute(differing, here, errata)
        if known is not None:
            caused = tuple(with_causes(caused, event, known._replace(other=known.other - left_open)))
    return caused
