# SPDX-License-Identifier: Apache-2.0
"""The table of relations is complete, and a check goes through it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness import relations
from harness.arch.cpu_models import cpu_model
from harness.findings import check as checking
from harness.findings.known_divergences import Catalogue
from harness.relations import host, registry
from harness.relations.basis import API, ARCHITECTURE
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.registry import ALL, OF_A_ROUND, OF_A_TRACE, WORDS, Relation
from harness.scenario.scenario import parse
from harness.trace.events import Trace
from tests.support.traces import entry, irq, state

ROOM = Path(relations.__file__).parent
SCENARIO = parse("shadowfuzz-scenario 1\nabout A test.\nhvc 0x0\n")
EXPLAINS_NOTHING = Catalogue("spec", ())


def test_every_module_that_compares_has_a_row() -> None:
    listed = {Path(str(relation.module.__file__)).name for relation in ALL}
    for path in ROOM.glob("*.py"):
        names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if any(name.startswith("compare_") for name in names):
            assert path.name in listed, f"{path.name} compares, and is in no row of the registry"


def test_every_relation_has_words() -> None:
    source = "".join(path.read_text() for path in ROOM.glob("*.py"))
    shown = set(re.findall(r'Divergence\(\s*"(\w+)"', source))
    assert "isolate" in shown and shown <= set(WORDS)
    for relation in ALL:
        names = re.findall(r"(?:^|, )(\w+)\.", relation.shows)
        assert names and set(names) <= set(WORDS), relation


def test_names_and_letters_are_used_once() -> None:
    names = [relation.name for relation in ALL]
    letters = [relation.letter for relation in ALL if relation.letter]
    assert len(set(names)) == len(names) and len(set(letters)) == len(letters)


def test_a_check_goes_through_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row more, and what it finds, cannot compare and counts is in the result."""
    found = Divergence("host", "new", 1, 2, "IRQ", 1, 0)
    rows = (
        Relation("new", host, "host.new", "a test", lambda at: (found, Unchecked("new", "why")), counted=("new",)),
        Relation("never", host, "host.never", "a test", lambda at: (found,), lambda at: False, counted=("never",)),
        Relation(
            "left", host, "host.left", "a test", lambda at: (found,), unless=lambda at: "a reason", counted=("x",)
        ),
    )
    monkeypatch.setattr(checking, "OF_A_TRACE", (*OF_A_TRACE, *rows))
    monkeypatch.setattr(checking, "OF_A_ROUND", (*OF_A_ROUND, *rows))
    start = state()
    trace = Trace((entry(start), irq(start), entry(start)), "ok", 0, False)
    heard = []
    result = checking.check(SCENARIO, trace, "spec", cpu_model("cortex-a72"), EXPLAINS_NOTHING, heard.append)
    assert result.relations["new"] == 3, "two rounds and a trace"
    assert result.unchecked["new: why"] == result.unchecked["left: a reason"] == 3
    assert "never" not in result.relations and "x" not in result.relations
    new = [j.divergence for j in result.judged if j.divergence.register == "new"]
    assert [one._replace(basis="") for one in new] == [found] * 3
    assert [one.basis for one in new] == [API, ARCHITECTURE, ""], "the first round is a reset, no round has the trace"
    assert [one.left_out for one in heard if one.relation == "new"] == ["", "why"] * 2


def test_families_are_what_coverage_counts() -> None:
    assert {r.family for r in registry.OF_A_ROUND} == {"save", "restore", "reveal", "isolate", "host"}
