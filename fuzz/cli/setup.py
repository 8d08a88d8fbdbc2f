# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz setup`` and ``shadowfuzz doctor``: get what a target needs, and say what is there."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fuzz.campaign.guidance import choose
from fuzz.cli.options import Subparsers, add_tree
from fuzz.cli.progress import progress_printer
from fuzz.targets.doctor import diagnose, diagnosis_json, diagnosis_text
from fuzz.targets.emulators import fetch_emulators
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config

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
      print a line for each tool, compiler, Python package, target and QEMU, with the command that gets what is missing
  shadowfuzz doctor --tree ~/linux
      also print each symbol that the configuration of a kernel of your own lacks, and why it is needed
  shadowfuzz doctor --json
      print the same as one JSON object

exit status: 0 nothing is missing, 2 bad usage, 3 something is missing
"""


def add_parsers(subparsers: Subparsers) -> None:
    """Add ``setup`` and ``doctor``; each sets `run`, which takes the arguments and returns the exit status."""
    setup = subparsers.add_parser(
        "setup",
        help="fetch kernels; build the recording module and the guest image",
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
    add_tree(setup)
    setup.add_argument(
        "--emulators", action="store_true", help="also the other QEMU versions of this Debian release (10 MB each)"
    )
    setup.set_defaults(run=run_setup)
    doctor = subparsers.add_parser(
        "doctor",
        help="report what is installed, what is missing, and how to get it",
        description="Check what the project needs, here and in the cache; try the compilers.  Nothing is fetched.",
        epilog=DOCTOR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument(
        "--tree", dest="doctored", type=Path, metavar="DIR", help="also what a kernel build directory lacks"
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
        for found in fetch_emulators(_say):
            print(f"{found.name}: ready, {found.version} {found.package or '(of this machine)'}", flush=True)
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    """Print what is there and what is missing; 0 if nothing is missing, else 3."""
    found = diagnose(args.doctored)
    print(diagnosis_json(found) if args.json else diagnosis_text(found))
    return 0 if found.ok else 3
