# SPDX-License-Identifier: Apache-2.0
"""Unpacked packages: the places of image and headers, and wrappers of their tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.kernels.files import SUFFIX, find_headers, find_image, make_relocatable, wrap_tools


def test_tools_run_with_libraries_of_their_own(tmp_path: Path) -> None:
    """Uses a real program and this machine's libraries in place of another release's."""
    true = Path("/usr/bin/true")
    if true.read_bytes()[:4] != b"\x7fELF" or not Path("/lib64/ld-linux-x86-64.so.2").exists():
        pytest.skip("an amd64 machine")
    tools, libs = tmp_path / "lib" / "linux-kbuild-9", tmp_path / "libs"
    (tools / "scripts").mkdir(parents=True)
    (libs / "lib64").mkdir(parents=True)
    (tools / "scripts" / "tool").write_bytes(Path("/usr/bin/dirname").read_bytes())
    (tools / "scripts" / "tool").chmod(0o755)
    (tools / "scripts" / "script").write_text("#!/bin/sh\n")
    with pytest.raises(SetupError, match="no loader"):
        wrap_tools(tools, libs)
    (libs / "lib64" / "ld-linux-x86-64.so.2").write_bytes(Path("/lib64/ld-linux-x86-64.so.2").read_bytes())
    (libs / "lib64" / "ld-linux-x86-64.so.2").chmod(0o755)
    libc = next(Path("/lib/x86_64-linux-gnu").glob("libc.so.6"))
    (libs / "lib64" / "libc.so.6").write_bytes(libc.read_bytes())
    assert wrap_tools(tools, libs) == 1
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    tool = moved / "lib" / "linux-kbuild-9" / "scripts" / "tool"
    assert tool.with_name("tool" + SUFFIX).is_file()
    assert subprocess.run([tool, "/a/b"], capture_output=True, text=True, check=True).stdout == "/a\n"


def test_unpacked_packages(tmp_path: Path) -> None:
    for find in (find_image, find_headers):
        with pytest.raises(SetupError):
            find(tmp_path)
    headers = tmp_path / "usr" / "src" / "linux-headers-7-cloud-arm64"
    headers.mkdir(parents=True)
    (headers / "Module.symvers").touch()
    (headers / "Makefile").write_text("KBUILD_OUTPUT=/usr/src/linux-headers-7\ninclude /usr/src/common/Makefile\n")
    assert find_headers(tmp_path) == headers
    make_relocatable(headers)
    assert (headers / "Makefile").read_text() == "KBUILD_OUTPUT=../linux-headers-7\ninclude ../common/Makefile\n"
    image = tmp_path / "usr" / "lib" / "modules" / "7" / "vmlinuz"
    image.parent.mkdir(parents=True)
    image.touch()
    assert find_image(tmp_path) == image
