# SPDX-License-Identifier: Apache-2.0
"""The compiled checker judges what real KVM did exactly as its sources do.  The first run compiles it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.compiled.build import compile_checker
from fuzz.compiled.use import PURE
from fuzz.generate.mutator import custom_mutator, generate
from fuzz.paths import SEEDS
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import format_scenario, load, parse
from harness.trace.tracefile import format_trace
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET

GENERATED = 150
LEAST = 10_000
"""So many divergences must have been judged, or the test shows little."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all seeds and kept findings, and of scenarios that a campaign would make of generated ones."""
    place, rng = tmp_path_factory.mktemp("recorded"), random.Random(19)
    scenarios = [scenario for directory in SEEDS for scenario in map(load, sorted(directory.glob("*.scn")))]
    for _ in range(GENERATED):
        text = format_scenario(generate(rng)).encode()
        scenarios.append(parse(custom_mutator(text, 10240, rng.getrandbits(32))))
    (side,) = open_targets(TargetOptions(DEFAULT_TARGET, "spec", cold=True)).sides
    with side.boot() as machine:
        for number, scenario in enumerate(one for one in scenarios if not needs_protected(one)):
            trace = machine.run(scenario, fresh_vm=False)
            (place / f"{number:04}.scn").write_text(format_scenario(scenario))
            (place / f"{number:04}.trace").write_text(format_trace(trace))
    return place


def judged(place: Path, level: str, **more: str) -> list[str]:
    argv = [sys.executable, "-m", "tests.support.judged", DEFAULT_TARGET, level, str(place)]
    done = subprocess.run(argv, env={**os.environ, **more}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.timeout(2400)  # with the time of the compiler on a busy machine
@pytest.mark.parametrize("level", ["spec", "kernel"])
def test_the_compiled_checker_judges_as_its_sources_do(recorded: Path, level: str) -> None:
    compile_checker(Cache(default_root(os.environ)))
    pure, compiled = judged(recorded, level, **{PURE: "1"}), judged(recorded, level, **{PURE: ""})
    assert (pure[0], compiled[0]) == ("pure", "compiled")
    assert int(pure[1]) >= LEAST
    assert compiled[1:] == pure[1:]
