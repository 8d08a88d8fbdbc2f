# SPDX-License-Identifier: Apache-2.0
"""Format a benchmark's result as JSON, as tables, and as panels of a plot; each figure is computed here once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from fuzz.bench.benchmark import MODES, BenchResult
from harness.report.plots import Bars, Lines, Panel


def breakdown(result: BenchResult) -> dict[str, float]:
    """Return CPU microseconds of a checked exit, by part.

    ``guest``: QEMU, bare.  ``record``: the additional time of QEMU when it records.  ``transport``: the worker's time
    to write a request and to wait.  Then the parts that :func:`fuzz.bench.stages.measure_stages` measures alone;
    ``rest`` is the additional time of a campaign's worker: counting, storing, confirming, and colder caches.
    """
    guest, (our_recorded, recorded), (our_checked, _) = result.us("raw")[1], result.us("recorded"), result.us("checked")
    stages = dict(result.stages)
    compile_us = stages.pop("compile", 0.0)
    parts = {"guest": guest, "record": max(0.0, recorded - guest), "compile": compile_us}
    parts["transport"] = max(0.0, our_recorded - compile_us)
    parts |= stages
    parts["rest"] = max(0.0, our_checked - our_recorded - sum(stages.values()))
    return {name: round(value, 2) for name, value in parts.items()}


def by_workers(result: BenchResult) -> list[dict[str, float]]:
    """Return the rates for each measured number of workers, the smallest first."""
    numbers = sorted({sample.workers for sample in result.samples})
    return [
        {"workers": n}
        | {f"{mode}_exits_per_s": round(result.rate(mode, n), 1) for mode in MODES}
        | {"checked_over_raw": round(result.ratio("checked", n), 3)}
        for n in numbers
    ]


Rates = dict[str, float]


def rates(result: BenchResult) -> Rates:
    """Return the rates of the modes and their ratios."""
    return {
        **{f"{mode}_exits_per_s": round(result.rate(mode), 1) for mode in MODES},
        "recorded_over_raw": round(result.ratio("recorded"), 3),
        "checked_over_raw": round(result.ratio("checked"), 3),
    }


def over_runs(results: Sequence[BenchResult]) -> dict[str, Rates]:
    """Return the median, the minimum and the maximum of each rate over several runs."""
    runs = [rates(result) for result in results]
    ways: dict[str, Callable[[list[float]], float]] = {"median": statistics.median, "least": min, "most": max}
    return {way: {name: choose([run[name] for run in runs]) for name in runs[0]} for way, choose in ways.items()}


def result_json(results: Sequence[BenchResult]) -> dict[str, object]:
    """Return the data of ``--json`` without the names of the target: the first run, and the rates of all runs."""
    result = results[0]
    return {
        **rates(result),
        "runs": [rates(one) for one in results],
        **over_runs(results),
        "start_s": round(result.start_s, 2),
        "first_checked_exit_s": round(result.first_exit_s, 2),
        "memory_mib": round(result.memory_mib, 1),
        "qemu_memory_mib": round(result.qemu_memory_mib, 1),
        "breakdown_us": breakdown(result),
        "by_relations_us": {name: round(value, 2) for name, value in result.relations.items()},
        "by_length": [
            {"steps": p.steps} | {name: round(getattr(p, name), 1) for name in ("exits", "raw_us", "checked_us")}
            for p in result.lengths
        ],
        "by_workers": by_workers(result),
        "machines": {name: round(value, 3) for name, value in result.machines.items()},
        "samples": [
            {
                "mode": s.mode,
                "workers": s.workers,
                "exits": s.exits,
                "scenarios": s.scenarios,
                "seconds": round(s.seconds, 3),
                "cpu_seconds": round(s.cpu_seconds, 3),
                "qemu_seconds": round(s.qemu_seconds, 3),
            }
            for s in result.samples
        ],
    }


def result_text(named: Mapping[str, object], results: Sequence[BenchResult]) -> str:
    """Return the tables for a terminal; ``named`` describes the target; runs after the first have only their rates."""
    result = results[0]
    head = "target {target}, Linux {kernel_release}, level {level}, {jobs} workers, seed {seed}".format(**named)
    return "\n".join([head, *_modes(result), *_parts(result), *_growth(result), *_start(result), *_runs(results)])


def _modes(result: BenchResult) -> Iterator[str]:
    yield f"{'mode':10} {'exits/s':>9} {'over raw':>9} {'exits/scenario':>15} {'own us/exit':>12} {'QEMU us/exit':>13}"
    for mode in MODES:
        samples = result.of(mode)
        each = sum(s.exits for s in samples) / max(1, sum(s.scenarios for s in samples))
        own, qemu = result.us(mode)
        yield f"{mode:10} {result.rate(mode):9.0f} {result.ratio(mode):9.2f} {each:15.1f} {own:12.1f} {qemu:13.1f}"


def _parts(result: BenchResult) -> Iterator[str]:
    yield "where the CPU time of a checked exit goes, us"
    for name, value in breakdown(result).items():
        yield f"  {name:12} {value:8.1f}"


def _growth(result: BenchResult) -> Iterator[str]:
    rows = by_workers(result)
    if len(rows) > 1:
        yield f"{'workers':>8} {'raw/s':>9} {'recorded/s':>11} {'checked/s':>10} {'over raw':>9}"
        for row in rows:
            raw, recorded, checked = (row[f"{mode}_exits_per_s"] for mode in MODES)
            yield f"{row['workers']:8.0f} {raw:9.0f} {recorded:11.0f} {checked:10.0f} {row['checked_over_raw']:9.2f}"
    if result.lengths:
        yield f"{'steps':>8} {'exits':>9} {'raw us/exit':>12} {'checked us/exit':>16}   (one worker, wall time)"
        for p in result.lengths:
            yield f"{p.steps:8} {p.exits:9.1f} {p.raw_us:12.1f} {p.checked_us:16.1f}"
    if result.relations:
        yield "CPU us/exit to decode and compare, by relations"
        for name, value in result.relations.items():
            yield f"  {name:16} {value:6.1f}"


def _start(result: BenchResult) -> Iterator[str]:
    yield f"boot to ready {result.start_s:.2f} s; process to first checked exit {result.first_exit_s:.2f} s"
    yield f"memory of the largest worker {result.memory_mib:.1f} MiB, of its QEMU {result.qemu_memory_mib:.1f} MiB"
    if result.machines:
        yield (
            "cold boot {cold_boot_s:.2f} s; template {template_s:.2f} s, once; clone {clone_s:.2f} s, "
            "{clone_private_mib:.0f} MiB of its own".format(**result.machines)
        )
        yield (
            "deterministic {deterministic_exits_per_s:.0f} exits/s, {deterministic_over_default:.2f} of the default "
            "mode (one worker, recorded)".format(**result.machines)
        )


def _runs(results: Sequence[BenchResult]) -> Iterator[str]:
    if len(results) == 1:
        return
    numbered = {f"run {number}": rates(result) for number, result in enumerate(results, 1)}
    yield f"{len(results)} runs, each with scenarios of its own"
    yield f"{'':8} {'raw/s':>9} {'recorded/s':>11} {'checked/s':>10} {'over raw':>9}"
    for name, found in (numbered | over_runs(results)).items():
        raw, recorded, checked = (found[f"{mode}_exits_per_s"] for mode in MODES)
        yield f"  {name:6} {raw:9.0f} {recorded:11.0f} {checked:10.0f} {found['checked_over_raw']:9.3f}"


def result_panels(result: BenchResult) -> list[Panel]:
    """Return the plot's panels."""
    rows = by_workers(result)
    return [
        Bars("CPU time of a checked exit, microseconds", tuple(breakdown(result).items())),
        Lines(
            "Exits per second by workers",
            "workers",
            tuple((mode, tuple((row["workers"], row[f"{mode}_exits_per_s"]) for row in rows)) for mode in MODES),
        ),
        Lines(
            "Wall time of an exit by scenario length, microseconds",
            "steps in a scenario",
            (
                ("raw", tuple((p.steps, p.raw_us) for p in result.lengths)),
                ("checked", tuple((p.steps, p.checked_us) for p in result.lengths)),
            ),
        ),
        Bars("CPU time to decode and compare an exit, by relations", tuple(result.relations.items())),
    ]
