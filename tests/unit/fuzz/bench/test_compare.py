# SPDX-License-Identifier: Apache-2.0
"""Variants are compared slice by slice, with a control; what cannot be measured is one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.bench import compare as bench
from fuzz.bench.compare import (
    AGAIN,
    HERE,
    VARIANTS,
    Compared,
    ComparisonPlan,
    Measured,
    Slice,
    Variant,
    compare,
    parse_variant,
    ratio,
    us,
)
from fuzz.bench.comparison_tables import budget, comparison_facts, comparison_panels, comparison_text
from fuzz.compiled.use import PURE
from harness.errors import InputError, SetupError, TargetError
from tests.support.paths import ROOT

PLAN = ComparisonPlan("kvm-nvhe", "spec", rounds=2, scenarios=3, seed=1)
PROCESS = """
import json, os, sys
job = json.loads(sys.stdin.readline())
print(json.dumps({"compiled": False}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    with open(os.environ["ORDERS"], "a") as file:
        file.write(os.environ["NAME"] + " " + line)
    if "stages" in order:
        print(json.dumps({"decode": 5.0, "compare": 20.0}), flush=True)
    else:
        cost = float(os.environ["COST"]) / (4 if job.get("fast_qemu") else 1)
        print(json.dumps({"exits": 100, "wall": cost / 100, "cpu": cost / 1e4, "qemu": 0.01}), flush=True)
"""
"""Answers as checked_campaign.py does, with times that the environment says."""


def measured(name: str, *cpu: float) -> Measured:
    slices = tuple(Slice(100, 2 * each + 0.02, each, 0.01) for each in cpu)
    return Measured(name, slices, {"decode": 5.0, "compare": 20.0})


ONE, OTHER = measured("pure", 0.02, 0.04, 0.02), measured("compiled", 0.01, 0.02, 0.03)
COMPARED = Compared((ONE, OTHER, measured(f"pure{AGAIN}", 0.02, 0.04, 0.02)), (0.5, 1.25))


def test_a_ratio_is_that_of_two_slices_of_one_round() -> None:
    assert ratio(OTHER, ONE, "cpu") == 2.0, "of 2, 2 and 0.67"
    assert ratio(ONE, ONE, "cpu", "qemu") == 1.0
    assert us(ONE, "cpu") == pytest.approx(200) and us(ONE, "cpu", "qemu") == pytest.approx(300)


def test_a_budget_adds_up() -> None:
    parts = budget(ONE)
    assert list(parts) == ["QEMU", "decode", "compare", "rest"]
    assert sum(parts.values()) == pytest.approx(us(ONE, "cpu") + us(ONE, "qemu"))


def test_text_and_facts_show_the_control() -> None:
    text = comparison_text({"target": "t", "kernel_release": "r", "level": "spec", "seed": 1}, COMPARED)
    assert "load 0.5 to 1.2" in text and "pure against itself 1.000, within 3%" in text
    assert text.count("where the CPU time of a checked exit goes") == 2, "the control has no budget of its own"
    facts = comparison_facts(COMPARED)
    assert facts["control"] == 1.0 and facts["trusted"] is True
    assert [panel.title.rpartition(" ")[2] for panel in comparison_panels(COMPARED)] == ["pure", "compiled"]


def test_a_control_that_differs_is_said() -> None:
    doubtful = Compared((ONE, measured(f"pure{AGAIN}", 0.03, 0.05, 0.03)), (9.0, 9.0))
    assert "NOT within 3%" in comparison_text({"target": "t", "kernel_release": "r", "level": "l", "seed": 1}, doubtful)
    assert comparison_facts(doubtful)["trusted"] is False


def test_a_variant_is_a_word_or_a_checkout(tmp_path: Path) -> None:
    assert parse_variant("pure", {}) == Variant("pure", HERE, VARIANTS["pure"])
    assert parse_variant("pure+fast-qemu", {}) == Variant("pure+fast-qemu", HERE, VARIANTS["pure"], fast_qemu=True)
    assert parse_variant(str(ROOT), {}).tree == ROOT.resolve()
    with pytest.raises(InputError, match="neither pure nor compiled nor a checkout"):
        parse_variant(str(tmp_path), {})
    with pytest.raises(SetupError, match="run shadowfuzz setup"):
        parse_variant("compiled", {"XDG_CACHE_HOME": str(tmp_path), PURE: "1"})


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "process.py"
    path.write_text(PROCESS)
    monkeypatch.setattr(bench, "PROCESS", path)
    monkeypatch.setenv("ORDERS", str(tmp_path / "orders"))
    return tmp_path


def test_slices_are_interleaved_and_the_same_for_all(fake: Path) -> None:
    variants = [Variant(name, fake, {"NAME": name, "COST": cost}) for name, cost in (("a", "2"), ("b", "1"))]
    lines: list[str] = []
    found = compare(variants, PLAN, lines.append)
    assert [one.name for one in found.variants] == ["a", "b", f"a{AGAIN}"]
    assert all(len(one.slices) == PLAN.rounds for one in found.variants), "the first rounds warm up"
    assert ratio(found.variants[1], found.variants[0], "cpu") == 2.0
    orders = [line.partition(" ") for line in (fake / "orders").read_text().splitlines()]
    rounds = [orders[at : at + 3] for at in range(0, len(orders), 3)]
    for each in rounds:
        assert sorted(name for name, _, _ in each) == ["a", "a", "b"] and len({order for _, _, order in each}) == 1
    assert len({each[0][2] for each in rounds}) == len(rounds), "another seed each round"


def test_a_variant_on_the_fast_qemu_is_told_so(fake: Path) -> None:
    environment = {"NAME": "a", "COST": "2"}
    variants = [Variant("a", fake, environment), Variant("a+fast-qemu", fake, environment, fast_qemu=True)]
    base, fast, control = compare(variants, PLAN, lambda _: None).variants
    assert (ratio(fast, base, "cpu"), ratio(control, base, "cpu")) == (4.0, 1.0)


def test_a_process_that_dies_is_one_error(fake: Path) -> None:
    (fake / "process.py").write_text("import sys; sys.exit(7)")
    with pytest.raises(TargetError, match="a: its process died"):
        compare([Variant("a", fake, {})], PLAN, lambda _: None)
    (fake / "process.py").write_text("""print('{"error": "no machine"}')""")
    with pytest.raises(TargetError, match="a: no machine"):
        compare([Variant("a", fake, {})], PLAN, lambda _: None)
