# SPDX-License-Identifier: Apache-2.0
"""Kernel build directories: the identity of the kernel, and one sentence for each missing part."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.errors import InputError, SetupError
from harness.vm.kernels.tree import CONFIG, IMAGE, RELEASE, SYMBOLS, make_command, read_tree, tree_path
from tests.support.fake_tree import FAKE_RELEASE, fake_tree


def test_what_identifies_a_kernel(tmp_path: Path) -> None:
    found = read_tree(fake_tree(tmp_path / "fake", config=("KVM",)))
    assert (found.release, found.symbols, found.clang) == (FAKE_RELEASE, "Module.symvers", False)
    assert found.image == tmp_path / "fake" / IMAGE
    assert found.image_sha256 == hashlib.sha256(found.image.read_bytes()).hexdigest()
    assert found.config_sha256 == hashlib.sha256(b"CONFIG_KVM=y\n").hexdigest()


def test_image_alone_and_clang(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake", config=("CC_IS_CLANG",))
    (tree / SYMBOLS[0]).rename(tree / SYMBOLS[1])
    found = read_tree(tree)
    assert (found.symbols, found.clang) == ("vmlinux.symvers", True)


@pytest.mark.parametrize("gone", [RELEASE, CONFIG, IMAGE, SYMBOLS[0], "Makefile"])
def test_a_part_that_is_missing(tmp_path: Path, gone: str) -> None:
    tree = fake_tree(tmp_path / "fake")
    (tree / gone).unlink()
    with pytest.raises(SetupError) as caught:
        read_tree(tree)
    assert gone in str(caught.value) and make_command(tree) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_image_of_another_build(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake")
    (tree / RELEASE).write_text("6.13.0\n")
    with pytest.raises(SetupError, match=r"image is Linux 6\.12\.117-fake, the directory is configured for 6\.13\.0"):
        read_tree(tree)


@pytest.mark.parametrize("name", ["none", "file", "a b", "a@b", "a%b", "a:b", "a\0b"])
def test_what_is_no_build_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    for odd in ("a b", "a@b", "a%b", "a:b"):
        (tmp_path / odd).mkdir()
    with pytest.raises(InputError) as caught:
        tree_path(tmp_path / name, "here")
    assert caught.value.where == "here"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert tree_path(tmp_path / "link", "here") == (tmp_path / "real").resolve()
