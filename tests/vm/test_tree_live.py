# SPDX-License-Identifier: Apache-2.0
"""A kernel build directory as a target: it shows the findings of the target that it is like, or is a set-up error."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fuzz.cli.main import main
from fuzz.corpus.files import find_scenarios
from fuzz.paths import SEEDS
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from harness.vm.kernels.kallsyms import read_symbols
from harness.vm.kernels.tree import IMAGE
from tests.vm.changes import CHANGES, changed_image
from tests.vm.patching import PATCHES, apply
from tests.vm.trees import debian_tree

LIKE = "kvm-6.12-nvhe"
KEPT = "corpus/regressions/mmio_load_signed_word.scn"


def test_a_build_directory_runs_as_the_target_of_its_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = debian_tree(LIKE, tmp_path)
    own, stock = prepare(load_config(str(tree))), prepare(load_config(LIKE))
    assert (own.kernel_sha256, own.kernel_release) == (stock.kernel_sha256, stock.kernel_release)
    assert own.module_elf != stock.module_elf, "the module is built with the directory's own headers"
    assert main(["replay", KEPT, "--tree", str(tree)]) == 1
    shown = capsys.readouterr().out
    assert f"{LIKE}@{tree}: Linux {own.kernel_release}" in shown
    assert "mmio-load-loses-sign" in shown, "the errata of the target that it is like decide the cause"


def test_a_module_that_does_not_load_is_no_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The headers of 6.1 with the image of 6.12, as after an incomplete build.
    tree = debian_tree("kvm-nvhe", tmp_path / "tree", image_of=LIKE)
    out = tmp_path / "out"
    for command in (
        ["replay", KEPT],
        ["fuzz", "--seconds", "5", "--jobs", "1", "--coverage", "model", "--out", str(out)],
    ):
        assert main([*command, "--tree", str(tree)]) == 3
        shown = capsys.readouterr()
        # A campaign's summary has the reason why its workers stopped.
        assert "the recording module does not load: " in shown.out + shown.err
    assert not list(out.rglob("crash-*")), "no finding"


def test_what_a_patch_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, report = debian_tree(LIKE, tmp_path), tmp_path / "ci.xml"
    few = [f"corpus/{name}.scn" for name in ("regressions/mmio_load_signed_word", "seeds/mmio_store_byte_and_half")]
    argv = ["ci", *few, "--no-campaign", "--junit", str(report), "--tree", str(tree)]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no change"
    assert ElementTree.fromstring(report.read_text()).get("failures") == "0"
    # KVM advances PC by 8 after an access that userspace completes.
    image, places = apply((tree / IMAGE).read_bytes(), next(patch for patch in PATCHES if patch.jumps))
    assert places > 0
    (tree / IMAGE).unlink()
    (tree / IMAGE).write_bytes(image)
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert re.search(r"^  \w+\.pc/", out, re.MULTILINE), out
    assert ElementTree.fromstring(report.read_text()).get("failures") == "2"


ONE_LINE = ("inject-spsr", "mmio-half", "psci-migrate-info", "reset-pstate", "save-mair_el1")
"""Rows of tests/vm/changes.py, one for each part of KVM in the table of docs/your-kernel.md."""


@pytest.mark.timeout(900)
def test_one_changed_instruction_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = debian_tree("kvm-nvhe", tmp_path)
    stock = (tree / IMAGE).resolve()
    symbols = read_symbols(stock)
    for name in ONE_LINE:
        change = next(row for row in CHANGES if row.name == name)
        (tree / IMAGE).unlink()
        changed_image(stock, change, tmp_path, symbols).rename(tree / IMAGE)
        scenarios = [str(path) for path in find_scenarios(SEEDS) if path.stem in change.seeds]
        assert main(["ci", *scenarios, "--no-campaign", "--tree", str(tree)]) == 1, name
        out = capsys.readouterr().out
        new = out.partition("new problems")[2].partition("\nfixed")[0]
        assert any(f"  {shown}/" in new for shown in change.shows), f"{name}: {out}"
