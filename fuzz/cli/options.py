# SPDX-License-Identifier: Apache-2.0
"""The arguments that several commands share, declared once: what to run, where, how often."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from fuzz.paths import DEFAULT_OUT
from fuzz.targets.options import TargetOptions
from harness.errors import InputError
from harness.model import LEVEL_NAMES
from harness.vm.config import DEFAULT_TARGET, list_configs, name_on_tree

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What each command adds its parser to."""

MAX_SEED = (1 << 32) - 1
MAX_SECONDS = 10 * 365 * 86400.0
TARGET_HELP = "CONFIG, CONFIG@KERNEL, CONFIG@DIR, a kernel build directory or a .toml file"


def add_subject(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add what is tested: ``--target`` (with ``several``: any number of them, or all), ``--kernel``, ``--level``."""
    if several:
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--target",
            action="append",
            metavar="NAME",
            help=f"{TARGET_HELP}; may be given several times (default: {DEFAULT_TARGET})",
        )
        which.add_argument("--all-targets", action="store_true", help=f"all of {', '.join(list_configs())}")
        add_tree(parser)
    else:
        add_target(parser)
    add_kernel(parser)
    parser.add_argument(
        "--level", default=LEVEL_NAMES[0], choices=LEVEL_NAMES, help=f"the model's level (default: {LEVEL_NAMES[0]})"
    )


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add ``--kernel``."""
    parser.add_argument("--kernel", type=Path, metavar="IMAGE", help="boot this arm64 Image of the target's release")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add ``--target`` for one target, and ``--tree``."""
    parser.add_argument("--target", metavar="NAME", help=f"{TARGET_HELP} (default: {DEFAULT_TARGET})")
    parser.set_defaults(one_target=True)
    add_tree(parser)


def add_tree(parser: argparse.ArgumentParser) -> None:
    """Add ``--tree``."""
    parser.add_argument(
        "--tree",
        type=Path,
        metavar="DIR",
        help="a kernel build directory (in-tree or O=): boot the kernel built there, as --target, or as the target "
        "whose version is nearest",
    )


def settle_targets(args: argparse.Namespace) -> None:
    """Put into ``args.target`` what ``--tree`` and the default make of it.

    InputError, SetupError: it cannot be used as a kernel build directory.
    """
    given = vars(args)
    tree = given.get("tree")
    if tree is not None and given.get("all_targets"):
        raise InputError("--tree", None, "with --all-targets; name the targets that it is to be run as")
    if given.get("one_target"):
        args.target = args.target or DEFAULT_TARGET if tree is None else name_on_tree(tree, args.target)
    elif tree is not None:
        args.target = [name_on_tree(tree, name) for name in given.get("target") or [None]]


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return the parser of a whole number in decimal digits; it raises ArgumentTypeError for anything else."""

    def convert(given: str) -> int:
        if not given.isdecimal() or len(given) > len(str(most)) or not least <= int(given) <= most:
            raise argparse.ArgumentTypeError(f"{given[:40]!r}: expected a number from {least} to {most}")
        return int(given)

    return convert


def seconds(given: str) -> float:
    """Parse how long a campaign may take; ArgumentTypeError: not a number, or less than a second."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{given[:40]!r}: expected a number of seconds, at least 1")
    return value


def add_paths(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the scenarios, ``paths``; where they are ``optional``, none are the project's own."""
    what = "scenarios, or directories of them" + " (default: the project's)" * optional
    parser.add_argument("paths", nargs="*" if optional else "+", type=Path, metavar="FILE|DIR", help=what)


def add_number(
    parser: argparse._ActionsContainer,
    name: str,
    default: int | None,
    what: str,
    least: int = 1,
    most: int = 86400,
    *,
    unit: str = "N",
) -> None:
    """Add an option with a whole number from ``least`` to ``most``; ``what``, and the default, is its help."""
    shown = what if default is None else f"{what} (default: {default})"
    parser.add_argument(name, type=whole(least, most), default=default, metavar=unit, help=shown)


def add_campaign(parser: argparse.ArgumentParser) -> None:
    """Add where a campaign is kept, ``--out`` and ``--store``."""
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="a campaign's directory (default: out/campaign)",
    )
    parser.add_argument("--store", metavar="URL", help="database, as SQLAlchemy writes it (findings.db in --out)")


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the second target of a comparison, ``--against``."""
    parser.add_argument(
        "--against", metavar="NAME", help="also run every scenario on this target, and compare the two records"
    )


def add_cold(parser: argparse.ArgumentParser) -> None:
    """Add ``--cold``."""
    parser.add_argument("--cold", action="store_true", help="boot each machine in full, not as a clone of a saved one")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """Add ``--deterministic``."""
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="use machines whose time is the number of instructions: two runs record the same bytes",
    )


def add_hyp_copy(parser: argparse.ArgumentParser) -> None:
    """Add ``--hyp-copy`` and ``--no-hyp-copy``; None: neither."""
    parser.add_argument(
        "--hyp-copy",
        action=argparse.BooleanOptionalAction,
        help="in protected mode, also compare pKVM's own copy of the vCPU, relations flush, sync and save.reveal "
        "(default: where the target has one)",
    )


def add_finding(parser: argparse.ArgumentParser, *, signature: str) -> None:
    """Add one scenario, what it is run on, and ``--signature``, whose help is given."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a scenario with an unexplained divergence")
    add_subject(parser)
    add_against(parser)
    add_cold(parser)
    add_deterministic(parser)
    add_hyp_copy(parser)
    parser.add_argument("--signature", metavar="TEXT", help=signature)


def targets_of(args: argparse.Namespace) -> TargetOptions:
    """Return what a command's options say of its targets; an option that the command does not have is off."""
    given = vars(args)
    return TargetOptions(
        *(args.target, args.level, args.kernel, given.get("against")),
        cold=given.get("cold", False),
        deterministic=given.get("deterministic", False),
        hyp_copy=given.get("hyp_copy", False),
    )
