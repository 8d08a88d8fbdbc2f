# SPDX-License-Identifier: Apache-2.0
"""Declared commands: exclusive options, older spellings, defaults of groups, help without reformatting."""

from __future__ import annotations

import sys

import click
import pytest

from fuzz.cli import main
from fuzz.cli.declare import PATH, Args, declare, flag, option
from fuzz.cli.progress import say
from tests.support.commands import help_of

Capture = pytest.CaptureFixture[str]


@declare("try", "What it does.", "examples:\n  shadowfuzz try\n", exclusive=(("one", "other"),))
@option("--many", multiple=True, aliases=("--older",), greedy=True, help="values")
@flag("--one", help="one way")
@flag("--other", help="another way")
@option("--file", type=PATH, help="a file")
def tried(args: Args) -> int:
    """Show a line of progress."""
    say("progress")
    return len(args.many)


def call(*argv: str) -> Args:
    """Return the arguments that the command gets."""
    with tried.make_context("try", list(argv), obj=lambda _, args: args) as context:
        args = tried.invoke(context)
        assert isinstance(args, Args)
        return args


def test_options_that_exclude_each_other() -> None:
    assert call("--one").one and call("--other").other
    with pytest.raises(click.UsageError, match="--other is not allowed with --one"):
        call("--other", "--one")


def test_an_older_spelling_takes_several_values() -> None:
    assert call("--older", "a", "b", "--one", "--many", "c").many == ("a", "b", "c")
    with pytest.raises(click.UsageError, match="unexpected extra argument"):
        call("--many", "a", "b")
    help_ = tried.get_help(click.Context(tried))
    assert "--many" in help_ and "--older" not in help_


def test_an_empty_name_is_no_file() -> None:
    with pytest.raises(click.BadParameter, match="the name is empty"):
        call("--file", "")


@pytest.mark.parametrize(("words", "shown"), [((), "progress\n"), (("--quiet",), ""), (("-q",), "")])
def test_quiet(words: tuple[str, ...], shown: str, capsys: Capture) -> None:
    with tried.make_context("try", list(words), obj=lambda run, args: run(args)) as context:
        assert tried.invoke(context) == 0
    assert capsys.readouterr() == ("", shown)


def test_similar_names_are_offered(capsys: Capture) -> None:
    for argv, offered in (
        (("repaly",), "Did you mean 'replay'?"),
        (("findings", "shw", "d4"), "Did you mean 'show'?"),
        (("replay", "--targt", "x"), "Did you mean"),
        (("kernels", "lst"), "Did you mean 'list'?"),
    ):
        assert main.main(argv) == 2
        assert offered in capsys.readouterr().err


def test_a_group_with_a_default_command() -> None:
    assert main.parsed(["findings"]) == main.parsed(["findings", "list"])
    assert main.parsed(["findings", "--assignee", "show"]).assignee == "show", "the value of an option is no command"


def test_help_is_coloured_for_terminals_only(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert "\x1b" not in help_of("replay")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main.main(["--help"]) == 0 and "\x1b[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main.main(["--help"]) == 0 and "\x1b" not in capsys.readouterr().out
