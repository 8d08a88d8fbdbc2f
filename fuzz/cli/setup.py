# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz setup`` and ``shadowfuzz doctor``: prepare targets, and report what is installed and missing."""

from __future__ import annotations

import os
import sys
import time

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import SEVERAL, file, json_flag, tree
from fuzz.cli.output import print_json, print_table, with_program_name
from fuzz.cli.progress import progress_printer
from harness.exit_status import ExitStatus
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config

_say = progress_printer("setup")

SETUP = """\
examples:
  shadowfuzz setup --all-targets --emulators
      every target, and other versions of QEMU for the verdict emulator; can be killed and run again at any time
  shadowfuzz setup --pure
      do not compile the checker, which takes two minutes of one core, once for each state of its sources
  shadowfuzz setup --target kvm-nvhe@7.3 kvm-vhe%qemu-10.0
      another kernel, another QEMU
  shadowfuzz setup --fast-qemu --target kvm-nvhe
      also build a QEMU for campaigns that loses less time at a world switch (docs/fast-qemu.md)

Fetched and built files are kept in ~/.cache/shadowfuzz (or below $XDG_CACHE_HOME).

exit status: 0 all targets are ready, 2 bad usage or input, 3 something could not be fetched or built
"""
DOCTOR = """\
examples:
  shadowfuzz doctor
      print a line for each tool, compiler, Python package, target and QEMU, with a command for each missing one; and
      whether the compiled checker and the fast QEMU are there, which only make campaigns quicker
  shadowfuzz doctor --tree ~/linux
      also print each symbol that the configuration of a kernel of your own lacks, and why it is needed
  shadowfuzz doctor --json
      print the same as one JSON object

exit status: 0 nothing is missing, 2 bad usage, 3 something is missing
"""


@declare(
    "setup",
    "Fetch the kernels of targets, build the recording module and the guest's programs for each.",
    SETUP,
    exclusive=SEVERAL,
)
@option(
    "--target",
    multiple=True,
    greedy=True,
    metavar="NAME...",
    help=f"targets or .toml files (default: {DEFAULT_TARGET})",
)
@flag("--all-targets", help="every target of the project")
@tree
@flag("--emulators", help="also the other QEMU versions of this Debian release (10 MB each)")
@flag("--pure", help="do not compile the checker: it is slower as Python, and finds the same")
@flag(
    "--fast-qemu",
    help="also the fast QEMU, built from Debian's source (six minutes of CPU) and compared on each target",
)
@json_flag
def setup(args: Args) -> int:
    """Prepare the targets; raise errors for the caller to show."""
    from fuzz.campaign.guidance import choose_guide
    from fuzz.compiled.build import compile_checker
    from fuzz.targets.emulators import fetch_emulators
    from fuzz.targets.fast_qemu import FALLS_BACK, set_up
    from harness.errors import SetupError
    from harness.vm.build.prepare import prepare
    from harness.vm.cache import Cache, default_root

    names = list_configs() if args.all_targets else tuple(args.target or (DEFAULT_TARGET,))
    parts = ("targets", "emulators", "compiled", "fast_qemu")
    ready: dict[str, list[dict[str, object]]] = {part: [] for part in parts}
    for config in [load_config(name) for name in names]:  # check all names before the first download
        start = time.monotonic()
        target = prepare(config, progress=_say)
        choose_guide(None, target, _say)  # reports if coverage of the hypervisor is unavailable
        took = time.monotonic() - start
        ready["targets"].append(
            {"name": config.name, "package": target.package, "package_version": target.package_version, "seconds": took}
        )
        if not args.json:
            print(f"{config.name}: ready, {target.package} {target.package_version} ({took:.1f} s)", flush=True)
        if args.fast_qemu or config.fast_qemu:
            try:
                fast = set_up(config, target, _say)
            except SetupError as error:  # a campaign works without it
                _say(f"no fast QEMU: {error}; {FALLS_BACK}")
                continue
            ready["fast_qemu"].append({"name": config.name, "version": fast.version, "source": fast.source})
            if not args.json:
                print(f"{config.name}: fast QEMU ready, {fast.version} of Debian's {fast.source}", flush=True)
    for found in fetch_emulators(_say) if args.emulators else ():
        ready["emulators"].append({"name": found.name, "version": found.version, "package": found.package})
        if not args.json:
            print(f"{found.name}: ready, {found.version} {found.package or '(of this machine)'}", flush=True)
    if not args.pure:
        try:
            build = compile_checker(Cache(default_root(os.environ)), _say)
        except SetupError as error:  # all works without, slower
            _say(f"the checker stays Python: {error}")
        else:
            ready["compiled"].append(dict(build.facts))
            if not args.json:
                print(f"checker: compiled, {build.path}")
    if args.json:
        print_json("setup", ready)
    return ExitStatus.OK


@declare(
    "doctor",
    "Check the tools, packages and targets that the project needs; try the compilers.  Nothing is fetched.",
    DOCTOR,
)
@file("--tree", "also check a kernel build directory", metavar="DIR", dest="doctored")
@json_flag
def doctor(args: Args) -> int:
    """Print what is installed and what is missing; return 0 if nothing is missing, else 3."""
    from fuzz.targets.doctor import DIAGNOSIS_HEADS, diagnose, diagnosis_json, diagnosis_rows, diagnosis_text

    found = diagnose(args.doctored)
    if args.json:
        print_json("doctor", diagnosis_json(found))
    elif sys.stdout.isatty():
        rows = [tuple(map(with_program_name, row)) for row in diagnosis_rows(found)]
        print_table(DIAGNOSIS_HEADS, rows, red=lambda row: row[0] == "MISSING")
        print(diagnosis_text(found).splitlines()[-1])
    else:
        print(with_program_name(diagnosis_text(found)))
    return ExitStatus.OK if found.ok else ExitStatus.FAILED
