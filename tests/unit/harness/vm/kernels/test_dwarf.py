# SPDX-License-Identifier: Apache-2.0
"""Source lines of executed code: read from a small compiled kernel, counted from synthetic edges."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.coverage.kvm_code import Covered, files
from harness.errors import InputError
from harness.vm.build.prepare import CROSS
from harness.vm.kernels.dwarf import LineRow, read_lines
from harness.vm.kernels.kallsyms import LOAD_OFFSET

SOURCE = """\
__attribute__((section(".head.text"))) void head(void) {}
int demo(int x)
{
	if (x)
		return 1;
	return 2;
}
"""
SCRIPT = """\
SECTIONS {
. = 0xffff800008000000;
.head.text : { *(.head.text) }
. = ALIGN(64);
.text : { *(.text) }
/DISCARD/ : { *(.eh_frame) *(.note*) }
}
"""


def build(directory: Path, source: str = SOURCE) -> tuple[Path, Path]:
    """Compile a kernel of one function; return it with debug information, and as an image."""
    tree = directory / "arch" / "arm64" / "kvm"
    tree.mkdir(parents=True)
    (tree / "demo.c").write_text(source)
    (directory / "script").write_text(SCRIPT)
    vmlinux, image = directory / "vmlinux", directory / "Image"
    flags = (
        "-g",
        "-O0",
        "-fno-asynchronous-unwind-tables",
        "-nostdlib",
        "-static",
        "-Wl,--build-id=none",
        "-T",
        "script",
    )
    argv = [f"{CROSS}gcc", *flags, "-o", str(vmlinux), "arch/arm64/kvm/../kvm/demo.c"]
    subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    subprocess.run([f"{CROSS}objcopy", "-O", "binary", str(vmlinux), str(image)], check=True)
    return vmlinux, image


def test_lines_of_a_kernel(tmp_path: Path) -> None:
    vmlinux, image = build(tmp_path)
    rows = read_lines(vmlinux, image, [(64, image.stat().st_size)])
    assert {row.file for row in rows} == {"arch/arm64/kvm/demo.c"}
    assert {row.line for row in rows} == {3, 4, 5, 6, 7}
    assert min(row.begin for row in rows) == 64
    assert max(row.end for row in rows) <= image.stat().st_size


def test_a_vmlinux_of_another_kernel_is_refused(tmp_path: Path) -> None:
    vmlinux, _ = build(tmp_path / "one")
    _, image = build(tmp_path / "other", SOURCE.replace("return 2", "return 3"))
    with pytest.raises(InputError, match="is of another kernel"):
        read_lines(vmlinux, image, [(64, 96)])


def test_what_is_no_vmlinux_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"no ELF at all")
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(path, path, [(0, 4)])
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path / "nowhere", path, [(0, 4)])


def test_a_line_is_reached_where_one_of_its_instructions_is() -> None:
    rows = [
        LineRow(0x10, 0x18, "arch/arm64/kvm/mmu.c", 7),
        LineRow(0x18, 0x1C, "arch/arm64/kvm/mmu.c", 8),
        LineRow(0x20, 0x24, "arch/arm64/kvm/mmu.c", 9),
        LineRow(0x14, 0x18, "include/linux/list.h", 1),
        LineRow(0x14, 0x18, "virt/kvm/kvm_main.c", 0),
    ]
    one = Covered("one", frozenset({(0, LOAD_OFFSET + 0x14)}), frozenset(), frozenset())
    (found,) = files(rows, [one], {LOAD_OFFSET + 0x14: 8})
    assert (found.file, found.reached, found.of) == ("arch/arm64/kvm/mmu.c", {7, 8}, {7, 8, 9})
