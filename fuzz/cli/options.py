# SPDX-License-Identifier: Apache-2.0
"""The options and arguments that several commands share: scenarios, targets, numbers, output files.

Each is a decorator, or a function that returns one, for a function below :func:`fuzz.cli.declare.declare`.
"""

from __future__ import annotations

from typing import Any

import click

from fuzz.cli.declare import PATH, Args, Decorator, flag, option
from fuzz.paths import DEFAULT_OUT
from fuzz.targets.options import TargetOptions
from harness.errors import InputError
from harness.input_file import check_file as check_input
from harness.model import LEVEL_NAMES
from harness.output_file import check_directory, check_file
from harness.vm.config import DEFAULT_TARGET, list_configs, name_on_tree

MAX_SEED = (1 << 32) - 1
MAX_SECONDS = 10 * 365 * 86400.0
TARGET_HELP = "CONFIG, CONFIG@KERNEL, CONFIG@DIR, a kernel build directory or a .toml file"
SEVERAL = (("target", "all_targets"),)
"""Groups of exclusive options of commands that accept several targets."""


class Whole(click.ParamType[int]):
    """A whole number in decimal digits, within limits."""

    name = "number"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a text; a default is a number already."""
        if isinstance(value, int):
            return value
        digits = str(value)
        if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(self.most)):
            self._refuse(digits, param, ctx)
        if not self.least <= int(digits) <= self.most:
            self._refuse(digits, param, ctx)
        return int(digits)

    def _refuse(self, given: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
        self.fail(f"{given[:40]!r}: expected a number from {self.least} to {self.most}", param, ctx)


class Seconds(click.ParamType[float]):
    """The duration of a campaign: a number of seconds, at least one."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a text; a default is a number already."""
        try:
            found = float(value)
        except ValueError:
            found = 0.0
        if not 1.0 <= found <= MAX_SECONDS:
            self.fail(f"{str(value)[:40]!r}: expected a number of seconds, at least 1", param, ctx)
        return found


def chain(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Return a decorator that applies several, in the order in which the help lists them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def number(
    name: str, default: int | None, what: str, least: int = 1, most: int = 86400, *, unit: str = "N"
) -> Decorator[Any]:
    """Return an option with a whole number from ``least`` to ``most``; its help is ``what`` and the default."""
    shown = what if default is None else f"{what} (default: {default})"
    return option(name, type=Whole(least, most), default=default, metavar=unit, help=shown)


def seconds(what: str) -> Decorator[Any]:
    """Return ``--seconds`` of a campaign, a minute by default."""
    return option("--seconds", type=Seconds(), default=60.0, metavar="N", help=f"{what} (default: 60)")


def file(name: str, what: str, *, metavar: str = "FILE", dest: str = "", **how: Any) -> Decorator[Any]:
    """Return an option that names a file or directory; ``dest`` is its attribute, if it differs from the name."""
    return option(name, *([dest] if dest else []), type=PATH, metavar=metavar, help=what, **how)


def out_file(name: str, what: str, **how: Any) -> Decorator[Any]:
    """Return an option that names a file to write; before the command begins, it is checked that it can be written."""
    return file(name, what, check=check_file, **how)


def out_directory(name: str, what: str, **how: Any) -> Decorator[Any]:
    """Return an option that names a directory to write to; before the command begins, it is checked likewise."""
    return file(name, what, metavar="DIR", check=check_directory, **how)


def _check_store(url: str) -> None:
    from fuzz.store.database import Database

    with Database(url).access():
        pass


level = option(
    "--level",
    default=LEVEL_NAMES[0],
    type=click.Choice(LEVEL_NAMES),
    help=f"the model's level (default: {LEVEL_NAMES[0]})",
)
tree = file(
    "--tree",
    "a kernel build directory (in-tree or O=): boot the kernel built there, as --target, or as the target whose "
    "version is nearest",
    metavar="DIR",
)
target = chain(option("--target", metavar="NAME", help=f"{TARGET_HELP} (default: {DEFAULT_TARGET})"), tree)
"""``--target`` for one target, and ``--tree``."""
targets = chain(
    option(
        "--target",
        multiple=True,
        metavar="NAME",
        help=f"{TARGET_HELP}; may be given several times (default: {DEFAULT_TARGET})",
    ),
    flag("--all-targets", help=f"all of {', '.join(list_configs())}"),
    tree,
)
"""``--target`` for any number of targets, ``--all-targets`` and ``--tree``; commands are ``exclusive=SEVERAL``."""
kernel = file("--kernel", "boot this arm64 Image of the target's release", metavar="IMAGE")
subject = chain(target, kernel, level)
"""The options of one target, its kernel, and the model's level."""
subjects = chain(targets, kernel, level)
"""The options of targets, their kernel, and the model's level."""
vmlinux = file(
    "--vmlinux",
    "the finding's kernel with debug information: show the source line of KVM's function, too",
    check=check_input,
)
store = option(
    "--store",
    check=_check_store,
    metavar="URL",
    help="database, as SQLAlchemy writes it (default: findings.db of the campaign)",
)


def _campaign(*aliases: str) -> Decorator[Any]:
    what = "a campaign's directory (default: out/campaign)"
    return chain(file("--campaign", what, metavar="DIR", default=DEFAULT_OUT, aliases=aliases), store)


campaign = _campaign("--out")
"""The options of the campaign that is read or changed: ``--campaign`` (in version 0.1 ``--out``) and ``--store``."""
campaign_beside_out = _campaign()
"""The same for commands whose ``--out`` is the output."""
against = option("--against", metavar="NAME", help="also run every scenario on this target, and compare the two traces")
"""The option of the second target of a comparison."""
cold = flag("--cold", help="boot each machine in full, not as a clone of a saved one")
deterministic = flag(
    "--deterministic", help="use machines whose time is the number of instructions: two runs record the same bytes"
)
fast_qemu = flag(
    "--fast-qemu",
    help="run on the QEMU that `setup --fast-qemu` built, if it recorded the same as Debian's on this target; every "
    "problem is confirmed on Debian's own",
)
"""Of campaigns; where it is not given, the target's file decides."""
hyp_copy = click.option(
    "--hyp-copy/--no-hyp-copy",
    default=None,
    help="in protected mode, also compare pKVM's own copy of the vCPU, relations flush, sync and save.reveal "
    "(default: where the target has one)",
)
"""Its value is None if neither form was given."""
json_flag = flag("--json", "json", help="print one JSON object and nothing else")


def paths(*, optional: bool = False, instead: str = "") -> Decorator[Any]:
    """Return the argument ``paths``, the scenarios; if ``optional``, its default is the project's scenarios.

    ``instead`` is an option with which there may be none.
    """
    what = "scenarios, or directories of them" + " (default: the project's)" * optional
    what += f" (with {instead}: may be left out)" if instead else ""
    needed = not optional and not instead
    return click.argument("paths", nargs=-1, required=needed, type=PATH, metavar="FILE|DIR...", help=what)


def finding(signature: str) -> Decorator[Any]:
    """Return the options of one scenario, its target, and ``--signature`` with the help ``signature``."""
    return chain(
        click.argument("file", type=PATH, metavar="FILE", help="a scenario with an unexplained divergence"),
        *(subject, against, cold, deterministic, hyp_copy),
        option("--signature", metavar="TEXT", help=signature),
    )


def resolve_targets(args: Args) -> None:
    """Resolve ``--tree`` and the default target in ``args.target``.

    InputError, SetupError: it cannot be used as a kernel build directory.
    """
    given = vars(args)
    if "tree" not in given:
        return
    if args.tree is not None and given.get("all_targets"):
        raise InputError("--tree", None, "cannot be combined with --all-targets; name the targets instead")
    named = given.get("target", ())
    if not isinstance(named, tuple):
        args.target = (named or DEFAULT_TARGET) if args.tree is None else name_on_tree(args.tree, named)
    elif args.tree is not None:
        args.target = tuple(name_on_tree(args.tree, name) for name in named or (None,))


def targets_of(args: Args) -> TargetOptions:
    """Return the options of a command's targets; an option that the command does not have is off."""
    given = vars(args)
    return TargetOptions(
        *(args.target, args.level, args.kernel, given.get("against")),
        cold=given.get("cold", False),
        deterministic=given.get("deterministic", False),
        hyp_copy=given.get("hyp_copy", False),
        fast_qemu=given["fast_qemu"] or None if "fast_qemu" in given else False,
    )
