# SPDX-License-Identifier: Apache-2.0
"""Fuzz a kernel with one changed instruction until the change is detected, and generate the page about it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fuzz.generate.mutator import mutate
from fuzz.paths import KEPT
from harness.arch.cpu_models import cpu_model
from harness.errors import TargetError
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import cause_of, place_text
from harness.findings.regressions import errata_of, explaining, load_regressions
from harness.report.readme_tables import table
from harness.scenario.scenario import Scenario
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.executor import Executor
from harness.vm.kernels.kallsyms import Symbols
from harness.vm.target import boot
from tests.vm.changes import CHANGES, Change, changed_image
from tests.vm.running import CATALOGUE, REGRESSIONS, SEEDS

COMMAND = "python tools/changed_instructions.py --seconds 60"
MUTATIONS = 3
STOCK = "none"
"""The name of the unchanged kernel."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """The result of a change: the first divergence that shows it (empty: none), and the effort until then.

    ``seconds`` of fuzzing by one worker, without the boot; ``from_corpus``: the scenario is a shipped one.
    ``hidden_by``: kept findings of the stock kernel with the same signature, exit class included.
    """

    change: str
    divergence: str
    hidden_by: str
    scenario: str
    from_corpus: bool
    seconds: float
    scenarios: int


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


class NewOnes:
    """Determine the new divergences of a run on a target: those without an erratum of its kernel as their cause."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._kept = load_regressions(KEPT)
        self._errata = errata_of(self._kept, target)
        self._cpu = cpu_model(load_config(target).cpu)

    def __call__(self, executor: Executor, scenario: Scenario) -> tuple[str, str]:
        """Run and check; return the new divergence, and the kept findings with its signature (both may be empty)."""
        try:
            trace = executor.run(scenario)
        except TargetError:
            return "crash", ""
        checked = check(scenario, trace, "spec", self._cpu, CATALOGUE, errata=self._errata)
        found = dict.fromkeys(signature(one) for one in checked.unexplained)
        texts = {one: (place_text(one), cause_of(one)) for one in found}
        new = [one for one in found if not explaining(self._kept, self._target, texts[one])]
        names = {f"{relation}.{register}" for relation, register, *_ in new}
        like = {name for one in new for name in explaining(self._kept, self._target, (texts[one][0], ""))}
        return ", ".join(sorted(names)), ", ".join(sorted(like))


def search(name: str, kernel: Path, new_ones: NewOnes, seconds: float, seed: int) -> Noticed:
    """Fuzz a kernel until a divergence is new or the machine is lost."""
    config = load_config(DEFAULT_TARGET)
    prepared = prepare(config, kernel=kernel)
    given = inputs(seed)
    spent, scenarios = 0.0, 0
    with boot(config, prepared) as executor:
        while spent < seconds:
            where, scenario, shipped = next(given)
            scenarios += 1
            started = time.monotonic()
            new, like = new_ones(executor, scenario)
            spent += time.monotonic() - started
            if new:
                return Noticed(name, new, like, where, shipped, round(spent, 2), scenarios)
    return Noticed(name, "", "", "", False, round(spent, 2), scenarios)


def search_all(
    changes: Sequence[Change], directory: Path, symbols: Symbols, seconds: float, seed: int
) -> Iterator[Noticed]:
    """Fuzz the stock kernel, which must show nothing new, then each changed kernel."""
    prepared, new_ones = prepare(load_config(DEFAULT_TARGET)), NewOnes(DEFAULT_TARGET)
    yield search(STOCK, prepared.kernel, new_ones, seconds, seed)
    for change in changes:
        image = changed_image(prepared.kernel, change, directory, symbols)
        try:
            yield search(change.name, image, new_ones, seconds, seed)
        finally:
            image.unlink()


def document(found: Sequence[Noticed], release: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return the data of a search."""
    rows = [asdict(one) for one in found]
    return {"kernel_release": release, "seconds": seconds, "seed": seed, "noticed": rows}


def page(kept: Mapping[str, Any]) -> str:
    """Return ``docs/changed-instructions.md``."""
    by_name = {row["change"]: row for row in kept["noticed"]}
    stock = by_name.pop(STOCK)
    rows = []
    for change in CHANGES:
        row = by_name.get(change.name)
        if row is None:
            took, by, where, like = "not measured", "", "", ""
        elif not row["divergence"]:
            took, by, where, like = f"not within {row['seconds']:.0f} s", "", f"{row['scenarios']} scenarios", ""
        else:
            took, by, where = f"{row['seconds']:.1f} s", f"`{row['divergence']}`", row["scenario"]
            like = row["hidden_by"]
        cells = change.what, change.why, took, by, like, where
        rows.append((f"`{change.name}`", change.path, f"`{change.function}`", *cells))
    hits = [row for row in by_name.values() if row["divergence"]]
    slowest = max((row["seconds"] for row in hits), default=0.0)
    hidden = sum(bool(row["hidden_by"]) for row in hits)
    control = f"shows {stock['divergence']}" if stock["divergence"] else "shows nothing new"
    return "\n".join(
        [
            "# Changed instructions",
            "",
            f"Generated by `{COMMAND}`; do not edit.",
            "",
            "One instruction of KVM in Debian's kernel image is changed, and one worker fuzzes it from the shipped",
            "corpus: seeds and regressions in random order, then mutants. Noticed is what the tool calls new: no entry",
            "of the catalogue and no erratum of the stock kernel explains it. Rows: `tests/vm/changes.py`; the tests",
            "replay for each row the seeds that show it.",
            "",
            f"Linux {kept['kernel_release']}, seed {kept['seed']}, at most {kept['seconds']:g} s each: "
            f"{len(hits)} of {len(by_name)} noticed, the slowest after {slowest:.1f} s. {hidden} of them have the",
            "signature of an erratum (`like`), and have another cause. The unchanged kernel "
            f"{control} in {stock['scenarios']} scenarios ({stock['seconds']:.0f} s).",
            "",
            table(("change", "path", "function", "what", "why it must show", "after", "new", "like", "scenario"), rows),
            "",
        ]
    )


def read(path: Path) -> dict[str, Any]:
    """Return the kept data."""
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept
