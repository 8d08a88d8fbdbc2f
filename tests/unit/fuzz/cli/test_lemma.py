# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lemma``: short campaigns in worker processes, and their output."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.campaign import lemma_run
from fuzz.cli.main import run
from harness.errors import InputError, ShadowfuzzError
from tests.support.paths import CORPUS, ROOT

LEMMAS = CORPUS / "lemmas"


def lemma(*arguments: str) -> int:
    return int(run(["lemma", *arguments]))


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_short_campaign(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    coq = tmp_path / "out.v"
    chosen = ("--pair", "low:body", "--layer", "VCPUOps", "--function", "restore_shadow_kvm_regs")
    assert lemma(*chosen, "--seconds", "4", "--jobs", "1", "--json", "--coq", str(coq)) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["comparisons"] > 1000
    assert 0.7 < result["defined_share"] <= 1
    assert result["comparisons_per_s"] > 0
    keys = {"pair", "layer", "function", "fields", "counterexample"}
    assert all(keys <= set(c) for c in result["clusters"])
    starts = [c["counterexample"] for c in result["clusters"]]
    assert {"core.0": 1} in starts
    assert {"ctxt.dirty": (1 << 64) - 1} in starts
    assert "Theorem low_body_restore_shadow_kvm_regs_1" in coq.read_text()


def test_expecting_the_stored_clusters(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--pair", "low:body", "--jobs", "1", "--json", "--expect-stored", "--function")
    assert lemma(*chosen, "prep_abort", "--seconds", "4") == 0
    assert "low:body seed 1: 2 of 2 listed clusters found" in capsys.readouterr().err
    assert lemma(*chosen, "restore_shadow_kvm_regs", "--seconds", "1", "--stored") == 0
    assert "missed" not in capsys.readouterr().err


def test_a_proof_stores_a_missing_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(LEMMAS, tmp_path / "corpus" / "lemmas")
    monkeypatch.setattr(lemma_run, "LEMMAS", tmp_path / "corpus" / "lemmas")
    path = tmp_path / "corpus" / "lemmas" / "low-body.json"
    listed = path.read_text()
    rows = json.loads(listed)
    gone = next(
        row for row in rows if row["function"] == "prep_abort" and row["counterexample"] == {"data.0": 31 << 16}
    )
    path.write_text(json.dumps([row for row in rows if row is not gone]))
    assert lemma("--pair", "low:body", "--function", "prep_abort", "--prove", "--store") == 0
    assert "refuted (2 clusters), proved equal outside them" in capsys.readouterr().out
    assert path.read_text() == listed
    proofs = json.loads((tmp_path / "corpus" / "lemmas" / "proofs" / "low-body.json").read_text())
    assert [row["clusters_by_proof"] for row in proofs if row["function"] == "prep_abort"] == [1]


def test_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--pair", "spec:low", "--function", "reset_gp_regs", "--answer")
    assert lemma(*chosen, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["answers"]
    assert (row["true"], row["repaired"]) == (False, "proved")
    assert [(c["name"], c["verdict"]) for c in row["causes"]] == [("no VM", "exact")]
    assert lemma(*chosen) == 0
    assert "false, 1 causes; outside them proved" in capsys.readouterr().out


def test_an_unlisted_cluster_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(LEMMAS, tmp_path / "lemmas")
    monkeypatch.setattr(lemma_run, "LEMMAS", tmp_path / "lemmas")
    path = tmp_path / "lemmas" / "low-body.json"
    rows = [r for r in json.loads(path.read_text()) if r["counterexample"] != {"data.0": 31 << 16}]
    path.write_text(json.dumps(rows))
    chosen = ("--pair", "low:body", "--jobs", "1", "--json", "--expect-stored", "--function")
    assert lemma(*chosen, "prep_abort", "--seconds", "4") == 1
    assert "not listed" in capsys.readouterr().err


def test_any_ordered_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert lemma("--pair", "kernel:body", "--function", "prep_wfx", "--seconds", "1", "--jobs", "1") == 0
    out = capsys.readouterr().out
    assert out.startswith("kernel:body:")
    assert "ctxt.dirty" in out


def test_stored_clusters(capsys: pytest.CaptureFixture[str]) -> None:
    assert lemma("--pair", "low:body", "--stored", "--json") == 0
    stored = json.loads((LEMMAS / "low-body.json").read_text())
    assert json.loads(capsys.readouterr().out)["clusters"] == stored


def test_nothing_stored() -> None:
    with pytest.raises(InputError, match="nothing is stored of kernel:body"):
        lemma("--pair", "kernel:body", "--stored")


def test_a_worker_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ShadowfuzzError, match="a worker failed with status 1: "):
        lemma("--function", "prep_wfx", "--seconds", "1", "--jobs", "1")


@pytest.mark.parametrize("arguments", (("--pair", "low:low"), ("--pair", "low"), ("--pair", "low:nosuch")))
def test_bad_pairs(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="LEFT:RIGHT"):
        lemma(*arguments)


def test_a_function_of_another_layer() -> None:
    with pytest.raises(InputError, match="is not in layer"):
        lemma("--layer", "VCPUOps", "--function", "prep_wfx")
