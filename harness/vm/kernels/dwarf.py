# SPDX-License-Identifier: Apache-2.0
"""Read struct layouts and line numbers from DWARF; the only user of pyelftools."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile

from harness.arch import registers
from harness.arch.registers import Group
from harness.errors import InputError, SetupError
from harness.input_file import open_input
from harness.trace.decode import ContextLayout


def _resolve(die: DIE) -> DIE:
    """Follow typedefs and qualifiers to the type itself."""
    while die.tag in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
        die = die.get_DIE_from_attribute("DW_AT_type")
    return die


def _name(die: DIE) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return "" if attribute is None else attribute.value.decode()


def _members(struct: DIE, base: int = 0) -> Iterator[tuple[str, int, DIE]]:
    """Yield (name, byte offset, type) of each member, members of anonymous structs and unions included."""
    for member in struct.iter_children():
        if member.tag != "DW_TAG_member":
            continue
        offset = base + getattr(member.attributes.get("DW_AT_data_member_location"), "value", 0)
        kind = _resolve(member.get_DIE_from_attribute("DW_AT_type"))
        if _name(member):
            yield _name(member), offset, kind
        else:
            yield from _members(kind, offset)


def _find(path: Path, wanted: tuple[tuple[str, str], ...]) -> dict[str, DIE]:
    """Return the defining DIE of each (tag, name)."""
    found: dict[str, DIE] = {}
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        if not elf.has_dwarf_info():
            raise SetupError(f"{path} has no DWARF; the recording module must be built with -g")
        for unit in elf.get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                name = _name(die)
                if (die.tag, name) in wanted and die.has_children and name not in found:
                    found[name] = die
            if len(found) == len(wanted):
                return _materialise(found)
    missing = sorted({name for _, name in wanted} - set(found))
    raise SetupError(f"{path}: DWARF has no {', '.join(missing)}")


def _materialise(found: dict[str, DIE]) -> dict[str, DIE]:
    """Read the needed attributes while the file is open: pyelftools loads lazily."""
    for die in found.values():
        if die.tag == "DW_TAG_structure_type":
            for _, _, kind in _members(die):
                if kind.tag == "DW_TAG_structure_type":
                    list(_members(kind))
        else:
            list(die.iter_children())
    return found


_WANTED = (("DW_TAG_structure_type", "kvm_cpu_context"), ("DW_TAG_enumeration_type", "vcpu_sysreg"))


def read_layout(module: Path) -> ContextLayout:
    """Return the offset of every register of ``registers.STATE`` in ``struct kvm_cpu_context``, in this kernel build.

    SetupError: the module has no DWARF, or the kernel has no such struct, member or register.
    """
    try:
        found = _find(module, _WANTED)
    except (OSError, ELFError) as error:
        raise SetupError(f"{module}: {error}") from error
    context = found["kvm_cpu_context"]
    members = {name: (offset, kind) for name, offset, kind in _members(context)}
    core = {name: offset for name, offset, _ in _members(members["regs"][1], members["regs"][0])}
    sys_regs = members["sys_regs"][0]
    numbers = {_name(die): die.attributes["DW_AT_const_value"].value for die in found["vcpu_sysreg"].iter_children()}
    slots: list[int] = []
    for register in registers.STATE:
        if register.sys_reg is not None:
            if register.sys_reg not in numbers:
                raise SetupError(f"{module}: enum vcpu_sysreg has no {register.sys_reg}")
            slots.append(sys_regs // 8 + numbers[register.sys_reg])
        elif register.group is Group.GPR:
            slots.append(core["regs"] // 8 + int(register.name[1:]))
        else:
            slots.append(core["sp" if register.name == "sp_el0" else register.name] // 8)
    if "fp_regs" not in members:
        raise SetupError(f"{module}: struct kvm_cpu_context has no fp_regs")
    size = context.attributes["DW_AT_byte_size"].value
    return ContextLayout(size=size, slots=tuple(slots), vectors=members["fp_regs"][0])


def why_not_static_arm64(path: Path) -> str:
    """Return why a file is not a static arm64 program, and how to make it one; empty if it is."""
    try:
        with open_input(path, seekable=True) as stream:
            elf = ELFFile(stream)
            if elf["e_machine"] != "EM_AARCH64" or elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
                return f"not an arm64 program ({elf['e_machine']}, {elf['e_type']}): compile with aarch64-linux-gnu-gcc"
            if any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments()):
                return "needs shared libraries, which the target does not have: compile with -static"
    except ELFError:
        return "not an ELF program: expected a static arm64 one"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


@dataclass(frozen=True, slots=True)
class LineRow:
    """Instructions of a source line: their addresses, the file's path in the kernel tree, the line number."""

    begin: int
    end: int
    file: str
    line: int


def read_lines(vmlinux: Path, image: Path, ranges: Sequence[tuple[int, int]]) -> tuple[LineRow, ...]:
    """Return the lines of code in ranges of an ``Image``, from a ``vmlinux`` with debug information.

    Ranges and rows are offsets from the first byte of the image.  InputError: the vmlinux has no debug information, or
    is of another kernel.
    """
    try:
        with open_input(vmlinux, seekable=True) as stream:
            elf = ELFFile(stream)
            head = elf.get_section_by_name(".head.text")
            if head is None or not elf.has_dwarf_info():
                raise InputError(str(vmlinux), None, "expected a kernel with debug information, a vmlinux")
            base = head["sh_addr"]
            if not _same_code(elf, base, image, ranges[0]):
                raise InputError(str(vmlinux), None, f"is of another kernel than {image}")
            return tuple(_lines_in(elf, base, ranges))
    except (OSError, ELFError) as error:
        raise InputError(str(vmlinux), None, f"cannot be read: {error}") from error


def _same_code(elf: ELFFile, base: int, image: Path, part: tuple[int, int]) -> bool:
    """Whether a part of an image (which objcopy makes of a vmlinux) has the same bytes in both."""
    begin, end = part
    for section in elf.iter_sections():
        at = begin + base - section["sh_addr"]
        if at >= 0 and at + end - begin <= section["sh_size"] and section["sh_type"] == "SHT_PROGBITS":
            with image.open("rb") as stream:
                stream.seek(begin)
                return bool(stream.read(end - begin) == section.data()[at : at + end - begin])
    return False


def _lines_in(elf: ELFFile, base: int, ranges: Sequence[tuple[int, int]]) -> Iterator[LineRow]:
    dwarf = elf.get_dwarf_info()
    where = dwarf.get_aranges()
    units: set[int] = set()
    for entry in () if where is None else where.entries:
        first, last = entry.begin_addr - base, entry.begin_addr + entry.length - base
        if any(first < end and last > begin for begin, end in ranges):
            units.add(entry.info_offset)
    for unit in sorted(units):
        program = dwarf.line_program_for_CU(dwarf.get_CU_at(unit))
        if program is None:
            continue
        before = None
        for state in (entry.state for entry in program.get_entries() if entry.state is not None):
            if before is not None and before.address < state.address:
                begin, end = before.address - base, state.address - base
                if any(low <= begin < high for low, high in ranges):
                    yield LineRow(begin, end, _file_name(program.header, before.file), before.line)
            before = None if state.end_sequence else state


def _file_name(header: Any, number: int) -> str:
    """Return a path in the kernel's tree: DWARF 5 (6.2.4) counts files and directories from 0, older ones from 1."""
    first = 0 if header["version"] >= 5 else 1
    entry = header["file_entry"][number - first]
    directory = header["include_directory"][entry.dir_index - first].decode() if entry.dir_index >= first else ""
    path = posixpath.normpath(f"{directory}/{entry.name.decode()}")
    found = re.search(r"(?:^|/)((?:arch|virt|include)/.*)", path)
    return path if found is None else found[1]
