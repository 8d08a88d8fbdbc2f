# SPDX-License-Identifier: Apache-2.0
"""Choice of the guidance mode of a campaign."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from fuzz.campaign.guidance import Guide, choose_guide, edges_in
from fuzz.campaign.limits import BOTH, KVM, MODEL
from harness.errors import SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.plugins import edges


def target(directory: Path, qemu: str) -> PreparedTarget:
    """Return a target that is not booted."""
    nowhere = directory / "nowhere"
    return PreparedTarget("fake", nowhere, "00" * 32, "6.1.0", "p", "1", nowhere, nowhere, nowhere, qemu=(qemu,))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up an empty cache, and a PATH with setpriv and a QEMU without plugin support, but without a compiler."""
    where = tmp_path / "bin"
    where.mkdir()
    for name in ("setpriv", "sh"):
        found = shutil.which(name)
        assert found is not None
        (where / name).symlink_to(found)
    (where / "old-qemu").write_text("#!/bin/sh\necho '-kernel bzImage'\n")
    (where / "old-qemu").chmod(0o755)
    monkeypatch.setenv("PATH", str(where))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return where


def make_tool(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_a_compiler_the_model_guides_with_a_warning(tools: Path) -> None:
    said: list[str] = []
    guide = choose_guide(None, target(tools, "old-qemu"), said.append)
    assert guide.mode == MODEL
    assert guide.kvm_off.startswith("gcc is missing: install the Debian package gcc, or run make setup")
    assert said == [f"WARNING: coverage of KVM is off, the model alone guides: {guide.kvm_off}"]


def test_without_a_c_library_the_model_guides_with_a_warning(tools: Path) -> None:
    """This is the error of gcc if only its own Debian package is installed."""
    make_tool(tools / "gcc", "echo edges.c:11:10: fatal error: string.h: No such file or directory; exit 1")
    make_tool(tools / "new-qemu", "echo '-plugin [file=]<file>'")
    said: list[str] = []
    guide = choose_guide(None, target(tools, "new-qemu"), said.append)
    assert guide.mode == MODEL
    assert "fatal error: string.h: No such file or directory; run make setup, or sudo apt-get" in guide.kvm_off
    assert said[-1] == f"WARNING: coverage of KVM is off, the model alone guides: {guide.kvm_off}"
    with pytest.raises(SetupError, match=r"string\.h"):
        choose_guide(BOTH, target(tools, "new-qemu"), lambda line: None)


@pytest.mark.parametrize("wanted", [KVM, BOTH])
def test_an_unavailable_requested_mode_is_an_error(tools: Path, wanted: str) -> None:
    with pytest.raises(SetupError, match="gcc is missing"):
        choose_guide(wanted, target(tools, "old-qemu"), lambda line: None)


def test_a_qemu_without_plugins_is_reported_before_a_boot(tools: Path) -> None:
    make_tool(tools / "gcc", "")
    with pytest.raises(SetupError, match="old-qemu does not support plugins"):
        choose_guide(KVM, target(tools, "old-qemu"), lambda line: None)


def test_guidance_by_the_model_needs_no_tools(tools: Path) -> None:
    said: list[str] = []
    assert choose_guide(MODEL, target(tools, "no-qemu"), said.append) == Guide(MODEL)
    assert said == []


def test_edges_of_all_workers_are_counted_once(tmp_path: Path) -> None:
    for number, blocks in enumerate(((0x100, 0x200), (0x200, 0x300))):
        data = bytearray(edges.SIZE)
        struct.pack_into("<Q", data, 0, edges.MAGIC)
        for place, block in enumerate(blocks):
            struct.pack_into("<II", data, edges.COUNTERS_AT + edges.EDGES + 8 * place, 0, block)
        (tmp_path / f"worker-{number}-0.edges").write_bytes(data)
    assert edges_in(tmp_path) == {(0, 0x100), (0, 0x200), (0, 0x300)}
