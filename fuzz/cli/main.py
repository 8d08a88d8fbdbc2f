# SPDX-License-Identifier: Apache-2.0
"""The ``shadowfuzz`` command: convert every error to a line on stderr and an exit status.

Only the standard library is imported before interrupts are handled.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.exit_status import ExitStatus

if TYPE_CHECKING:
    from click import ClickException

    from fuzz.cli.declare import Args, Run

MAX_LINE = 800
BISECT: Mapping[int, int] = {ExitStatus.USAGE: ExitStatus.BAD_COMMAND, ExitStatus.FAILED: ExitStatus.NOT_TESTED}
"""Exit statuses with ``replay --bisect``: git-bisect(1) treats 2 and 3 as a bad commit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; no exception is raised."""
    words = sys.argv[1:] if argv is None else argv
    try:
        _answer_interrupts()
        if argv is None:  # this process is the command's own, and has imported nothing that checks
            _use_compiled()
        status = _main(words)
    except KeyboardInterrupt:
        status = _fail("interrupted", ExitStatus.INTERRUPTED)
    # Search the arguments themselves: wrong options cannot be parsed, and must not make a commit bad.
    return BISECT.get(status, status) if "--bisect" in words else status


def run(argv: Sequence[str], execute: Callable[[Run, Args], Any] | None = None) -> Any:
    """Run the command and return its exit status; raise all errors.

    ``execute``, if given, is called instead of the command's function, with that function and the values of its
    options.
    """
    from click.exceptions import Exit

    from fuzz.cli.tree import ROOT, context_of

    try:
        with context_of(argv, execute or _execute) as context:
            return ROOT.invoke(context)
    except Exit as stop:  # --help, --version
        return stop.exit_code


def parsed(argv: Sequence[str]) -> Any:
    """Return the values of a command's options and arguments, without running it."""
    return run(argv, lambda _, args: args)


def one_line(text: str) -> str:
    """Return a text as one line for a terminal: control characters escaped, at most 800 characters."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 4]}[...]{line[-3 * MAX_LINE // 4 :]}"


def _answer_interrupts() -> None:
    """Unblock the interrupts that tools/launcher.py blocked.  KeyboardInterrupt: one is pending."""
    import signal

    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _use_compiled() -> None:
    from fuzz.compiled.use import use_compiled

    use_compiled(os.environ)


def _execute(run: Run, args: Args) -> int:
    from fuzz.cli.options import resolve_targets

    resolve_targets(args)
    return run(args)


def _main(argv: Sequence[str]) -> int:
    from click import ClickException

    from harness.errors import InputError, ShadowfuzzError, VmLost

    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no valid UTF-8
    try:
        status = _complete() if "_SHADOWFUZZ_COMPLETE" in os.environ else run(argv)
        sys.stdout.flush()  # flush here, so that a full disk is reported
    except BrokenPipeError:
        _drop_stdout()
        return ExitStatus.BROKEN_PIPE
    except ClickException as error:
        return _fail_usage(error)
    except InputError as error:
        return _fail(str(error), ExitStatus.USAGE)
    except ShadowfuzzError as error:  # SetupError, TargetError
        return _fail(str(error), ExitStatus.FAILED, error.console_tail if isinstance(error, VmLost) else "")
    except OSError as error:
        _drop_stdout()
        what = error.strerror or str(error)
        return _fail(what if error.filename is None else f"{error.filename}: {what}", ExitStatus.FAILED)
    except Exception as error:
        return _fail_internally(error, verbose={"-v", "--verbose"} & set(argv) != set())
    return int(status)


def _replace_closed_streams() -> None:
    """Replace a closed standard output by a pipe without a reader, and a closed standard error by /dev/null.

    Otherwise a file that is opened later gets descriptor 1 or 2, and output is written to it.
    """
    if sys.stdout is None:
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        for end in {reader, writer} - {1}:
            os.close(end)
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _complete() -> int:
    """Answer a shell's request for completions."""
    from click.shell_completion import shell_complete

    from fuzz.cli.tree import ROOT

    variable = "_SHADOWFUZZ_COMPLETE"
    return shell_complete(ROOT, {}, "shadowfuzz", variable, os.environ[variable])


def _fail_usage(error: ClickException) -> int:
    context = getattr(error, "ctx", None)
    called = "shadowfuzz" if context is None else context.command_path
    with contextlib.suppress(OSError):
        line = f"{called}: {one_line(error.format_message().rstrip('.'))} (see {called} --help)\n"
        sys.stderr.write(line)
    return ExitStatus.USAGE


def _fail_internally(error: Exception, *, verbose: bool) -> int:
    """Report an error of shadowfuzz itself: a line, and its traceback in a file (``verbose``: on stderr)."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    what = f"internal error, {type(error).__name__}: {error}"
    if verbose:
        return _fail(what, ExitStatus.FAILED, text)
    try:
        with tempfile.NamedTemporaryFile("w", prefix="shadowfuzz-", suffix=".traceback", delete=False) as file:
            file.write(text)
    except OSError:
        return _fail(f"{what}; -v shows where", ExitStatus.FAILED)
    return _fail(f"{what}; {file.name} has the traceback, -v shows it", ExitStatus.FAILED)


def _fail(message: str, status: int, tail: str = "") -> int:
    if "shadowfuzz " in message:
        from fuzz.cli.output import with_program_name

        message = with_program_name(message)
    lines = [f"shadowfuzz: {one_line(message)}", *(f"    {one_line(line)}" for line in tail.splitlines())]
    with contextlib.suppress(OSError):  # if stderr cannot be written, the error cannot be shown
        print("\n".join(lines), file=sys.stderr, flush=True)
    return status


def _drop_stdout() -> None:
    """Discard buffered output: writing it at exit would fail again, with a traceback."""
    with contextlib.suppress(OSError, ValueError):  # not a file (a test's stand-in), or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
