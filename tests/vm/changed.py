# SPDX-License-Identifier: Apache-2.0
"""Fuzz a kernel with one instruction changed until the differential notices; the page that shows when it did."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz.generate.mutator import mutate
from harness.arch.cpu_models import cpu_model
from harness.errors import TargetError
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.report.readme_tables import table
from harness.scenario.scenario import Scenario
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.executor import Executor
from harness.vm.kernels.kallsyms import Symbols
from harness.vm.target import boot
from tests.vm.changes import CHANGES, Change, changed_image
from tests.vm.running import CATALOGUE, REGRESSIONS, SEEDS, findings

COMMAND = "python tools/changed_instructions.py --seconds 60"
MUTATIONS = 3


@dataclass(frozen=True, slots=True)
class Noticed:
    """How a change came out: what showed it first (empty: nothing did), and what it took until then.

    ``seconds`` of fuzzing by one worker, the boot not among them; ``from_corpus``: the scenario is a shipped one.
    """

    change: str
    divergence: str
    scenario: str
    from_corpus: bool
    seconds: float
    scenarios: int
    machines: int


def inputs(seed: int) -> Iterator[tuple[str, Scenario, bool]]:
    """Yield the shipped corpus in random order, then mutants of it without end."""
    rng = random.Random(seed)
    corpus = list({**SEEDS, **REGRESSIONS}.items())
    rng.shuffle(corpus)
    yield from ((name, scenario, True) for name, scenario in corpus)
    while True:
        name, scenario = rng.choice(corpus)
        for _ in range(MUTATIONS):
            scenario = mutate(scenario, rng)
        yield f"a mutant of {name}", scenario, False


def _shown(executor: Executor, scenario: Scenario, target: str) -> set[str]:
    trace = executor.run(scenario)
    checked: CheckResult = check(scenario, trace, "spec", cpu_model(load_config(target).cpu), CATALOGUE)
    return findings(checked)


def search(
    change: Change, stock: Executor, kernel: Path, seconds: float, seed: int, target: str = DEFAULT_TARGET
) -> Noticed:
    """Fuzz the changed kernel; what the ``stock`` machine shows for the same scenario does not count.

    A machine that is lost counts as noticed, since it is a crash finding, unless the stock one is lost, too.
    """
    config = load_config(target)
    prepared = prepare(config, kernel=kernel)
    given = inputs(seed)
    spent, scenarios, machines = 0.0, 0, 0
    with ExitStack() as stack:
        executor = stack.enter_context(boot(config, prepared))
        machines += 1
        while spent < seconds:
            name, scenario, shipped = next(given)
            scenarios += 1
            started = time.monotonic()
            try:
                new = _shown(executor, scenario, target)
            except TargetError:
                new = {"crash"}
            if new:
                new -= _shown(stock, scenario, target)
            spent += time.monotonic() - started
            if new:
                return Noticed(change.name, ", ".join(sorted(new)), name, shipped, round(spent, 2), scenarios, machines)
    return Noticed(change.name, "", "", False, round(spent, 2), scenarios, machines)


def search_all(
    changes: Sequence[Change], directory: Path, symbols: Symbols, seconds: float, seed: int
) -> Iterator[Noticed]:
    """Search one change after the other beside one stock machine."""
    config = load_config(DEFAULT_TARGET)
    prepared = prepare(config)
    with boot(config, prepared) as stock:
        for change in changes:
            image = changed_image(prepared.kernel, change, directory, symbols)
            try:
                yield search(change, stock, image, seconds, seed)
            finally:
                image.unlink()


def document(found: Sequence[Noticed], release: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return what is kept of a search."""
    rows = [asdict(one) for one in found]
    return {"kernel_release": release, "seconds": seconds, "seed": seed, "noticed": rows}


def page(kept: Mapping[str, Any]) -> str:
    """Return ``docs/changed-instructions.md``."""
    by_name = {row["change"]: row for row in kept["noticed"]}
    rows = []
    for change in CHANGES:
        row = by_name.get(change.name)
        if row is None:
            took, by, where = "not measured", "", ""
        elif not row["divergence"]:
            took, by, where = f"not within {row['seconds']:.0f} s", "", f"{row['scenarios']} scenarios"
        else:
            took, by, where = f"{row['seconds']:.1f} s", f"`{row['divergence']}`", row["scenario"]
        rows.append((f"`{change.name}`", change.path, f"`{change.function}`", change.what, change.why, took, by, where))
    hits = [row for row in by_name.values() if row["divergence"]]
    slowest = max((row["seconds"] for row in hits), default=0.0)
    return "\n".join(
        [
            "# Changed instructions",
            "",
            f"Generated by `{COMMAND}`; do not edit.",
            "",
            "One instruction of KVM in Debian's kernel image is changed, and one worker fuzzes it from the shipped",
            "corpus: seeds and regressions in random order, then mutants. Noticed is a divergence that no entry of the",
            "catalogue explains, and that the stock kernel does not show for the same scenario. Rows:",
            "`tests/vm/changes.py`; the tests replay for each row the seeds that show it.",
            "",
            f"Linux {kept['kernel_release']}, seed {kept['seed']}, at most {kept['seconds']:g} s each: "
            f"{len(hits)} of {len(by_name)} noticed, the slowest after {slowest:.1f} s.",
            "",
            table(("change", "path", "function", "what", "why it must show", "after", "noticed by", "scenario"), rows),
            "",
        ]
    )


def read(path: Path) -> dict[str, Any]:
    """Return what was kept."""
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept
