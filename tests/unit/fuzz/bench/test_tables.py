# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic, text and plot."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from fuzz.bench.benchmark import BenchResult, Sample
from fuzz.bench.stages import LengthPoint
from fuzz.bench.tables import breakdown, by_workers, result_json, result_panels, result_text
from harness.report.plots import Bars, Lines, render

NAMED = {"target": "t", "kernel_release": "r", "level": "spec", "jobs": 2, "seed": 1}


def sample(mode: str, exits: int, seconds: float, workers: int = 2) -> Sample:
    return Sample(mode, exits, exits // 40, seconds, exits * 50e-6, exits * 100e-6, workers)


RESULT = BenchResult(
    (
        *(sample("raw", 8000, 2.0), sample("raw", 9000, 3.0), sample("recorded", 6000, 2.0)),
        *(sample("checked", 7000, 2.0), sample("raw", 5000, 1.0, 1), sample("checked", 2000, 1.0, 1)),
    ),
    start_s=1.5,
    first_exit_s=2.5,
    memory_mib=60.0,
    qemu_memory_mib=150.0,
    stages={"mutate": 4.0, "compile": 2.0, "decode": 6.0, "model": 10.0, "compare": 12.0, "features": 3.0},
    relations={"none": 6.0, "+ switch": 14.0},
    lengths=(LengthPoint(5, 9.0, 150.0, 260.0), LengthPoint(50, 30.0, 110.0, 190.0)),
)
NOTHING = BenchResult((), 0.0, 0.0, 0.0, 0.0, {}, {}, ())


def test_rates_add_up_over_workers() -> None:
    assert RESULT.rate("raw") == pytest.approx(4000 + 3000)
    assert RESULT.rate("checked") == pytest.approx(3500)
    assert RESULT.ratio("checked") == pytest.approx(0.5)
    assert RESULT.ratio("raw") == 1.0


def test_fewer_workers_are_samples_of_their_own() -> None:
    assert RESULT.rate("raw", 1) == pytest.approx(5000)
    assert [(row["workers"], row["checked_over_raw"]) for row in by_workers(RESULT)] == [(1, 0.4), (2, 0.5)]


def test_the_parts_of_an_exit_add_up_to_its_cpu_time() -> None:
    """The parts are guest, recording, and the worker's own time; none is counted twice."""
    parts = breakdown(RESULT)
    assert parts["guest"] == 100.0
    ours = sum(parts.values()) - parts["guest"] - parts["record"]
    assert ours == pytest.approx(50.0 + sum(RESULT.stages.values()) - RESULT.stages["compile"])
    quicker = BenchResult(**{**{n: getattr(RESULT, n) for n in RESULT.__slots__}, "stages": {"compile": 2.0}})
    assert sum(breakdown(quicker).values()) == pytest.approx(150.0)


def test_an_empty_result_causes_no_division_by_zero() -> None:
    assert NOTHING.ratio("checked") == 0.0
    assert json.loads(json.dumps(result_json([NOTHING])))["checked_exits_per_s"] == 0
    assert render("t", result_panels(NOTHING))


def test_the_text_names_every_mode_and_part() -> None:
    lines = result_text(NAMED, [RESULT]).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["raw", "recorded", "checked"]
    assert "0.50" in lines[4]
    parts = {line.split()[0] for line in lines if line[:1] == " "}
    assert {"guest", "transport", "decode", "model", "compare", "mutate", "rest"} <= parts


def test_the_json_has_its_documented_keys() -> None:
    found = result_json([RESULT])
    assert (found["raw_exits_per_s"], found["checked_exits_per_s"], found["checked_over_raw"]) == (7000.0, 3500.0, 0.5)
    assert found["recorded_exits_per_s"] == 3000.0
    assert found["by_length"][0] == {"steps": 5, "exits": 9.0, "raw_us": 150.0, "checked_us": 260.0}  # type: ignore[index]


def test_runs_have_a_median_and_a_spread() -> None:
    def checked(exits: int) -> BenchResult:
        return replace(RESULT, samples=(sample("raw", 8000, 2.0), sample("checked", exits, 2.0)))

    found = result_json([checked(exits) for exits in (4000, 2000, 3000)])
    assert found["checked_exits_per_s"] == 2000.0, "the first run's"
    assert [run["checked_exits_per_s"] for run in found["runs"]] == [2000.0, 1000.0, 1500.0]  # type: ignore[attr-defined]
    ways = [found[way]["checked_over_raw"] for way in ("least", "median", "most")]  # type: ignore[index]
    assert ways == [0.25, 0.375, 0.5]
    lines = result_text(NAMED, [checked(4000), checked(2000)]).splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["run", "run", "median", "least", "most"]
    assert "median" not in result_text(NAMED, [RESULT])


def test_the_plot_is_one_self_contained_svg() -> None:
    picture = render("a < b", result_panels(RESULT))
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "href" not in picture and "url(" not in picture
    assert "a &lt; b" in picture


def test_bars_and_lines_are_in_proportion() -> None:
    root = ElementTree.fromstring(render("t", [Bars("b", (("one", 10.0), ("half", 5.0)))]))
    widths = [float(r.attrib["width"]) for r in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] == pytest.approx(2 * widths[1])
    root = ElementTree.fromstring(render("t", [Lines("l", "x", (("y", ((0.0, 0.0), (10.0, 100.0))),))]))
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.attrib["points"].split())
    assert x1 > x0 and y1 < y0
