# SPDX-License-Identifier: Apache-2.0
"""Check this machine for everything that targets need; show the checks as a table and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz.compiled.use import PURE, find_build
from fuzz.targets.fast_qemu import is_compared
from harness.errors import InputError, SetupError
from harness.vm import qemu_versions
from harness.vm.build.doctor import (
    Check,
    Compiler,
    TargetState,
    check_compiler,
    check_distributions,
    check_requirements,
    check_target,
    parse_requirements,
)
from harness.vm.build.prepare import AGENT_FLAGS, COMPILER_PACKAGE, CROSS, GUEST_SOURCES, find_prepared, read_image
from harness.vm.cache import Cache, default_root
from harness.vm.config import PROJECT, guess_like, list_configs, load_config
from harness.vm.fast_qemu.build import FastQemu, find_fast_qemu
from harness.vm.kernels.needed_config import missing_symbols
from harness.vm.kernels.tree import CONFIG, make_command, read_tree, tree_path
from harness.vm.plugins.plugin import HOST_FLAGS, HOST_PACKAGES, SOURCES
from harness.vm.target import boot_alarms

REQUIREMENTS = PROJECT / "tools" / "debian-packages.txt"
COMPILERS: tuple[Compiler, ...] = (
    Compiler("gcc", "plugins", HOST_FLAGS, tuple(sorted(SOURCES.glob("*.[ch]"))), HOST_PACKAGES),
    Compiler(
        f"{CROSS}gcc",
        "the agent",
        AGENT_FLAGS,
        (GUEST_SOURCES / "agent.c", *sorted(GUEST_SOURCES.glob("*.h"))),
        (COMPILER_PACKAGE, "libc6-dev-arm64-cross"),
    ),
)


@dataclass(frozen=True, slots=True)
class FastState:
    """The fast QEMU here: ``built`` (None: not), ``compared`` on these targets, or why there can be none."""

    built: FastQemu | None
    compared: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The checks, the state of each target, and what makes campaigns quicker if it was made."""

    checks: tuple[Check, ...]
    states: tuple[TargetState, ...]
    compiled: bool
    fast: FastState

    @property
    def ok(self) -> bool:
        """Return whether nothing is missing."""
        return all(check.ok for check in self.checks)


def diagnose(tree: Path | None = None) -> Diagnosis:
    """Check this machine and the cache for everything that the project needs; try compilers.  Nothing is fetched.

    With ``tree``, also check a kernel build directory.  InputError: it is no kernel build directory.
    """
    of_tree = () if tree is None else check_tree(tree_path(tree, str(tree)))
    states = tuple(_state(name) for name in list_configs())
    compiled, fast = find_build(os.environ) is not None, find_fast_state(states, Cache(default_root(os.environ)))
    checks = (
        *check_requirements(parse_requirements(_read_requirements(), str(REQUIREMENTS), platform.machine()), _find),
        *(check_compiler(compiler) for compiler in COMPILERS),
        *check_distributions(importlib.metadata.requires("shadowfuzz") or (), _version, platform.machine()),
        *(check_target(state) for state in states),
        *_emulators(),
        check_checker(compiled, PURE in os.environ),
        check_fast_qemu(fast),
        *of_tree,
    )
    return Diagnosis(checks, states, compiled, fast)


def check_tree(path: Path) -> tuple[Check, ...]:
    """Return a check of a kernel build directory, and one for each missing symbol of its configuration."""
    try:
        tree = read_tree(path)
        like = guess_like(tree.release)
    except SetupError as error:
        return (Check("tree", path.name, False, str(error), make_command(path)),)
    compiler = "clang" if tree.clang else "gcc"
    detail = f"{path}: Linux {tree.release}, built with {compiler}, like {like} by its version, sha256 "
    found = [Check("tree", path.name, True, f"{detail}{tree.image_sha256}")]
    for lack in missing_symbols((path / CONFIG).read_text(errors="replace")):
        fix = f"{path}/source/scripts/config" if (path / "source").exists() else f"{path}/scripts/config"
        verb = "--enable" if lack.wanted == "y" else "--disable"
        change = f"{fix} --file {path / CONFIG} {verb} {lack.symbol.name} (shadowfuzz kernels config has all)"
        where = f"{lack.text} ({lack.symbol.source})"
        found.append(Check("config", f"CONFIG_{lack.symbol.name}", False, where, change))
    return tuple(found)


def _emulators() -> tuple[Check, ...]:
    """Return a check for each installed QEMU; none if the machine's own is missing, which has a row of its own."""
    try:
        here = qemu_versions.present(Cache(default_root(os.environ)))
    except SetupError:
        return ()
    rows = [Check("emulator", e.name, True, f"{e.version} {e.package or '(of this machine)'}") for e in here]
    if len(rows) == 1:
        why = "no other QEMU is installed; the verdict emulator is based on -cpu alone (shadowfuzz setup --emulators)"
        rows.append(Check("emulator", "qemu-*", True, why))
    return tuple(rows)


def check_checker(compiled: bool, pure: bool) -> Check:
    """Return a check that says what checks, which is no error without a build; ``pure``: none is wanted."""
    if compiled:
        return Check("checker", "compiled checker", True, f"is used, unless {PURE} is set")
    why = f"{PURE} is set" if pure else "is not built for these sources (shadowfuzz setup)"
    return Check("checker", "compiled checker", True, f"{why}: Python checks")


def find_fast_state(states: Sequence[TargetState], cache: Cache) -> FastState:
    """Return whether the fast QEMU is in the cache, and on which of the targets that are set up it was compared."""
    try:
        fast = find_fast_qemu(cache)
        if fast is None:
            return FastState(None)
        ready = ((each.config, each.prepared) for each in states if each.prepared is not None and not each.config.qemu)
        return FastState(fast, tuple(c.name for c, prepared in ready if is_compared(c, prepared, fast, cache)))
    except SetupError as error:
        return FastState(None, refused=str(error))


def check_fast_qemu(state: FastState) -> Check:
    """Return a check that says where campaigns can run on the fast QEMU, which is no error where they cannot."""
    if state.built is None:
        why = state.refused or "is not built (shadowfuzz setup --fast-qemu)"
        return Check("fast_qemu", "fast QEMU", True, f"{why}: campaigns run on Debian's")
    where = f"compared with Debian's on {', '.join(state.compared) or 'no target'}"
    how = "(others: shadowfuzz setup --fast-qemu --target NAME)"
    return Check("fast_qemu", "fast QEMU", True, f"{state.built.version}, {where} {how}")


def _state(name: str) -> TargetState:
    config = load_config(name)
    try:
        prepared = find_prepared(config)
    except SetupError as error:
        return TargetState(config, None, refused=str(error))
    if prepared is None:
        return TargetState(config, None)
    try:
        sha256 = read_image(prepared.kernel).sha256
    except InputError:  # the file is in the cache, so this is no error of the user
        return TargetState(config, prepared, "of no kernel image")
    try:
        alarms = boot_alarms(config, prepared, Cache(default_root(os.environ)))
    except (OSError, SetupError):  # QEMU is missing, which has a row of its own; or the template was removed
        alarms = None
    return TargetState(config, prepared, sha256, None if alarms is None else tuple(one.sentence for one in alarms))


def _read_requirements() -> str:
    try:
        return REQUIREMENTS.read_text()
    except OSError as error:
        raise InputError(str(REQUIREMENTS), None, f"cannot read it: {error.strerror}") from error


def _find(evidence: str) -> str | None:
    if not evidence.startswith("/"):
        return shutil.which(evidence)
    return next((str(path) for path in sorted(Path("/").glob(evidence.lstrip("/")))), None)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


DIAGNOSIS_HEADS = ("", "what", "found, or how to get it")


def diagnosis_rows(found: Diagnosis) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each check, with the command that installs what is missing."""
    for check in found.checks:
        fix = "" if check.ok else f"\nget it: {check.fix}"
        yield "ok" if check.ok else "MISSING", check.name, f"{check.detail}{fix}"


def diagnosis_text(found: Diagnosis) -> str:
    """Return a line for each check, with the command that installs what is missing."""
    checks = found.checks
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        lines.append(f"{'ok     ' if check.ok else 'MISSING'}  {check.name:{width}}  {check.detail}")
        if not check.ok:
            lines.append(f"{'':{width + 9}}  get it: {check.fix}")
    missing = sum(not check.ok for check in checks)
    lines.append("everything is there" if missing == 0 else f"{missing} missing")
    return "\n".join(lines)


def diagnosis_json(found: Diagnosis) -> dict[str, object]:
    """Return plain data for :mod:`json`."""
    targets = [
        {
            "name": state.config.name,
            "summary": state.config.summary,
            "ready": check_target(state).ok,
            "image": None if state.prepared is None else asdict(state.prepared),
            "boot_alarms": state.boot_alarms,
        }
        for state in found.states
    ]
    document: dict[str, object] = {
        "ok": found.ok,
        "cache": str(default_root(os.environ)),
        "checks": [asdict(check) for check in found.checks],
        "targets": targets,
        "compiled": found.compiled,
        "fast_qemu": None if found.fast.built is None else _fast_json(found.fast.built, found.fast.compared),
    }
    return document


def _fast_json(built: FastQemu, compared: Sequence[str]) -> dict[str, object]:
    return {"program": str(built.program), "version": built.version, "source": built.source, "compared": list(compared)}
