# SPDX-License-Identifier: Apache-2.0
"""Attribute divergences to errata: by switching rules on, and looking whether what was observed is then predicted.

A divergence belongs to an erratum only if the contract with that rule predicts the observed value, bit for bit, and
nothing else of the round gets worse.  Of several sets of rules the smallest counts.  What no set predicts, although
an erratum of the target might have caused it by its register and exit class, has another cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from harness.arch.registers import NAMES
from harness.protocol import OP_ABORT, OP_RESET, OP_SERROR
from harness.relations.divergence import ANOTHER_CAUSE, Divergence, Unchecked, joined
from harness.relations.errata import NONE, TargetErrata, may_cause
from harness.relations.host import PARTIAL, compare_entry_state
from harness.trace.rounds import Round

MAX_ERRATA = 3
"""So many errata at the most are tried together on one round."""
_OF_THE_STATE = frozenset({*NAMES, "hcr_el2"})
"""What :func:`harness.relations.host.compare_entry_state` compares."""


class Attribution(NamedTuple):
    """The errata that predict a round, and the registers of ``host.*`` that only they predict.

    ``other`` are the registers that an erratum might have changed, and that no set of errata predicts.
    """

    errata: frozenset[str]
    registers: frozenset[str]
    other: frozenset[str]


def attribute(
    differing: Iterable[str], round_: Round, lossy: Mapping[int, int], walk_level: int | None, errata: TargetErrata
) -> Attribution | None:
    """Return what the errata explain of a round in which these registers of ``host.*`` differ from the contract.

    None: no erratum of the target may have caused any of it.
    """
    base = frozenset(differing) & _OF_THE_STATE
    # Only rules that may have caused some of it are worth trying.
    names = sorted(name for name in errata.rules if any(may_cause(frozenset({name}), r, round_.label) for r in base))
    claimed = frozenset(r for r in base if may_cause(frozenset(names), r, round_.label))
    if not claimed:
        return None
    best, left = NONE, base
    for size in range(1, min(MAX_ERRATA, len(names)) + 1):
        for chosen in combinations(names, size):
            remaining = _differing(round_, lossy, walk_level, frozenset(chosen))
            if remaining is not None and remaining < left:
                best, left = frozenset(chosen), remaining
                if not left & claimed:
                    return Attribution(best, base - left, NONE)
    undecided = _loses_an_exception(round_)
    other = frozenset(r for r in left & claimed if not undecided and not errata.is_undecided(r, round_.label))
    return Attribution(best, base - left, other)


def _loses_an_exception(round_: Round) -> bool:
    """Whether userspace asked for an exception before KVM_ARM_VCPU_INIT: what was done of it no record shows."""
    hosts = round_.hosts
    asked = next((i for i, host in enumerate(hosts) if host.op in (OP_ABORT, OP_SERROR)), len(hosts))
    return any(host.op == OP_RESET and host.asked for host in hosts[asked:])


def _differing(
    round_: Round, lossy: Mapping[int, int], walk_level: int | None, errata: frozenset[str]
) -> frozenset[str] | None:
    """Return the registers that differ from the contract with some rules; None where it does not say."""
    found = tuple(compare_entry_state(round_, lossy, walk_level, errata))
    differing = frozenset(one.register for one in found if isinstance(one, Divergence))
    return (
        differing
        if differing or not any(isinstance(one, Unchecked) and one.why not in PARTIAL for one in found)
        else None
    )


def with_causes(found: Sequence[Divergence], round_: Round, known: Attribution) -> Iterator[Divergence]:
    """Yield the divergences of one round with their causes.

    A divergence of ``restore.*`` has the cause of the one of ``host.*`` in the same register: the errata predict what
    was observed there.  Where the contract is met its cause is not determined.
    """
    cause = joined(known.errata)
    for one in found:
        register = "spsr_el1" if one.register == "spsr_0" else one.register
        if one.relation not in ("host", "restore") or one.event != round_.first:
            yield one
        elif register in known.registers:
            yield one._replace(cause=cause)
        else:
            yield one._replace(cause=ANOTHER_CAUSE) if register in known.other else one
