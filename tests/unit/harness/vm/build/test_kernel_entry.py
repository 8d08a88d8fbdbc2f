# SPDX-License-Identifier: Apache-2.0
"""Kernels as entries of the cache: build directories, and packages of another series than the target's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError, SetupError
from harness.vm.build.kernel_entry import archive_version, check_series, find_kernel_entry, kernel_entry
from harness.vm.cache import Cache
from harness.vm.config import load_config
from harness.vm.debian.kernel_archive import Kernel, Kernels
from harness.vm.kernels.tree import CONFIG, IMAGE
from harness.vm.tools import quiet
from tests.support.fake_tree import FAKE_RELEASE, NAMES, fake_tree


def test_build_directory(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake")
    cache, config = Cache(tmp_path / "cache"), load_config(str(tree))
    assert find_kernel_entry(config, cache) is None
    entry = kernel_entry(config, cache, quiet)
    assert find_kernel_entry(config, cache) == entry == kernel_entry(config, cache, quiet)
    assert (entry.facts["release"], entry.facts["headers"]) == (FAKE_RELEASE, str(tree))
    image = (entry.path / "Image").read_bytes()
    assert image == (tree / IMAGE).read_bytes()
    # A later build must not change the image that machines boot.
    (tree / IMAGE).write_bytes(image + b"changed")
    assert (entry.path / "Image").read_bytes() == image


@pytest.mark.parametrize("changed", [IMAGE, CONFIG])
def test_another_image_or_configuration_is_another_kernel(tmp_path: Path, changed: str) -> None:
    tree = fake_tree(tmp_path / "fake")
    cache, config = Cache(tmp_path / "cache"), load_config(str(tree))
    before = kernel_entry(config, cache, quiet)
    with (tree / changed).open("ab") as file:
        file.write(b"# changed\n")
    assert find_kernel_entry(config, cache) is None
    assert kernel_entry(config, cache, quiet).path != before.path


def test_build_directory_that_is_gone(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake")
    config = load_config(str(tree))
    shutil.rmtree(tree)
    with pytest.raises(InputError, match="no such kernel build directory"):
        kernel_entry(config, Cache(tmp_path / "cache"), quiet)


def test_kernel_without_what_a_target_needs(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake", config=[name for name in NAMES if name != "DEVMEM"])
    with pytest.raises(SetupError, match=r"CONFIG_DEVMEM=y is needed to boot: .*; shadowfuzz kernels config prints"):
        kernel_entry(load_config(str(tree)), Cache(tmp_path / "cache"), quiet)
    (tree / CONFIG).write_text("CONFIG_JUMP_LABEL=y\n")
    with pytest.raises(SetupError, match=rf"and {len(NAMES) - 2} more: shadowfuzz doctor --tree {tree}"):
        kernel_entry(load_config(str(tree)), Cache(tmp_path / "cache"), quiet)


def test_protected_mode_needs_more(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "fake", config=[name for name in NAMES if name != "JUMP_LABEL"])
    kernel_entry(load_config(str(tree)), Cache(tmp_path / "cache"), quiet)
    with pytest.raises(SetupError, match="CONFIG_JUMP_LABEL=y is needed for protected mode: without it EL2"):
        kernel_entry(load_config(f"kvm-protected@{tree}"), Cache(tmp_path / "cache"), quiet)


def test_package_of_another_series() -> None:
    config = load_config("kvm-nvhe")
    check_series(config, "linux-image-6.1.0-47-cloud-arm64", "6.1.0-47-cloud-arm64")
    with pytest.raises(SetupError) as caught:
        check_series(config, "linux-image-6.12.48+deb13-cloud-arm64", "6.12.48+deb13-cloud-arm64")
    assert str(caught.value) == (
        "linux-image-cloud-arm64 is linux-image-6.12.48+deb13-cloud-arm64 here, but target kvm-nvhe is Linux 6.1: "
        "use --target 'kvm-nvhe@6.1.*', or 'kvm-6.12-nvhe@6.12.*' for 6.12"
    )
    with pytest.raises(SetupError, match=r"use --target 'kvm-vhe@6\.1\.\*'$"):
        check_series(load_config("kvm-vhe%max"), "linux-image-6.12", "6.12.48")
    check_series(replace(config, linux=""), "linux-image-6.12", "6.12.48")


@pytest.mark.parametrize("name", ["kvm-nvhe", "kvm-vhe", "kvm-protected", "kvm-6.12-nvhe"])
def test_a_package_of_another_series_is_taken_from_the_archive(name: str) -> None:
    config = load_config(name)
    assert archive_version(config, "bookworm") == ""
    # There one meta package is 6.12, and the other does not exist.
    assert archive_version(config, "trixie") == f"{config.linux}.*"
    assert archive_version(config, "forky") == f"{config.linux}.*", "unknown release: the package may be of any series"
    assert archive_version(config, "") == "", "not Debian: only the cache is used"
    assert archive_version(load_config(f"{name}@6.12.100"), "trixie") == "6.12.100"
    assert archive_version(load_config("kvm-7.3-nvhe"), "trixie") == "7.3.*"
    assert archive_version(replace(config, linux=""), "trixie") == "", "a target file that names a package only"


def test_a_kernel_of_the_archive_is_the_newest_of_its_series() -> None:
    """On Debian 13 kvm-nvhe is the 6.1 of Debian 12: its name and its kept findings stay the same."""
    rows = [Kernel(version, version, (), (), ()) for version in ("6.1.192-1", "6.1.192-2", "6.12.117-1", "6.16.3-1")]
    found = Kernels(tuple(rows)).find(archive_version(load_config("kvm-nvhe"), "trixie"))
    assert found.version == "6.1.192-2"
