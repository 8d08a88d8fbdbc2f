# SPDX-License-Identifier: Apache-2.0
"""The effect of ``--tree`` and of the default on ``--target``, for every command that boots a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.cli import main, options
from fuzz.cli.declare import Args
from fuzz.paths import KEPT
from harness.errors import InputError
from harness.findings.regressions import errata_of, load_regressions
from tests.support.fake_tree import fake_tree

ONE = (
    ("fuzz",),
    ("minimise", "x.scn"),
    ("confirm", "x.scn"),
    ("triage",),
    ("bench",),
    ("coverage",),
    ("cmin", "in", "out"),
    ("coverage-trial",),
    ("record", "--out", "trace", "--linux"),
    ("distil", "trace", "--out", "seeds"),
)
SEVERAL = (("replay", "x.scn"), ("reach",), ("setup",), ("matrix", "x.scn"))


def parsed(*words: str) -> Args:
    args = main.parsed(words)
    assert isinstance(args, Args)
    options.resolve_targets(args)
    return args


@pytest.mark.parametrize("words", ONE, ids=lambda words: words[0])
def test_one_target(words: tuple[str, ...], tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    assert parsed(*words).target == "kvm-nvhe"
    assert parsed(words[0], "--tree", str(tree), *words[1:]).target == f"kvm-6.12-nvhe@{tree}"
    assert parsed(words[0], "--tree", str(tree), "--target", "kvm-vhe", *words[1:]).target == f"kvm-vhe@{tree}"


@pytest.mark.parametrize("words", SEVERAL, ids=lambda words: words[0])
def test_several_targets(words: tuple[str, ...], tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    assert parsed(*words, "--tree", str(tree)).target == (f"kvm-6.12-nvhe@{tree}",)


def test_tree_in_several_modes(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    both = parsed("replay", "x.scn", "--target", "kvm-vhe", "--target", "kvm-protected", "--tree", str(tree))
    assert both.target == (f"kvm-vhe@{tree}", f"kvm-protected@{tree}")
    with pytest.raises(InputError, match="cannot be combined with --all-targets"):
        parsed("replay", "x.scn", "--all-targets", "--tree", str(tree))
    with pytest.raises(InputError, match="cannot use it as a kernel build directory"):
        parsed("fuzz", "--tree", str(tmp_path / "none"))


def test_kept_findings_are_those_of_the_nearest_target(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    kept = load_regressions(KEPT)
    assert errata_of(kept, parsed("fuzz", "--tree", str(tree)).target) == errata_of(kept, "kvm-6.12-nvhe")
