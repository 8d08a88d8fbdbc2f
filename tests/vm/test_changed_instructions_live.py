# SPDX-License-Identifier: Apache-2.0
"""Each changed instruction of tests/vm/changes.py is detected, in the registers that it handles, by its seeds.

The stock kernel is clean on the seeds, and in regressions shows the divergences of expected.toml (test_corpus_live):
only further divergences count here.  tools/changed_instructions.py fuzzes each of them for up to a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.findings.regressions import load_regressions
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.kernels.kallsyms import Symbols, read_symbols
from tests.vm.changed import STOCK, page, read
from tests.vm.changes import CHANGES, Change, apply_change, changed_image
from tests.vm.running import CORPUS, REGRESSIONS, SEEDS, findings, run_all, two_at_a_time

ROOT = CORPUS.parent
EVERYTHING = {**SEEDS, **REGRESSIONS}
EXPECTED = load_regressions(CORPUS / "regressions" / "expected.toml")


@pytest.fixture(scope="module")
def stock() -> Path:
    return prepare(load_config(DEFAULT_TARGET)).kernel


@pytest.fixture(scope="module")
def symbols(stock: Path) -> Symbols:
    return read_symbols(stock)


def _known(name: str) -> set[str]:
    """Return the divergences of the stock kernel in a scenario."""
    rows = (row for row in EXPECTED if DEFAULT_TARGET in row.targets and name in row.scenarios)
    return {divergence for row in rows for divergence in row.divergences}


def _run(stock: Path, symbols: Symbols, directory: Path, change: Change) -> set[str]:
    image = changed_image(stock, change, directory, symbols)
    results = run_all(DEFAULT_TARGET, {name: EVERYTHING[name] for name in change.seeds}, kernel=image)
    image.unlink()
    return {found for name, checked in results.items() for found in findings(checked) - _known(name)}


@pytest.fixture(scope="module")
def shown(stock: Path, symbols: Symbols, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    directory = tmp_path_factory.mktemp("kernels")
    jobs = (partial(_run, stock, symbols, directory, change) for change in CHANGES)
    return dict(zip((change.name for change in CHANGES), two_at_a_time(jobs), strict=True))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_the_change_is_detected_in_its_registers(shown: Mapping[str, set[str]], change: Change) -> None:
    assert change.shows <= shown[change.name]


def test_rows_are_of_their_own_and_of_all_paths() -> None:
    assert len({change.name for change in CHANGES}) == len(CHANGES) >= 12
    assert {"save", "restore", "exception injection", "PSCI", "MMIO"} <= {change.path for change in CHANGES}


def test_one_word_changes(stock: Path, symbols: Symbols) -> None:
    before = stock.read_bytes()
    after = apply_change(before, symbols, CHANGES[0])
    assert len(after) == len(before)
    assert sum(before[at : at + 4] != after[at : at + 4] for at in range(0, len(before), 4)) == 1


def test_an_instruction_that_is_not_there_is_an_error(stock: Path, symbols: Symbols) -> None:
    row = CHANGES[0]
    gone = Change(row.name, row.path, row.function, 0x1234_5678, row.new, row.what, row.why, row.seeds, row.shows)
    with pytest.raises(SetupError, match="has no 0x12345678"):
        apply_change(stock.read_bytes(), symbols, gone)


def test_the_page_is_current_and_all_were_noticed() -> None:
    kept = read(Path(__file__).with_name("changes.json"))
    assert (ROOT / "docs" / "changed-instructions.md").read_text() == page(kept)
    rows = {row["change"]: row for row in kept["noticed"]}
    assert not rows.pop(STOCK)["divergence"]
    assert rows.keys() == {change.name for change in CHANGES}
    assert all(row["divergence"] and row["seconds"] <= 60 for row in rows.values())
    assert sum(bool(row["hidden_by"]) for row in rows.values()) >= 10, "with the signature of an erratum"
