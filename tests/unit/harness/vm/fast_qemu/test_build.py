# SPDX-License-Identifier: Apache-2.0
"""The build of the fast QEMU, as far as it can be seen without QEMU's source."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.debian.source_package import SourcePackage
from harness.vm.fast_qemu import build
from harness.vm.fast_qemu.build import OURS, build_fast_qemu, edit_source, find_fast_qemu, run_ninja
from harness.vm.fast_qemu.edits import Change, Edit

EDIT = Edit("a/b.c", "", "two", "instead", "2")
CHANGE = Change((EDIT,), ("ARM_VIRT", "SERIAL_PCI"))


def source_tree(root: Path) -> Path:
    for name in ("a", "include", "configs/devices/aarch64-softmmu"):
        (root / name).mkdir(parents=True)
    (root / "a" / "b.c").write_text("one two three\n")
    return root


def test_edits_and_files_of_ours_are_put_in(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    edit_source(tree, CHANGE, tmp_path / "originals")
    assert (tree / "a" / "b.c").read_text() == "one 2 three\n"
    assert {path.name for path in (tree / "include" / "shadowfuzz").iterdir()} == set(OURS)
    devices = (tree / "configs" / "devices" / "aarch64-softmmu" / "shadowfuzz.mak").read_text().splitlines()
    assert devices == ["CONFIG_ARM_VIRT=y", "CONFIG_SERIAL_PCI=y"]


def test_another_source_is_left_as_it_is(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    with pytest.raises(SetupError, match=r"a/b\.c: 'four' is there 0 times"):
        edit_source(tree, Change((EDIT, Edit("a/b.c", "", "four", "instead", "4")), ()), tmp_path / "originals")
    with pytest.raises(SetupError, match=r"gone\.c: No such file"):
        edit_source(tree, Change((Edit("gone.c", "", "four", "instead", "4"),), ()), tmp_path / "originals")
    assert (tree / "a" / "b.c").read_text() == "one two three\n" and not (tree / "include" / "shadowfuzz").exists()


def test_a_source_that_was_edited_is_edited_anew(tmp_path: Path) -> None:
    tree, originals = source_tree(tmp_path), tmp_path / "originals"
    edit_source(tree, CHANGE, originals)
    before = (tree / "a" / "b.c").stat().st_mtime_ns
    edit_source(tree, CHANGE, originals)
    assert (tree / "a" / "b.c").stat().st_mtime_ns == before, "else it would be compiled again"
    edit_source(tree, Change((Edit("a/b.c", "", "two", "instead", "zwei"),), ()), originals)
    assert (tree / "a" / "b.c").read_text() == "one zwei three\n"


NINJA = """\
#!/bin/sh
for n in 1 2 3; do echo "[$n/3] Compiling $n"; done
{last}
"""


def fake_ninja(root: Path, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    (root / "ninja").write_text(NINJA.format(last=last))
    (root / "ninja").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")


def test_the_steps_of_a_build_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ninja(tmp_path, monkeypatch, "")
    said: list[str] = []
    ticks = iter(range(0, 1000, 20))
    run_ninja(tmp_path, "x", said.append, lambda: float(next(ticks)))
    assert said == [f"{n} of 3 steps of QEMU's build" for n in (1, 2, 3)]


def test_the_compiler_s_complaint_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ninja(tmp_path, monkeypatch, "echo 'FAILED: x.o'; echo 'x.c:1: error: no such thing'; exit 1")
    with pytest.raises(SetupError, match=r"building QEMU failed: x\.c:1: error: no such thing"):
        run_ninja(tmp_path, "x")


def test_a_series_without_edits_and_a_qemu_that_dpkg_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "source_of", lambda _: SourcePackage("qemu", "1:8.1+dfsg-1"))
    for call in (find_fast_qemu, build_fast_qemu):
        with pytest.raises(SetupError, match=r"no edits for QEMU 8\.1"):
            call(Cache(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_build_is_of_one_version_and_of_these_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    monkeypatch.setattr(build, "source_of", lambda _: SourcePackage("qemu", "1:7.2+dfsg-7+deb12u18"))
    monkeypatch.setattr(build, "_require_all", lambda: None)

    def built(plan: object, place: Path, _cache: Cache, _progress: object) -> dict[str, object]:
        (place / "qemu-system-aarch64").write_text("program")
        return {"version": "7.2.22", "source": "1:7.2+dfsg-7+deb12u18"}

    monkeypatch.setattr(build, "_build", built)
    assert find_fast_qemu(cache) is None
    fast = build_fast_qemu(cache)
    assert fast == find_fast_qemu(cache) and fast.version == "7.2.22" and len(fast.sha256) == 64
    monkeypatch.setattr(build, "source_of", lambda _: SourcePackage("qemu", "1:7.2+dfsg-7+deb12u19"))
    assert find_fast_qemu(cache) is None, "the machine's QEMU is another one now"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "source_of", lambda _: SourcePackage("qemu", "1:7.2+dfsg-7+deb12u18"))
    monkeypatch.setattr(build, "TOOLS", (("no-such-tool", "no-such-package"),))
    with pytest.raises(SetupError, match="install the Debian package no-such-package"):
        build_fast_qemu(Cache(tmp_path))
    monkeypatch.setattr(build, "TOOLS", ())
    monkeypatch.setattr(build, "LIBRARIES", (("no-such.h", "no-such-package"),))
    with pytest.raises(SetupError, match=r"no-such\.h is missing: install the Debian package no-such-package"):
        build_fast_qemu(Cache(tmp_path))
