# SPDX-License-Identifier: Apache-2.0
"""Read struct layouts and line numbers from DWARF; the only user of pyelftools."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

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
    with _kernel(vmlinux) as elf:
        base = _base(elf, vmlinux)
        if not _same_code(elf, base, image, ranges[0]):
            raise InputError(str(vmlinux), None, f"is of another kernel than {image}")
        return tuple(_lines_in(elf, base, ranges))


def read_function_line(vmlinux: Path, image: Path, function: str) -> tuple[str, int] | None:
    """Return the file and line where a kernel's function begins; None: debug information does not have the function.

    ``vmlinux`` may be without code, as what ``objcopy --only-keep-debug`` makes.  InputError: as :func:`read_lines`.
    """
    with _kernel(vmlinux) as elf:
        base = _base(elf, vmlinux)
        table = elf.get_section_by_name(".symtab")
        found = (table.get_symbol_by_name(function) if isinstance(table, SymbolTableSection) else None) or ()
        code = [symbol for symbol in found if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]]
        if not code:
            return None
        begin = code[0]["st_value"] - base
        part = (begin, begin + code[0]["st_size"])
        if not _same_code(elf, base, image, part):
            raise InputError(str(vmlinux), None, f"is of another kernel than {image}")
        dwarf = elf.get_dwarf_info()
        places = (_declared_at(dwarf, unit, function) for unit in _units(dwarf, base, (part,)))
        return next((place for place in places if place is not None), None)


def _declared_at(dwarf: DWARFInfo, unit: CompileUnit, function: str) -> tuple[str, int] | None:
    """Return the file and line that have a function's name: its first instruction may be a macro's of another file."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return None
    for die in unit.get_top_DIE().iter_children():
        if die.tag == "DW_TAG_subprogram" and _name(die) == function and "DW_AT_decl_line" in die.attributes:
            file, line = (int(die.attributes[f"DW_AT_decl_{part}"].value) for part in ("file", "line"))
            return _file_name(program.header, file), line
    return None


_DAMAGED = (
    *(OSError, ELFError, DWARFError, ValueError, LookupError, TypeError),
    *(AttributeError, AssertionError, ArithmeticError, MemoryError, RecursionError),
)
"""What pyelftools raises of a damaged file; it does not say."""


@contextmanager
def _kernel(vmlinux: Path) -> Iterator[ELFFile]:
    """Open a kernel; what is no ELF file, or a damaged one, is an InputError."""
    try:
        with open_input(vmlinux, seekable=True) as stream:
            yield ELFFile(stream)
    except _DAMAGED as error:
        raise InputError(str(vmlinux), None, f"cannot be read: {error or type(error).__name__}") from error


def _base(elf: ELFFile, vmlinux: Path) -> int:
    """Return the address of the image's first byte.  InputError: it is no kernel with debug information."""
    head = elf.get_section_by_name(".head.text")
    if head is None or not elf.has_dwarf_info():
        raise InputError(str(vmlinux), None, "expected a kernel with debug information, a vmlinux")
    return int(head["sh_addr"])


def _same_code(elf: ELFFile, base: int, image: Path, part: tuple[int, int]) -> bool:
    """Whether a part of an image (which objcopy makes of a vmlinux) has the same bytes in both.

    A file with debug information only has no code: its build id is compared.
    """
    begin, end = part
    for section in elf.iter_sections():
        at = begin + base - section["sh_addr"]
        if at >= 0 and at + end - begin <= section["sh_size"] and section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
            if section["sh_type"] == "SHT_NOBITS":
                identity = _build_id(elf)
                return bool(identity) and identity in image.read_bytes()
            with image.open("rb") as stream:
                stream.seek(begin)
                return bool(stream.read(end - begin) == section.data()[at : at + end - begin])
    return False


def _build_id(elf: ELFFile) -> bytes:
    """Return what the linker named a kernel by, empty if it did not (ld(1), --build-id)."""
    for section in elf.iter_sections():
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return bytes.fromhex(note["n_desc"])
    return b""


def _lines_in(elf: ELFFile, base: int, ranges: Sequence[tuple[int, int]]) -> Iterator[LineRow]:
    dwarf = elf.get_dwarf_info()
    for unit in _units(dwarf, base, ranges):
        yield from _lines_of(dwarf, unit, base, ranges)


def _lines_of(dwarf: DWARFInfo, unit: CompileUnit, base: int, ranges: Sequence[tuple[int, int]]) -> Iterator[LineRow]:
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    before = None
    for state in (entry.state for entry in program.get_entries() if entry.state is not None):
        if before is not None and before.address < state.address:
            begin, end = before.address - base, state.address - base
            if any(low <= begin < high for low, high in ranges):
                yield LineRow(begin, end, _file_name(program.header, before.file), before.line)
        before = None if state.end_sequence else state


def _units(dwarf: DWARFInfo, base: int, ranges: Sequence[tuple[int, int]]) -> Iterator[CompileUnit]:
    """Yield the compilation units that have code in ranges; where no table says so (clang's), all units of KVM's."""
    where = dwarf.get_aranges()
    if where is None:
        yield from (unit for unit in dwarf.iter_CUs() if _KVM_UNIT.search(_name(unit.get_top_DIE())))
        return
    units: set[int] = set()
    for entry in where.entries:
        first, last = entry.begin_addr - base, entry.begin_addr + entry.length - base
        if any(first < end and last > begin for begin, end in ranges):
            units.add(entry.info_offset)
    yield from map(dwarf.get_CU_at, sorted(units))


_KVM_UNIT = re.compile(r"(^|/)(arch/arm64|virt)/kvm/")


def _file_name(header: Any, number: int) -> str:
    """Return a path in the kernel's tree: DWARF 5 (6.2.4) counts files and directories from 0, older ones from 1."""
    first = 0 if header["version"] >= 5 else 1
    entry = header["file_entry"][number - first]
    directory = header["include_directory"][entry.dir_index - first].decode() if entry.dir_index >= first else ""
    path = posixpath.normpath(f"{directory}/{entry.name.decode()}")
    found = re.search(r"(?:^|/)((?:arch|virt|include)/.*)", path)
    return path if found is None else found[1]
