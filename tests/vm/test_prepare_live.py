# SPDX-License-Identifier: Apache-2.0
"""Results of `prepare` for each target: built once, of one release, with the layouts that the host needs."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.vm.build.initramfs import read_cpio
from harness.vm.build.prepare import find_prepared, prepare, read_image
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config
from harness.vm.kernels.dwarf import read_layout
from harness.vm.target import layout_of


@pytest.mark.parametrize("name", list_configs())
def test_target_is_whole(name: str) -> None:
    target = prepare(load_config(name))
    facts = read_image(target.kernel)
    assert (facts.sha256, facts.release) == (target.kernel_sha256, target.kernel_release)
    # From 6.19 on the image is in a separate package.
    assert target.package in {f"linux-{kind}-{target.kernel_release}" for kind in ("image", "binary")}
    members = {member.path: member.data for member in read_cpio(target.initrd.read_bytes())}
    assert members["init"].startswith(b"\x7fELF")
    # The kernel compares this with its own release before it loads the module.
    vermagic = f"vermagic={target.kernel_release} ".encode()
    assert vermagic in members["probe.ko"]
    assert vermagic in target.module_elf.read_bytes()
    assert b".debug_info" in target.module_elf.read_bytes()
    assert b".debug_info" not in members["probe.ko"]
    assert find_prepared(load_config(name)) == target


def test_another_image_of_the_same_release(tmp_path: Path) -> None:
    config = load_config("kvm-nvhe")
    own = prepare(config)
    patched = tmp_path / "Image"
    patched.write_bytes(own.kernel.read_bytes() + b"patched")
    target = prepare(config, kernel=patched)
    assert target.kernel == patched
    assert target.kernel_sha256 == hashlib.sha256(patched.read_bytes()).hexdigest() != own.kernel_sha256
    assert (target.initrd, target.module_elf) == (own.initrd, own.module_elf)


def test_image_of_another_release_is_refused() -> None:
    other = prepare(load_config("kvm-6.12-nvhe")).kernel
    with pytest.raises(InputError, match=r"is Linux 6\.12\..*; target kvm-nvhe and its recording module are 6\.1\."):
        prepare(load_config("kvm-nvhe"), kernel=other)


def test_changed_sources_are_compiled_again(tmp_path: Path) -> None:
    """Uses a separate cache with the real kernel entry, so that nothing is fetched."""
    config = load_config("kvm-nvhe")
    before = prepare(config)
    cache = Cache(tmp_path / "cache")
    cache.root.mkdir()
    kernel_entry = before.kernel.parent
    (cache.root / kernel_entry.name).symlink_to(kernel_entry)
    sources = tmp_path / "guest"
    shutil.copytree(Path(__file__).parents[2] / "harness" / "vm" / "guest", sources)
    first = prepare(config, cache=cache, sources=sources)
    assert first.initrd.parent.parent == cache.root != default_root(os.environ)
    assert prepare(config, cache=cache, sources=sources) == first
    (sources / "agent.c").write_text((sources / "agent.c").read_text() + "\n/* changed */\n")
    assert prepare(config, cache=cache, sources=sources).initrd != first.initrd


def test_the_layout_beside_the_module_is_what_its_dwarf_says() -> None:
    prepared = prepare(load_config(DEFAULT_TARGET))
    assert layout_of(prepared) == read_layout(prepared.module_elf)
