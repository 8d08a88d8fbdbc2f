# SPDX-License-Identifier: Apache-2.0
"""A comparison of variants as text, as facts (JSON), and as panels of a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fuzz.bench.compare import AGAIN, Compared, Measured, ratio, us
from harness.report.plots import Bars, Panel

CPU = ("cpu", "qemu")
TRUSTED = 0.03
"""A control that differs from itself by more makes the other ratios doubtful."""
WIDTH = 40
"""Columns of a bar."""


def budget(measured: Measured) -> dict[str, float]:
    """Return CPU microseconds of a checked exit: QEMU's, then each part of the worker's, then its rest."""
    ours, stages = us(measured, "cpu"), measured.stages
    return {"QEMU": us(measured, "qemu"), **stages, "rest": max(0.0, ours - sum(stages.values()))}


def _control(compared: Compared) -> float:
    return ratio(compared.variants[-1], compared.variants[0], *CPU)


def comparison_facts(compared: Compared) -> dict[str, object]:
    """Return what ``--json`` shows."""
    base = compared.variants[0]
    return {
        "load": [round(each, 1) for each in compared.load],
        "rounds": len(base.slices),
        "control": round(_control(compared), 3),
        "trusted": abs(_control(compared) - 1) <= TRUSTED,
        "variants": [
            {
                "name": one.name,
                "exits": sum(each.exits for each in one.slices),
                "our_us": round(us(one, "cpu"), 1),
                "qemu_us": round(us(one, "qemu"), 1),
                "wall_us": round(us(one, "wall"), 1),
                "by_cpu": round(ratio(one, base, *CPU), 3),
                "by_wall": round(ratio(one, base, "wall"), 3),
                "budget_us": {name: round(value, 1) for name, value in budget(one).items()},
            }
            for one in compared.variants
        ],
    }


def comparison_text(named: Mapping[str, object], compared: Compared) -> str:
    """Return the tables for a terminal; ``named`` says what was measured."""
    head = "target {target}, Linux {kernel_release}, level {level}, seed {seed}".format(**named)
    load = "load {:.1f} to {:.1f}".format(*compared.load)
    return "\n".join([f"{head}, {load}", *_ratios(compared), *_control_line(compared), *_budgets(compared)])


def _ratios(compared: Compared) -> Iterator[str]:
    base = compared.variants[0]
    yield f"medians of {len(base.slices)} rounds; exits/s as a multiple of {base.name}'s, by CPU time and by wall time"
    wide = max(len(one.name) for one in compared.variants)
    yield f"{'':{wide}} {'our us/exit':>12} {'QEMU us/exit':>13} {'wall us/exit':>13} {'by CPU':>8} {'by wall':>8}"
    for one in compared.variants:
        times = f"{us(one, 'cpu'):12.1f} {us(one, 'qemu'):13.1f} {us(one, 'wall'):13.1f}"
        yield f"{one.name:{wide}} {times} {ratio(one, base, *CPU):8.3f} {ratio(one, base, 'wall'):8.3f}"


def _control_line(compared: Compared) -> Iterator[str]:
    base, control = compared.variants[0], _control(compared)
    word = "within" if abs(control - 1) <= TRUSTED else "NOT within"
    yield f"control: {base.name} against itself {control:.3f}, {word} {TRUSTED:.0%}"


def _budgets(compared: Compared) -> Iterator[str]:
    shown = [one for one in compared.variants if not one.name.endswith(AGAIN)]
    budgets = [budget(one) for one in shown]
    scale = WIDTH / max(1e-9, *(value for each in budgets for value in each.values()))
    for one, parts in zip(shown, budgets, strict=True):
        yield f"where the CPU time of a checked exit goes, us: {one.name}, {sum(parts.values()):.1f} in all"
        for name, value in parts.items():
            yield f"  {name:10} {value:8.1f} {'#' * round(value * scale)}".rstrip()


def comparison_panels(compared: Compared) -> list[Panel]:
    """Return the plot's panels: a budget for each variant."""
    return [
        Bars(f"CPU time of a checked exit, microseconds: {one.name}", tuple(budget(one).items()))
        for one in compared.variants
        if not one.name.endswith(AGAIN)
    ]
