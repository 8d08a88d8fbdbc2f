# SPDX-License-Identifier: Apache-2.0
"""Measure how often minimisation ends at the same least case from different starts."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

from harness.lemma.case import Case, case_of
from harness.lemma.compare_levels import Difference, Question, compare_on_case
from harness.lemma.generate import random_case
from harness.lemma.shrink import least_case, order


@dataclass(frozen=True, slots=True)
class Stability:
    """``same`` out of ``total`` starts ended at the least case that any start of their kind ended at.

    A kind is a goal and the branches that the start takes.
    """

    goals: int
    same: int
    total: int
    strays: tuple[str, ...]

    @property
    def share(self) -> float:
        """Return the share of starts, 0 to 1."""
        return self.same / self.total if self.total else 1.0


def measure(questions: tuple[Question, ...], starts: int, tries: int, seed: int) -> Stability:
    """Minimise up to ``starts`` random starts of every kind that ``tries`` random cases of each question reach."""
    rng = random.Random(seed)
    goals = same = total = 0
    strays: list[str] = []
    for question in questions:
        ends: dict[tuple[str, frozenset[str]], list[Case]] = defaultdict(list)
        for _ in range(tries):
            case = random_case(rng, question.function)
            difference = compare_on_case(question, case)[0]
            if isinstance(difference, Difference):
                for goal in difference.goals():
                    key = (goal, difference.branches())
                    if len(ends[key]) < starts:
                        ends[key].append(least_case(question, case_of(case), goal))
        for (goal, _), cases in ends.items():
            best = min(cases, key=order)
            equal = sum(case == best for case in cases)
            goals, same, total = goals + 1, same + equal, total + len(cases)
            if equal < len(cases):
                strays.append(f"{':'.join(question.pair)} {question.function}: {goal} {equal}/{len(cases)}")
    return Stability(goals, same, total, tuple(strays))
