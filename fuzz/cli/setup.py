# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz setup`` and ``shadowfuzz doctor``: get what a target needs, and say what is there."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from fuzz.campaign.guidance import choose
from fuzz.cli.options import Subparsers
from fuzz.cli.progress import progress_printer
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
from harness.vm.build.prepare import (
    AGENT_FLAGS,
    COMPILER_PACKAGE,
    CROSS,
    GUEST_SOURCES,
    find_prepared,
    prepare,
    read_image,
)
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET, PROJECT, list_configs, load_config
from harness.vm.plugins.plugin import HOST_FLAGS, HOST_PACKAGES, SOURCES

_say = progress_printer("setup")

SETUP = """\
examples:
  shadowfuzz setup --all-targets --emulators
      every target, and other versions of QEMU for the verdict emulator; can be killed and run again at any time
  shadowfuzz setup --target kvm-nvhe@7.3 kvm-vhe%qemu-10.0
      another kernel, another QEMU

What is fetched and built is kept in ~/.cache/shadowfuzz (XDG_CACHE_HOME says where else).

exit status: 0 all targets are ready, 2 bad usage or input, 3 something could not be fetched or built
"""
DOCTOR = """\
examples:
  shadowfuzz doctor
      a line for each tool, compiler, Python package, target and QEMU, with the command that gets what is missing
  shadowfuzz doctor --json
      the same as one JSON object

exit status: 0 nothing is missing, 2 bad usage, 3 something is missing
"""

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


def add_parsers(subparsers: Subparsers) -> None:
    """Add ``setup`` and ``doctor``; each sets `run`, which takes the arguments and returns the exit status."""
    setup = subparsers.add_parser(
        "setup",
        help="fetch and build what targets need",
        description="Fetch the kernels of targets, build the recording module and the guest's programs for each.",
        epilog=SETUP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = setup.add_mutually_exclusive_group()
    which.add_argument(
        "--target",
        action="extend",
        nargs="+",
        metavar="NAME",
        help=f"targets or .toml files (default: {DEFAULT_TARGET})",
    )
    which.add_argument("--all-targets", action="store_true", help="every target of the project")
    setup.add_argument(
        "--emulators", action="store_true", help="also the other QEMU versions of this Debian release (10 MB each)"
    )
    setup.set_defaults(run=run_setup)
    doctor = subparsers.add_parser(
        "doctor",
        help="say what is there, what is missing, and how to get it",
        description="Look for all that this project needs, here and in the cache; try compilers.  Nothing is fetched.",
        epilog=DOCTOR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    doctor.set_defaults(run=run_doctor)


def run_setup(args: argparse.Namespace) -> int:
    """Prepare the targets; errors are raised for the caller to show."""
    names = list_configs() if args.all_targets else tuple(args.target or (DEFAULT_TARGET,))
    for config in [load_config(name) for name in names]:  # every name first: a wrong one costs nothing
        start = time.monotonic()
        target = prepare(config, progress=_say)
        choose(None, target, _say)  # says itself if coverage of the hypervisor is not to be had
        took = time.monotonic() - start
        print(f"{config.name}: ready, {target.package} {target.package_version} ({took:.1f} s)", flush=True)
    if args.emulators:
        _setup_emulators()
    return 0


def _setup_emulators() -> None:
    """Fetch each series of QEMU that the archive offers, if only the machine's own is here."""
    cache = Cache(default_root(os.environ))
    alone = len(qemu_versions.present(cache)) == 1
    for package in reversed(qemu_versions.offered(cache, _say)) if alone else ():  # of a series the newest
        series = ".".join(qemu_versions.upstream(package.version).split(".")[:2])
        if qemu_versions.find(cache, series) is None:
            qemu_versions.fetch(cache, package, _say)
    for found in qemu_versions.present(cache):
        print(f"{found.name}: ready, {found.version} {found.package or '(of this machine)'}", flush=True)


def run_doctor(args: argparse.Namespace) -> int:
    """Print what is there and what is missing; 0 if nothing is missing, else 3."""
    states = tuple(_state(name) for name in list_configs())
    checks = (
        *check_requirements(parse_requirements(_read_requirements(), str(REQUIREMENTS)), _find),
        *(check_compiler(compiler) for compiler in COMPILERS),
        *check_distributions(importlib.metadata.requires("shadowfuzz") or (), _version),
        *(check_target(state) for state in states),
        *_emulators(),
    )
    ok = all(check.ok for check in checks)
    print(_json(ok, checks, states) if args.json else _table(checks))
    return 0 if ok else 3


def _emulators() -> tuple[Check, ...]:
    """Return a check a QEMU that is here; none if there is not even the machine's own, which is a row of its own."""
    try:
        here = qemu_versions.present(Cache(default_root(os.environ)))
    except SetupError:
        return ()
    rows = [Check("emulator", e.name, True, f"{e.version} {e.package or '(of this machine)'}") for e in here]
    if len(rows) == 1:
        why = "another QEMU is not here, so the verdict emulator rests on -cpu alone (shadowfuzz setup --emulators)"
        rows.append(Check("emulator", "qemu-*", True, why))
    return tuple(rows)


def _state(name: str) -> TargetState:
    config = load_config(name)
    prepared = find_prepared(config)
    if prepared is None:
        return TargetState(config, None)
    try:
        return TargetState(config, prepared, read_image(prepared.kernel).sha256)
    except InputError:  # it is in our cache, so it is not the user's input that is wrong but the cache
        return TargetState(config, prepared, "of no kernel image")


def _read_requirements() -> str:
    try:
        return REQUIREMENTS.read_text()
    except OSError as error:
        raise InputError(str(REQUIREMENTS), None, f"cannot read it: {error.strerror}") from error


def _find(evidence: str) -> str | None:
    if not evidence.startswith("/"):
        return shutil.which(evidence)
    return evidence if Path(evidence).exists() else None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _table(checks: tuple[Check, ...]) -> str:
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        lines.append(f"{'ok     ' if check.ok else 'MISSING'}  {check.name:{width}}  {check.detail}")
        if not check.ok:
            lines.append(f"{'':{width + 9}}  get it: {check.fix}")
    missing = sum(not check.ok for check in checks)
    lines.append("everything is there" if missing == 0 else f"{missing} missing")
    return "\n".join(lines)


def _json(ok: bool, checks: tuple[Check, ...], states: tuple[TargetState, ...]) -> str:
    targets = [
        {
            "name": state.config.name,
            "summary": state.config.summary,
            "ready": check_target(state).ok,
            "image": None if state.prepared is None else asdict(state.prepared),
        }
        for state in states
    ]
    document = {
        "ok": ok,
        "cache": str(default_root(os.environ)),
        "checks": [asdict(check) for check in checks],
        "targets": targets,
    }
    return json.dumps(document, indent=2, default=str)
