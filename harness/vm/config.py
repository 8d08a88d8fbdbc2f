# SPDX-License-Identifier: Apache-2.0
"""Read one target machine from ``qemu_configs/NAME.toml`` into a frozen value.

The keys are rows of :data:`KEYS`; a file that violates them gives one error with its line number.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from harness.arch.cpu_models import CPUS
from harness.errors import InputError
from harness.input_file import open_input
from harness.vm.debian.versions import linux_version
from harness.vm.kernels.tree import read_release, tree_path

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout that this package is installed from (always editable, by ``make setup``)."""

CONFIG_DIR = PROJECT / "qemu_configs"
DEFAULT_TARGET = "kvm-nvhe"
MAX_CONFIG_BYTES = 64 * 1024


class Mode(Enum):
    """KVM's mode on the machine; it is compared with KVM's boot message."""

    NVHE = "nvhe"
    VHE = "vhe"
    PROTECTED = "protected"


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """One machine to run: the hardware that QEMU emulates and the kernel that it boots.

    `memory_mib` is all RAM, its last `shared_mib` are shared by guest and host and not used by the kernel; `machine`
    are options of QEMU's ``-M virt``; `cmdline` are words added to the kernel command line.  `kernel_version`, if set,
    selects a kernel of the whole archive instead of `kernel_package`: a release or package version, or a prefix of one.
    `qemu`, if set, is a version of QEMU, or a prefix of one, instead of the installed QEMU.  `linux` is the series that
    `kernel_package` must have (empty: any).  `kernel_tree`, if set, is a kernel build directory instead of both.
    `like` is the project's target whose kept findings apply (empty: its own), the part of its name before the ``@``.
    `fast_qemu`: its campaigns run on the fast QEMU (:mod:`harness.vm.fast_qemu`), if there is one.
    """

    name: str
    summary: str
    mode: Mode
    cpu: str
    machine: tuple[str, ...]
    memory_mib: int
    shared_mib: int
    kernel_package: str
    cmdline: tuple[str, ...]
    kernel_version: str = ""
    qemu: str = ""
    linux: str = ""
    kernel_tree: Path | None = None
    like: str = ""
    fast_qemu: bool = False

    @property
    def machine_argument(self) -> str:
        """The argument of QEMU's ``-M``."""
        return ",".join(("virt", *self.machine))


Parse = Callable[[object], object]
"""Return the value of a key as the dataclass holds it; ValueError if it is invalid."""


def _text(pattern: str) -> Parse:
    compiled = re.compile(pattern)

    def parse(value: object) -> object:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise ValueError
        return value

    return parse


def _mebibytes(least: int, most: int) -> Parse:
    def parse(value: object) -> object:
        # bool is an int in Python, but `memory_mib = true` is a mistake.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _truth(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _words(pattern: str) -> Parse:
    one = _text(pattern)

    def parse(value: object) -> object:
        if not isinstance(value, list):
            raise ValueError
        return tuple(one(item) for item in value)

    return parse


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration file: its name, the expected value (for the error), its parser."""

    name: str
    expected: str
    parse: Parse
    optional: bool = False


KERNEL_VERSION = re.compile(r"\d[A-Za-z0-9.+~:-]{0,63}(\.\*)?")
"""Argument of :meth:`harness.vm.debian.kernel_archive.Kernels.find`."""

QEMU_VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}")
"""Argument of :func:`harness.vm.qemu_versions.obtain`."""

KEYS: tuple[Key, ...] = (
    Key("summary", "a line of text", _text(r"[^\x00-\x1f\x7f]{1,200}")),
    Key("mode", "one of " + ", ".join(f'"{mode.value}"' for mode in Mode), Mode),
    Key("cpu", 'a QEMU CPU model such as "cortex-a72"', _text(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")),
    Key("machine", 'a list of "option=value" for QEMU\'s -M virt', _words(r"[A-Za-z0-9_.-]+=[A-Za-z0-9_./-]+")),
    Key("memory_mib", "a whole number from 256 to 16384", _mebibytes(256, 16384)),
    Key("shared_mib", "a whole number from 1 to 1024", _mebibytes(1, 1024)),
    # Debian Policy 5.6.7: valid package names.
    Key("kernel_package", 'a Debian package such as "linux-image-cloud-arm64"', _text(r"[a-z0-9][a-z0-9+.-]+")),
    Key("linux", 'a kernel series such as "6.12"', _text(r"\d{1,3}\.\d{1,4}"), True),
    # Printable ASCII without space or quote: one word for the kernel's parser.
    Key("cmdline", "a list of words for the kernel command line", _words(r"[!#-&(-~]{1,256}")),
    Key("kernel_version", 'a kernel of the archive such as "6.12.117" or "7.3.*"', _text(KERNEL_VERSION.pattern), True),
    Key("kernel_tree", "the path of a kernel build directory", _text(r"[^\x00-\x1f\x7f]{1,4096}"), True),
    Key("like", "one of the project's targets", _text(r"[a-z0-9][a-z0-9.-]*"), True),
    Key("fast_qemu", "true or false", _truth, True),
)


def list_configs() -> tuple[str, ...]:
    """Return the names of the project's targets, the default first."""
    names = sorted(path.stem for path in CONFIG_DIR.glob("*.toml"))
    return tuple(sorted(names, key=lambda name: name != DEFAULT_TARGET))


def load_config(name_or_path: str | Path) -> MachineConfig:
    """Return the machine of a target name, or of a TOML file given by its path.

    A text with a slash or ending in ``.toml`` is a path.  A directory is a kernel build directory, run as the project's
    target of its version.  ``NAME@VERSION`` is that machine with another kernel of Debian's archive, and
    ``NAME@DIRECTORY`` with the kernel of a build directory; the suffixes ``%qemu-VERSION`` and ``%CPU`` select another
    QEMU and another CPU model.  Raises InputError, and SetupError for a directory in which nothing was built.
    """
    if isinstance(name_or_path, str) and "%" in name_or_path.rpartition("/")[2]:
        place, slash, name = name_or_path.rpartition("/")
        base, *words = name.split("%")
        return emulated(load_config(f"{place}{slash}{base}"), words, name_or_path)
    text, at, version = str(name_or_path).partition("@")
    if at and isinstance(name_or_path, str) and text in list_configs() and "/" in version:
        if version.endswith(".toml"):
            return _load_file(Path(version), text)
        return _on_tree(load_config(text), Path(version))
    if at and isinstance(name_or_path, str) and "/" not in version:
        if not KERNEL_VERSION.fullmatch(version):
            raise InputError(str(name_or_path), None, "expected a kernel version after the @, such as 6.12.117")
        return replace(load_config(text), name=f"{text}@{version}", kernel_version=version, linux="")
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml")
    if not is_path and text not in list_configs():
        raise InputError(text, None, f"no such target; there are {', '.join(list_configs())}, or give a .toml file")
    if isinstance(name_or_path, str) and is_path and _is_directory(text):
        tree = tree_path(Path(text), text)
        return _on_tree(load_config(guess_like(read_release(tree))), tree)
    return _load_file(Path(text) if is_path else CONFIG_DIR / f"{text}.toml")


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except ValueError:  # a NUL in the path
        return False


def guess_like(release: str, mode: Mode = Mode.NVHE) -> str:
    """Return the project's target of a mode with the newest kernel up to ``release``, else the oldest."""
    rows = [(linux_version(c.linux), c.name) for c in map(load_config, list_configs()) if c.mode is mode and c.linux]
    if not rows:
        raise InputError(release, None, f"no target of the project is of mode {mode.value}")
    older = [row for row in rows if row[0] <= linux_version(release)]
    return (max(older) if older else min(rows))[1]


def name_on_tree(tree: Path, target: str | None = None) -> str:
    """Return the name of a target with the kernel of a build directory; ``target`` None: the target of its version.

    InputError: the directory or target does not exist, or the target names a kernel itself.  SetupError: nothing was
    built in the directory.
    """
    where = tree_path(tree, str(tree))
    if target is None:
        return load_config(str(where)).name
    base, mark, emulator = target.partition("%")
    if base not in list_configs():
        expected = f"with --tree, expected one of {', '.join(list_configs())} (a target file has the key kernel_tree)"
        raise InputError(target, None, expected)
    return load_config(f"{base}@{where}{mark}{emulator}").name


def like_name(target: str) -> str:
    """Return the target's name without its kernel: the target whose kept findings apply, on the same emulator."""
    base, mark, emulator = target.partition("%") if "%" in target.rpartition("/")[2] else (target, "", "")
    return f"{base.partition('@')[0]}{mark}{emulator}"


def _on_tree(config: MachineConfig, tree: Path) -> MachineConfig:
    """Return a machine with the kernel of a build directory, which need not exist any more."""
    where = Path(os.path.realpath(tree))
    summary = f"the kernel built in {where}, {config.mode.value}; kept findings are those of {config.name}"
    name = f"{config.name}@{where}"
    found = replace(config, name=name, summary=summary, kernel_tree=where, like=config.name)
    return replace(found, kernel_package="", kernel_version="", linux="")


def _load_file(path: Path, like: str = "") -> MachineConfig:
    return parse_config(path.stem, _read(path), str(path), like)


def emulated(config: MachineConfig, words: Sequence[str], where: str) -> MachineConfig:
    """Return a machine, and its name, with another QEMU (``qemu-10.0``), another CPU model, or both.

    A part that the words do not name is unchanged.  InputError, which begins with `where`: the CPU model is unknown, or
    lacks a feature that the machine's mode needs.
    """
    base, *own = config.name.split("%")
    qemus, cpus = _by_kind(words)
    if len(qemus) > 1 or len(cpus) > 1 or not all(QEMU_VERSION.fullmatch(word[5:]) for word in qemus):
        raise InputError(where, None, "expected %qemu-VERSION, %CPU or both after the target, such as %qemu-10.0")
    if cpus and cpus[0] not in CPUS:
        raise InputError(where, None, f"no CPU model {cpus[0]!r}; there are {', '.join(CPUS)}")
    if cpus and config.mode is Mode.VHE and not CPUS[cpus[0]].vhe:
        raise InputError(where, None, f"{cpus[0]} has no VHE, which {base} needs")
    name = "%".join((base, *(qemus or _by_kind(own)[0]), *(cpus or _by_kind(own)[1])))
    qemu = qemus[0].removeprefix("qemu-") if qemus else config.qemu
    return replace(config, name=name, cpu="".join(cpus) or config.cpu, qemu=qemu)


def _by_kind(words: Sequence[str]) -> tuple[list[str], list[str]]:
    return [w for w in words if w.startswith("qemu-")], [w for w in words if not w.startswith("qemu-")]


def _read(path: Path) -> str:
    try:
        with open_input(path) as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(str(path), None, f"cannot read the configuration: {reason}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise InputError(str(path), None, f"more than {MAX_CONFIG_BYTES} bytes; expected a short TOML file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(str(path), line, "not UTF-8 text; expected a TOML file") from error


def parse_config(name: str, text: str, where: str, like: str = "") -> MachineConfig:
    """Return the machine that a configuration's text describes; `where` is its file, for the error message.

    `like` replaces the key of this name.  A file with ``like`` or ``kernel_tree`` takes missing keys from the target
    that ``like`` names.  SetupError: nothing was built in its kernel build directory.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, line = _toml_error(str(error), text)
        raise InputError(where, line, f"not TOML: {reason}") from error
    except RecursionError as error:  # thousands of nested brackets
        raise InputError(where, None, "not a target file: TOML nested too deeply") from error
    known = {key.name for key in KEYS}
    for name_in_file in table:
        if name_in_file not in known:
            expected = ", ".join(key.name for key in KEYS)
            raise InputError(where, _line_of(name_in_file, text), f"unknown key {name_in_file!r}; expected {expected}")
    if like or "like" in table or "kernel_tree" in table:
        return _derived(_values(table, text, where, partly=True), where, like)
    return MachineConfig(name=name, **_values(table, text, where))  # type: ignore[arg-type]  # KEYS checks each type


def _derived(values: Mapping[str, object], where: str, like: str) -> MachineConfig:
    """Return the machine of a file that lacks keys: the rest is that of the target that ``like`` names."""
    kernels = [name for name in ("kernel_tree", "kernel_version", "kernel_package") if name in values]
    if "kernel_tree" in kernels and len(kernels) > 1:
        raise InputError(where, None, f"expected kernel_tree or {kernels[1]}, not both")
    given = dict(values)
    if "kernel_tree" in given:
        # Relative to the file, as for a symbolic link, not to the current directory.
        given["kernel_tree"] = tree_path(Path(where).parent / str(given["kernel_tree"]), where)
    name = like or str(given.get("like", ""))
    if not name:
        mode = given.get("mode", Mode.NVHE)
        assert isinstance(given["kernel_tree"], Path) and isinstance(mode, Mode)
        name = guess_like(read_release(given["kernel_tree"]), mode)
    if name not in list_configs():
        raise InputError(where, None, f"like is {name!r}; expected one of {', '.join(list_configs())}")
    base = load_config(name)
    if kernels:
        base = replace(base, kernel_package="", kernel_version="", linux="")
    full = f"{name}@{Path(where).absolute()}"
    return replace(base, **{**given, "name": full, "like": name})  # type: ignore[arg-type]  # KEYS checks each type


def _values(table: Mapping[str, object], text: str, where: str, *, partly: bool = False) -> Mapping[str, object]:
    values: dict[str, object] = {}
    for key in KEYS:
        if key.name not in table and (key.optional or partly):
            continue
        if key.name not in table:
            raise InputError(where, None, f"key {key.name!r} is missing; expected {key.expected}")
        try:
            values[key.name] = key.parse(table[key.name])
        except ValueError as error:
            shown = repr(table[key.name])
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            reason = f"{key.name} is {shown}; expected {key.expected}"
            raise InputError(where, _line_of(key.name, text), reason) from error
    return MappingProxyType(values)


def _toml_error(message: str, text: str) -> tuple[str, int]:
    """Split tomllib's message into its reason and its line (the last line, if the message is about the end)."""
    match = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message, re.DOTALL)
    if match is not None:
        return match[1], int(match[2])
    return message.removesuffix(" (at end of document)"), max(1, len(text.splitlines()))


def _line_of(key: str, text: str) -> int | None:
    """Return the line where a top-level key or table begins, which tomllib does not report."""
    quoted = re.escape(key)
    match = re.search(rf"""^[ \t]*\[{{0,2}}[ \t]*["']?{quoted}["']?[ \t]*[=.\]]""", text, re.MULTILINE)
    return None if match is None else text.count("\n", 0, match.start()) + 1
