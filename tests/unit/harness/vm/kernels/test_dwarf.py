# SPDX-License-Identifier: Apache-2.0
"""Source lines of executed code: read from a small compiled kernel, counted from synthetic edges."""

from __future__ import annotations

import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from harness.coverage.kvm_code import Covered, files
from harness.errors import InputError
from harness.vm.build.prepare import CROSS
from harness.vm.kernels.dwarf import LineRow, read_function_line, read_lines
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
.notes : { *(.note.gnu.build-id) }
/DISCARD/ : { *(.eh_frame) *(.note*) }
}
"""


def build(directory: Path, source: str = SOURCE, *, identity: str = "none") -> tuple[Path, Path]:
    """Compile a kernel of one function; return it with debug information, and as an image.

    ``identity`` is its build id, ``0x`` and hexadecimal digits, which the image has after the code.
    """
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
        f"-Wl,--build-id={identity}",
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


def test_where_a_function_begins(tmp_path: Path) -> None:
    vmlinux, image = build(tmp_path, identity="0x" + "5a" * 20)
    assert read_function_line(vmlinux, image, "demo") == ("arch/arm64/kvm/demo.c", 2)
    assert read_function_line(vmlinux, image, "another") is None
    debug = tmp_path / "vmlinux.debug"
    subprocess.run([f"{CROSS}objcopy", "--only-keep-debug", str(vmlinux), str(debug)], check=True)
    assert read_function_line(debug, image, "demo") == ("arch/arm64/kvm/demo.c", 2)
    _, other = build(tmp_path / "other", identity="0x" + "5b" * 20)
    with pytest.raises(InputError, match="is of another kernel"):
        read_function_line(debug, other, "demo")


def test_where_a_function_begins_without_a_table_of_ranges(tmp_path: Path) -> None:
    vmlinux, image = build(tmp_path)
    bare = tmp_path / "vmlinux.bare"  # as clang writes it
    subprocess.run([f"{CROSS}objcopy", "-R", ".debug_aranges", str(vmlinux), str(bare)], check=True)
    assert read_function_line(bare, image, "demo") == ("arch/arm64/kvm/demo.c", 2)


def test_a_damaged_vmlinux_is_refused(tmp_path: Path) -> None:
    vmlinux, image = build(tmp_path)
    data, draw = vmlinux.read_bytes(), random.Random(7)
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 4, 16))):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
        vmlinux.write_bytes(damaged[: draw.choice((len(data), draw.randrange(len(data))))])
        with suppress(InputError):
            read_function_line(vmlinux, image, "demo")
            read_lines(vmlinux, image, [(64, image.stat().st_size)])


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
