# SPDX-License-Identifier: Apache-2.0
"""Compilation of scenarios to operations: with writes by the module all operations stay, in the same order."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from fuzz.generate.mutator import generate
from harness import protocol
from harness.scenario.agent_program import compile_scenario
from harness.scenario.scenario import Scenario, parse

HEAD = "shadowfuzz-scenario 1\nabout A test.\n"
NAMES = {number: name for name, (number, _) in protocol.OPS.items()}

Line = tuple[str, int, int, int]


def program(scenario: Scenario, *, by_probe: bool) -> list[Line]:
    count, data = compile_scenario(scenario, fresh_vm=False, by_probe=by_probe)
    assert count * protocol.OP_FORMAT.size == len(data)
    return [(NAMES[op], step, a, b) for op, step, a, b in protocol.OP_FORMAT.iter_unpack(data)]


@pytest.mark.parametrize("seed", range(40))
def test_nothing_else_changes(seed: int) -> None:
    scenario = generate(random.Random(seed))
    api, probe = program(scenario, by_probe=False), program(scenario, by_probe=True)
    assert [op for op in probe if op[0] not in ("later", "run")] == [op for op in api if op[0] != "run"]
    runs = [op for op in api if op[0] == "run"]
    assert [("run", *op[1:3], 0) if op[0] == "later" else op for op in probe if op[0] in ("later", "run")] == runs


@pytest.mark.parametrize("seed", range(40))
def test_delayed_writes_are_contiguous_and_precede_their_run(seed: int) -> None:
    """The agent uses one range, from the index of the first to the end of the last."""
    left = 0
    for name, ops in groupby(program(generate(random.Random(seed)), by_probe=True), key=lambda op: op[0]):
        for op in ops:
            if left:
                assert name == "set"
                left -= 1
            elif name == "later":
                left = op[3]
                assert left


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("hvc 0x0\nset x1 0x1\nset x2 0x2\nhvc 0x0\n", ["later", "set", "set", "run", "run"]),
        ("hvc 0x0\nset x1 0x1\ncomplete 0x2\nhvc 0x0\n", ["run", "set", "complete", "run", "run"]),
        ("hvc 0x0\nset tpidr_el1 0x1\nhvc 0x0\n", ["run", "set", "run", "run"]),
        ("hvc 0x0\nforge esr 0x0\nset x1 0x1\nhvc 0x0\n", ["forge", "run", "set", "run", "run"]),
        ("br x3\nset x1 0x1\nhvc 0x0\n", ["run", "set", "run", "run"]),
    ],
)
def test_only_where_the_host_does_nothing_else(steps: str, expected: list[str]) -> None:
    found = [op[0] for op in program(parse(HEAD + steps), by_probe=True)]
    assert [name for name in found[found.index("code") :] if name != "code"] == expected
