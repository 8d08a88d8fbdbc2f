# SPDX-License-Identifier: Apache-2.0
"""Declare commands, options and groups with Click; their help is printed without reformatting.

A command is a function that takes :class:`Args` and returns an exit status.  Its first decorator is ``declare``, then
one for each option follows (Click's own, those of :mod:`fuzz.cli.options`, or :func:`flag` and :func:`option`).
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias, TypeVar

import click
from click.core import ParameterSource
from click.exceptions import NoSuchCommand, NoSuchOption

QUIET = "shadowfuzz quiet"
"""Key in the context's values: whether ``--quiet`` was given."""
Run: TypeAlias = "Callable[[Args], int]"
"""The function of a command."""
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Decorated], Decorated]


class Args(SimpleNamespace):
    """The values of a command's options and arguments, as attributes; an option of another command is no attribute."""


class _FilePath(click.Path):
    """The name of a file or directory, as a :class:`pathlib.Path`; an empty name is an error."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty: expected a file or directory", param, ctx)
        return Path(value)  # not checked here: the code that opens it knows what it must be


PATH = _FilePath()


class _Text(click.ParamType[str]):
    """A text of at least one character."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "":
            self.fail("it is empty", param, ctx)
        return str(value)


TEXT = _Text()


class AliasedOption(click.Option):
    """An option with older spellings, which work and are not shown.

    ``greedy``: an alias takes several values; without an alias, the option does.  ``check`` is called with the value
    before the command begins, and raises InputError: so no work is done whose result cannot be written.
    """

    def __init__(
        self,
        *args: Any,
        aliases: Sequence[str] = (),
        greedy: bool = False,
        check: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.aliases, self.greedy, self.check = tuple(aliases), greedy, check

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the shown names, then the hidden ones."""
        super().add_to_parser(parser, ctx)
        if self.aliases:
            old = copy.copy(self)
            old.opts, old.secondary_opts, old.aliases = list(self.aliases), [], ()
            old.add_to_parser(parser, ctx)


def option(*names: str, aliases: Sequence[str] = (), **how: Any) -> Decorator[Any]:
    """Return the decorator of an option with a value; ``aliases`` are older spellings, which the help does not show.

    ``how`` are arguments of :class:`AliasedOption` and Click.  The default type is text that is not empty.
    """
    if "type" not in how and not how.get("is_flag"):
        how["type"] = TEXT
    return click.option(*names, cls=AliasedOption, aliases=aliases, **how)


def flag(*names: str, aliases: Sequence[str] = (), **how: Any) -> Decorator[Any]:
    """Return the decorator of an option without a value."""
    return option(*names, aliases=aliases, is_flag=True, **how)


class _AsWritten(click.Command):
    """A command or a group whose description and epilog are printed without reformatting."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description."""
        _write_raw(formatter, self.help)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit statuses."""
        _write_raw(formatter, self.epilog)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return ``--help`` with a description in the style of the other options: verb first, no full stop."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.help = "show this help"
        return found


class Command(_AsWritten):
    """A command that rejects options which exclude each other."""

    def __init__(self, *args: Any, exclusive: Sequence[Sequence[str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exclusive = exclusive

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments.  UsageError: two options of a group of ``exclusive`` were given."""
        try:
            rest = super().parse_args(ctx, list(self._spread(args)))
        except NoSuchOption as error:
            shown = [name for p in self.get_params(ctx) for name in (*p.opts, *p.secondary_opts) if name[:2] == "--"]
            raise NoSuchOption(error.option_name, possibilities=shown, ctx=ctx) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # Click's parser sets no context for an option without its value
            raise
        for group in self.exclusive:
            given = [p for p in self.params if p.name in group and _was_given(ctx, str(p.name))]
            if len(given) > 1:
                first, second = (max(p.opts, key=len) for p in given[:2])
                raise click.UsageError(f"{second} is not allowed with {first}", ctx)
        return rest

    def _spread(self, args: Sequence[str]) -> Iterator[str]:
        """Convert an older option with several values to one option per value."""
        several = [p for p in self.params if isinstance(p, AliasedOption) and p.greedy]
        greedy = {name for p in several for name in (p.aliases or p.opts)}
        current, values = "", 0
        for word in args:
            if current and not word.startswith("-"):
                yield from ((current, word) if values else (word,))
                values += 1
            else:
                current, values = (word if word in greedy else ""), 0
                yield word


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _write_raw(formatter: click.HelpFormatter, text: str | None) -> None:
    if text:
        formatter.write_paragraph()
        formatter.write("".join(_with_heads(text.strip("\n"))))


def _with_heads(text: str) -> Iterator[str]:
    """Yield the lines of a text, with headings in bold."""
    for line in text.splitlines():
        is_head = line.endswith(":") and not line.startswith(" ") and len(line) < 60
        yield f"{click.style(line, bold=True) if is_head else line}\n"


class Row(NamedTuple):
    """A command in a group: its name, ``module:attribute`` of its definition, a one-line description."""

    name: str
    where: str
    does: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.where.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        found.short_help = self.does
        return found


@dataclass(frozen=True, slots=True)
class Table:
    """The commands of a group.

    ``sections`` are listed in its help, each below its heading; ``old`` are hidden names, which still work; ``default``
    is the command that runs if none is named, or empty.
    """

    sections: Mapping[str, tuple[Row, ...]]
    old: tuple[Row, ...] = ()
    default: str = ""
    by_name: Mapping[str, Row] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the rows."""
        rows = (*(row for section in self.sections.values() for row in section), *self.old)
        object.__setattr__(self, "by_name", MappingProxyType({row.name: row for row in rows}))


class Group(click.Group, _AsWritten):
    """A group that imports a command when it is used."""

    def __init__(self, name: str, table: Table, **how: Any) -> None:
        super().__init__(name, no_args_is_help=False, **how)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the shown commands, in order."""
        return [row.name for section in self.table.sections.values() for row in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None: no command has this name."""
        row = self.table.by_name.get(cmd_name)
        return None if row is None else row.load()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the named command.  UsageError: it does not exist; the text suggests similar names."""
        if args[0] not in self.table.by_name and not args[0].startswith("-"):
            raise NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; insert the default command if none is named."""
        # Do not change arguments that a shell completes.
        if self.table.default and not ctx.resilient_parsing and not {*args[:1]} & {"-h", "--help"}:
            args = self._with_default(args)
        return super().parse_args(ctx, args)

    def _with_default(self, args: list[str]) -> list[str]:
        """Put the command's name first; older versions accepted options before it."""
        if args[:1] and args[0] in self.table.by_name:
            return args
        default = self.table.by_name[self.table.default].load()
        takes = {name for p in default.params if isinstance(p, click.Option) and not p.is_flag for name in _names(p)}
        skip = False
        for at, word in enumerate(args):
            if not skip and not word.startswith("-"):
                return [word, *args[:at], *args[at + 1 :]]
            skip = not skip and word in takes
        return [self.table.default, *args]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        for title, rows in self.table.sections.items():
            with formatter.section(click.style(title, bold=True)):
                formatter.write_dl([(click.style(row.name, fg="cyan"), row.does) for row in rows])
        click.Command.format_options(self, ctx, formatter)


def _names(param: click.Option) -> tuple[str, ...]:
    return (*param.opts, *(param.aliases if isinstance(param, AliasedOption) else ()))


VERBOSE = "after an internal error, show where it happened"


def declare(
    name: str,
    description: str,
    epilog: str,
    *,
    verbose: str = VERBOSE,
    exclusive: Sequence[Sequence[str]] = (),
    rest: bool = False,
) -> Callable[[Run], Command]:
    """Return the decorator that makes a function a command.

    ``description`` and ``epilog`` are the texts before and after the options of its help; the epilog has examples and
    the exit statuses.  ``verbose`` is the help of ``-v``.  ``exclusive`` are groups of options, by attribute, of which
    at most one may be given.  ``rest``: everything after the first argument is an argument, not an option.
    """

    def decorate(run: Run) -> Command:
        def callback(**given: Any) -> int:
            context = click.get_current_context()
            context.meta[QUIET] = given["quiet"]
            execute: Callable[[Run, Args], int] = context.obj

            def checked(args: Args) -> int:
                for param in context.command.params:
                    if isinstance(param, AliasedOption) and param.check and given[str(param.name)] is not None:
                        param.check(given[str(param.name)])
                return run(args)

            return execute(checked, Args(**given))

        params: list[click.Parameter] = list(reversed(getattr(run, "__click_params__", [])))
        params.append(AliasedOption(["-q", "--quiet"], is_flag=True, help="show no progress on stderr"))
        if not any(param.name == "verbose" for param in params):
            params.append(AliasedOption(["-v", "--verbose"], is_flag=True, help=verbose))
        settings = {"allow_interspersed_args": False} if rest else {}
        texts = {"help": description, "epilog": epilog}
        return Command(name, callback=callback, params=params, exclusive=exclusive, context_settings=settings, **texts)

    return decorate
