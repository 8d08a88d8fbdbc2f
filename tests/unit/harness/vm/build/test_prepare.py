# SPDX-License-Identifier: Apache-2.0
"""Preparation of a target, as far as it can be tested without fetching a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError, SetupError
from harness.vm.build.prepare import IMAGE_MAGIC, IMAGE_MAGIC_OFFSET, build_module, find_prepared, prepare, read_image
from harness.vm.cache import Cache
from harness.vm.config import load_config

IMAGE = b"MZ".ljust(IMAGE_MAGIC_OFFSET, b"\0") + IMAGE_MAGIC + bytes(100)


def test_image_facts(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(IMAGE + b"Linux version 6.1.0-1-cloud-arm64 (someone@somewhere) #1 SMP\n")
    assert read_image(path).release == "6.1.0-1-cloud-arm64"
    path.write_bytes(IMAGE)
    assert read_image(path).release == ""
    # sha256sum of the same bytes.
    assert read_image(path).sha256 == "ae12e0880b01231a98331ba6ebb4e30a67709a359f6578c159f0a7ee8218a502"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not an arm64 kernel Image"),
        (IMAGE[:IMAGE_MAGIC_OFFSET], "is not an arm64 kernel Image"),
        (b"\x7fELF".ljust(200, b"\0"), "is not an arm64 kernel Image"),
        (b"\x1f\x8b".ljust(200, b"\0"), "is compressed with gzip"),
    ],
)
def test_not_an_image(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "Image"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        # Before anything is fetched or built.
        prepare(load_config("kvm-nvhe"), kernel=path, cache=Cache(tmp_path / "cache"))
    assert caught.value.where == str(path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("path", ["/none/Image", "/", "/dev/zero", "a\0b"])
def test_unreadable_image(path: str) -> None:
    with pytest.raises(InputError, match="kernel: "):
        read_image(Path(path))


def test_find_builds_nothing(tmp_path: Path) -> None:
    assert find_prepared(load_config("kvm-nvhe"), cache=Cache(tmp_path / "cache")) is None
    assert not (tmp_path / "cache").exists()


def test_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"aarch64-linux-gnu-gcc is missing: install the Debian package gcc-aarch64"):
        prepare(load_config("kvm-nvhe"), cache=Cache(tmp_path / "cache"))
    with pytest.raises(SetupError, match=r"make is missing: install the Debian package make"):
        build_module(tmp_path, tmp_path)


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot read the agent's sources"):
        prepare(load_config("kvm-nvhe"), cache=Cache(tmp_path / "cache"), sources=tmp_path / "none")


def test_cache_below_a_path_with_a_space(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="set XDG_CACHE_HOME to a path without spaces"):
        prepare(load_config("kvm-nvhe"), cache=Cache(tmp_path / "a b"))
