# SPDX-License-Identifier: Apache-2.0
"""The theory and the exported counterexamples, as coqc takes them: closed theorems, no axiom."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.lemma.case import case_of
from harness.lemma.clusters import cluster_of, load
from harness.lemma.compare_levels import Question
from harness.lemma.coq import INDEX, export, theorem_names
from tests.support.paths import CORPUS, ROOT

LEMMAS, THEORY = CORPUS / "lemmas", ROOT / "harness" / "lemma" / "theory"
PROOF = [c for pair in ("low-body", "spec-low") for c in load(LEMMAS / f"{pair}.json")]
PROOFS = ("Repaired", "Refined")
REPAIRED = tuple(
    name for file in PROOFS for name in re.findall(r"^Theorem (\w+)", (THEORY / f"{file}.v").read_text(), re.M)
)


def coqc(directory: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["coqc", "-q", "-R", ".", "Shadow", f"{name}.v"], cwd=directory, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("theory")
    for name in ("Model", *PROOFS):
        shutil.copy(THEORY / f"{name}.v", directory)
    (directory / "Refuted.v").write_text(export(PROOF))
    for name in ("Model", *PROOFS, "Refuted"):
        done = coqc(directory, name)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return directory


def test_every_counterexample_is_a_theorem_and_no_axiom_is_used(compiled: Path) -> None:
    names = theorem_names(export(PROOF))
    assert len(names) == len(PROOF)
    asked = [*names, *REPAIRED]
    lines = ["From Shadow Require Import Model Repaired Refined Refuted.", *(f"Print Assumptions {n}." for n in asked)]
    (compiled / "Axioms.v").write_text("\n".join(lines) + "\n")
    done = coqc(compiled, "Axioms")
    assert done.stdout.splitlines() == ["Closed under the global context"] * len(asked)


def test_the_repaired_statements() -> None:
    assert {"save_low_body", "save_spec_low", "restore_low_body", "restore_spec_low"} <= set(REPAIRED)
    assert {path.stem for path in THEORY.glob("*.v")} == {"Model", *PROOFS}
    for path in THEORY.glob("*.v"):
        assert not re.search(
            r"\b(Admitted|Abort|Axiom|Parameter|admit)\b", re.sub(r"\(\*.*?\*\)", "", path.read_text())
        )


def test_a_wrong_value_is_not_accepted(compiled: Path) -> None:
    text = export(PROOF[:1]).replace("data_log d 1 = 0 /\\", "data_log d 1 = 5 /\\")
    assert text != export(PROOF[:1])
    (compiled / "Wrong.v").write_text(text)
    assert coqc(compiled, "Wrong").returncode != 0


def test_each_field_has_an_index_of_its_own() -> None:
    assert len(set(INDEX.values())) == len(INDEX)


def test_tables_that_are_there_are_in_the_state(compiled: Path) -> None:
    question = Question(("low", "body"), "restore_shadow_kvm_regs")
    cluster = cluster_of(question, case_of({"core.0": 0x7000 // 8, "core.1": 0x5003, "pool.tables": 3}))
    assert cluster is not None
    text = export([cluster])
    assert "(fun i j k => ((i =? 0) && (j =? 0) && (k =? 0)))" in text
    (compiled / "Tables.v").write_text(text)
    assert coqc(compiled, "Tables").returncode == 0


def test_level_kernel_has_no_theorem() -> None:
    kernel = export(load(LEMMAS / "spec-kernel.json")[:3])
    assert theorem_names(kernel) == ()
    assert kernel.count("Level kernel has no Coq side") == 3
