# SPDX-License-Identifier: Apache-2.0
"""Clusters that one cause probably shows as are one problem."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.findings.problems import Example, Problem, group_problems


def test_what_follows_in_the_simplest_scenario_belongs_to_what_leads_it() -> None:
    found = group_problems(
        {
            "pc": [Example("pc", "about A.\nhvc 0x0\n", 5)],
            "x0": [Example("pc", "about A.\nhvc 0x1\n", 9)],
            "esr": [Example("esr", "about B.\nsmc 0x0\n", 3)],
        }
    )
    assert found == (Problem("pc", ("pc", "x0")), Problem("esr", ("esr",)))


def test_a_simpler_scenario_of_its_own_makes_it_a_problem_of_its_own() -> None:
    both = Example("pc", "hvc 0x1\n", 9)
    found = group_problems({"pc": [Example("pc", "hvc 0x0\n", 5)], "x0": [both, Example("x0", "wfi\n", 4)]})
    assert found == (Problem("pc", ("pc",)), Problem("x0", ("x0",)))


def test_the_same_least_scenario_is_one_problem_whatever_its_sentence_says() -> None:
    found = group_problems(
        {
            "a": [Example("a", "about The least that shows a.\nhvc 0x0\n", 5)],
            "b": [Example("b", "about The least that shows b.\nhvc 0x0\n", 5)],
        }
    )
    assert found == (Problem("a", ("a", "b")),)


def test_a_leader_that_is_not_among_them_and_a_circle() -> None:
    assert group_problems({"a": [Example("gone", "hvc 0x0\n", 1)]}) == (Problem("a", ("a",)),)
    circle = {"b": [Example("a", "hvc 0x0\n", 2)], "a": [Example("b", "hvc 0x1\n", 3)]}
    assert group_problems(circle) == (Problem("b", ("b", "a")),)
    assert group_problems({"a": []}) == (Problem("a", ("a",)),)


IDS = st.sampled_from("abcdef")
EXAMPLES = st.builds(Example, IDS, st.sampled_from(("hvc\n", "smc\n", "wfi\n")), st.integers(0, 9))


@given(st.dictionaries(IDS, st.lists(EXAMPLES, max_size=4)))
def test_each_cluster_is_in_one_problem(examples: dict[str, list[Example]]) -> None:
    found = group_problems(examples)
    listed = [id_ for problem in found for id_ in problem.clusters]
    assert sorted(listed) == sorted(examples)
    assert all(problem.clusters[0] == problem.id for problem in found)
