# SPDX-License-Identifier: Apache-2.0
"""The source of a program that is installed: which one dpkg says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.debian import source_package
from harness.vm.debian.apt import Archive
from harness.vm.debian.source_package import SourcePackage, source_of, unpack_source
from harness.vm.tools import quiet


def fake_tool(root: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / name).write_text(f"#!/bin/sh\n{script}\n")
    (root / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")


def test_a_rebuild_has_its_source_s_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "dpkg-query", "echo 'qemu 1:7.2+dfsg-7+deb12u18'", monkeypatch)
    assert source_of("qemu-system-arm") == SourcePackage("qemu", "1:7.2+dfsg-7+deb12u18")


def test_what_dpkg_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "dpkg-query", "exit 1", monkeypatch)
    with pytest.raises(SetupError, match="dpkg does not know of qemu-system-arm"):
        source_of("qemu-system-arm")


def test_a_source_that_the_archive_has_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def archive(state: Path, *_: object, kind: str) -> Archive:
        assert kind == "deb-src"
        return Archive(state, "amd64", "", quiet)

    monkeypatch.setattr(source_package, "open_archive", archive)
    fake_tool(tmp_path, "apt-get", "echo 'E: Unable to find a source package for qemu'; exit 100", monkeypatch)
    fake_tool(tmp_path, "dpkg-source", "exit 9", monkeypatch)
    with pytest.raises(SetupError, match="from Debian's archive: E: Unable to find a source package for qemu"):
        unpack_source(SourcePackage("qemu", "1:1"), tmp_path / "tree", Cache(tmp_path / "cache"))


def test_what_was_fetched_is_unpacked_and_the_lists_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_package, "open_archive", lambda state, *_, **__: Archive(state, "amd64", "", quiet))
    fake_tool(tmp_path, "apt-get", "touch qemu_7.2+dfsg-7.dsc qemu_7.2+dfsg.orig.tar.xz", monkeypatch)
    fake_tool(tmp_path, "dpkg-source", 'mkdir "$4" && cp "$3" "$4"/dsc', monkeypatch)
    cache = Cache(tmp_path / "cache")
    unpack_source(SourcePackage("qemu", "1:7.2+dfsg-7"), tmp_path / "tree", cache)
    assert (tmp_path / "tree" / "dsc").exists() and not (cache.root / "apt-source").exists()
