# SPDX-License-Identifier: Apache-2.0
"""Print the results of ``shadowfuzz replay`` while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TextIO

from fuzz.cli.declare import Args
from fuzz.triage.replay import ReplayListener
from harness.report import terminal
from harness.report.replay_result import Lost, Ran
from harness.report.terminal import Style
from harness.report.trace_text import trace_lines
from harness.vm.build.prepare import PreparedTarget


class ReplayCount(ReplayListener):
    """Counts finished runs."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done

    def job_done(self, target: str, item: Ran | Lost) -> None:
        """Count a run."""
        self._done()


class ReplayText(ReplayCount):
    """Prints each target and each run when it is done."""

    def __init__(self, stream: TextIO, style: Style, args: Args, done: Callable[[], None]) -> None:
        super().__init__(done)
        self.style = style
        self._stream = stream
        self._level: str = args.level
        self._known: bool = args.verbose
        self._trace: bool = args.trace

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def target_ready(self, name: str, prepared: PreparedTarget) -> None:
        """Print the target's head."""
        self._print(self.style.paint("bold", f"{name}: Linux {prepared.kernel_release}"))
        self._print(terminal.header_line(self.style))

    def job_done(self, target: str, item: Ran | Lost) -> None:
        """Print a run's line, and its differences below it."""
        super().job_done(target, item)
        if isinstance(item, Lost):
            self._print(terminal.lost_line(target, item, self.style))
            return
        self._print(terminal.status_line(item, self.style))
        for line in terminal.sites(item, self._level, self.style, known=self._known):
            self._print(line)
        for line in (*terminal.alarm_lines(item.alarms, self.style), *terminal.asserted_lines(item, self.style)):
            self._print(line)
        for line in terminal.expected_lines(item, self.style):
            self._print(line)
        for line in (*terminal.failed_lines(item, self.style), *self._left_out(item)):
            self._print(line)
        if self._trace:
            self._print("\n".join(trace_lines(item.trace)))

    def _left_out(self, item: Ran) -> Iterator[str]:
        return terminal.left_out_lines(item, self.style) if self._known else iter(())
