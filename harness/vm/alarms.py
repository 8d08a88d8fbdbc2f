# SPDX-License-Identifier: Apache-2.0
"""Find alarms in the log of a target's kernel that do not end it: WARN, lockdep, refcounts, stalls, taint.  Pure.

The text is a console's.  User space prints there as well: a line is the kernel's if it has the kernel's time stamp
(``printk.time``).  A program can write such a line; this module cannot detect that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAX_ALARMS, MAX_LINES, MAX_LINE = 32, 100, 300
"""Maximum number of alarms of one text, of lines of each alarm's splat, and of characters of each line."""
MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm: a row of :data:`KINDS`, the function that it names (may be empty), its message, and all of its lines.

    ``function`` is without offset and without suffixes of compilers.
    """

    kind: str
    function: str
    words: str
    splat: str

    @property
    def signature(self) -> tuple[str, ...]:
        """The part that is equal for the same alarm in two boots: its kind, and its function or else its message."""
        return self.kind, self.function or _NUMBER.sub("N", self.words)

    @property
    def sentence(self) -> str:
        """The alarm in one line."""
        return f"{_BY_NAME[self.kind].what}{f' in {self.function}' if self.function else ''}: {self.words}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of alarm: a pattern of its first line, a description, and the kernel source that prints it.

    Not ``placed``: the kernel detects it at an arbitrary place, so no function is part of it.
    """

    name: str
    pattern: str
    what: str
    source: str
    placed: bool = True


KINDS: tuple[Kind, ...] = (
    # The first row that matches a line is its kind; harness/vm/crash.py has the messages that end the machine
    # (oops=panic).
    Kind(
        "lockdep",
        r"WARNING: (?:possible |inconsistent lock |bad unlock |suspicious RCU |lock held |held lock |Nested lock |"
        r"\S+-safe -> \S+-unsafe lock |bad contention )|BUG: Invalid wait context|DEBUG_LOCKS_WARN_ON",
        "lockdep report",
        "kernel/locking/lockdep.c",
    ),
    Kind(
        "kasan",
        r"BUG: K(?:ASAN|FENCE|CSAN|MSAN): ",
        "invalid memory access (KASAN, KFENCE, KCSAN, KMSAN)",
        "Documentation/dev-tools/kasan.rst, kfence.rst",
    ),
    Kind("ubsan", r"UBSAN: ", "undefined behaviour", "Documentation/dev-tools/ubsan.rst, lib/ubsan.c"),
    Kind("refcount", r"refcount_t: ", "refcount error", "include/linux/refcount.h, lib/refcount.c"),
    Kind(
        "list",
        r"list_(?:add|del) corruption|list_add double add",
        "list corruption",
        "include/linux/list.h, lib/list_debug.c",
    ),
    Kind(
        "stall",
        r"INFO: rcu\S* .*stall|BUG: (?:soft|workqueue) lockup|INFO: task .* blocked for more",
        "stall or lockup",
        "kernel/rcu/tree_stall.h, kernel/watchdog.c, kernel/hung_task.c",
        placed=False,
    ),
    Kind(
        "context",
        r"BUG: (?:sleeping function called from invalid context|scheduling while atomic|using \S+ in preemptible)",
        "call in an invalid context",
        "kernel/sched/core.c, lib/smp_processor_id.c",
    ),
    Kind("warn", r"WARNING: .*\bat\b", "WARN", "kernel/panic.c __warn"),
    Kind("bug", r"BUG: ", "BUG report of the kernel", "Documentation/admin-guide/bug-hunting.rst"),
    Kind("taint", r"taint(?:s|ing) kernel|due to kernel taint", "tainted kernel", "kernel/panic.c, module/main.c"),
)
INTENDED: tuple[tuple[str, str], ...] = (
    # Lines that match an alarm but are expected, and the kernel source that prints them.
    (
        r"^probe: loading out-of-tree module taints kernel",
        "kernel/module/main.c; the recording module",
    ),
    (r"kvm: protected VMs are experimental and for development only", "arch/arm64/kvm/arm.c kvm_arch_init_vm, once"),
)
_BY_NAME = {kind.name: kind for kind in KINDS}


def describe_kind(kind: str) -> str:
    """Return the description of a kind of alarm; the name itself if it is not in :data:`KINDS`."""
    return _BY_NAME[kind].what if kind in _BY_NAME else kind


_STAMP = re.compile(r"\[ {0,12}\d{1,10}\.\d{6}\](?:\[ {0,8}[TC]\d{1,10}\])? ?")
"""The prefix of each line of the kernel (kernel/printk/printk.c print_time, print_caller)."""
_HEAD = re.compile("|".join(f"(?P<{kind.name}>{kind.pattern})" for kind in KINDS))
_HINT = re.compile(rb"WARNING: |BUG: |INFO: |refcount_t: |corruption|UBSAN: |DEBUG_LOCKS|taint|list_add ")
"""A pattern that every text with an alarm contains, rare in others, and cheap to search for."""
_CUT, _END, _RULE = "------------[ cut here ]------------", "---[ end trace ", re.compile(r"={20,}")
_TEXT_LINES = 3
"""Maximum number of lines of a WARN's own message before it, if no "cut here" line marks its begin."""
_WARNED = re.compile(r"WARNING: .*\bat\b")
_SYMBOL = r"([A-Za-z_][\w.$]*)\+0x[0-9a-f]+"
_PLACE = re.compile(rf"\bat:? {_SYMBOL}|\bat \S+:\d+ {_SYMBOL}| in {_SYMBOL}|caller is {_SYMBOL}")
_PC, _FRAME = re.compile(rf"pc : {_SYMBOL}"), re.compile(rf" *(?:\? )?{_SYMBOL}/0x[0-9a-f]+")
_SUFFIX = re.compile(r"\.(?:constprop|isra|part|cold|llvm)\b.*")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|\d+")
_CONTROL = re.compile(r"[^\x20-\x7e]")
_MESSENGER = re.compile(
    # Functions that only print the message: the alarm belongs to their caller.
    r"refcount_warn_saturate|__list_(?:add|del)\w*|dump_(?:stack|backtrace)\w*|show_(?:stack|regs)\w*|__might_\w+|"
    r"__ubsan\w*|ubsan_\w+|__kasan\w*|kasan_\w+|print_(?:report|address)\w*|__asan\w*|lockdep_\w+|print_\w*bug\w*|"
    r"__schedule_bug|check_preemption_disabled|debug_smp_processor_id|__warn\w*|warn_slowpath_\w+|report_bug|"
    r"(?:mark|__?lock|check|validate)_\w*(?:lock|chain|acquire)\w*|__lock_acquire|call_trace"
)


@dataclass(slots=True)
class _Block:
    """The lines of one alarm; ``kind`` is empty until one of them determines it."""

    cut: bool
    kind: str = ""
    head: str = ""
    warned: str = ""
    over: bool = False
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if len(self.lines) < MAX_LINES:
            self.lines.append(line)

    def accepts(self, kind: str) -> bool:
        """Whether a further first line belongs to this block: a WARN's own message may match another kind."""
        if kind == "taint":  # a consequence
            return bool(self.kind)
        return not self.warned and (self.cut or (kind == "warn" and len(self.lines) <= _TEXT_LINES))

    def set_kind(self, kind: str, line: str) -> None:
        self.kind, self.head = kind, self.head or line
        if _WARNED.search(line):
            self.warned = line

    def alarm(self) -> Alarm:
        return Alarm(self.kind, self._function(), self._words(), "\n".join(self.lines))

    def _words(self) -> str:
        """Return the first line; for a WARN with its own message, which precedes it, that message."""
        said = next((line for line in self.lines if line != _CUT), self.head) if self.cut else self.head
        return said.strip()[:MAX_WORDS]

    def _function(self) -> str:
        if not _BY_NAME[self.kind].placed:
            return ""
        return next((name for name in self._functions() if not _MESSENGER.fullmatch(name)), "")

    def _functions(self) -> Iterator[str]:
        for line in (self.warned or self.head, *self.lines):
            found = _PLACE.search(line) or _PC.search(line)
            if found:
                yield _plain(next(filter(None, found.groups())))
        for line in self.lines:
            found = _FRAME.match(line)
            if found:
                yield _plain(found[1])


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name)


def has_hint(text: bytes) -> bool:
    """Whether a text may contain an alarm; False: it contains none.  Cheap."""
    return _HINT.search(text) is not None


def find_alarms(text: str | bytes) -> tuple[Alarm, ...]:
    """Return the kernel's alarms in a console's text, in its order; at most MAX_ALARMS.

    A truncated alarm is returned as far as it was printed.
    """
    if isinstance(text, bytes):
        if not has_hint(text):
            return ()
        text = text.decode(errors="replace")
    found: list[Alarm] = []
    for block in _blocks(_kernel_lines(text)):
        if block.kind:
            found.append(block.alarm())
            if len(found) == MAX_ALARMS:
                break
    return tuple(found)


def _kernel_lines(text: str) -> Iterator[str]:
    """Yield the kernel's lines without time stamps and without output of user space in the same line."""
    for line in text.split("\n"):
        stamp = _STAMP.search(line, 0, MAX_LINE)
        if stamp is not None:
            said = line[stamp.end() : stamp.end() + MAX_LINE].rstrip("\r")
            yield _CONTROL.sub("?", said)


def _blocks(lines: Iterable[str]) -> Iterator[_Block]:
    """Yield the block of each alarm: from "cut here" or from its first line, to its end line or the next alarm."""
    block: _Block | None = None
    for line in lines:
        if line == _CUT:
            if block is not None:
                yield block
            block = _Block(cut=True, lines=[line])
            continue
        kind = _kind_of(line)
        if block is not None and not block.over and (kind is None or block.accepts(kind)):
            if kind is not None:
                block.set_kind(block.kind or kind, line)
            block.add(line)
            block.over = line.startswith(_END) or _RULE.fullmatch(line) is not None
        elif kind is not None:
            if block is not None:
                yield block
            block = _Block(cut=False)
            block.set_kind(kind, line)
            block.add(line)
    if block is not None:
        yield block


def _kind_of(line: str) -> str | None:
    found = _HEAD.search(line)
    if found is None or any(re.search(pattern, line) for pattern, _ in INTENDED):
        return None
    return found.lastgroup


def once_each(alarms: Iterable[Alarm]) -> dict[tuple[str, ...], tuple[Alarm, int]]:
    """Return alarms by signature: the first of each, and their number."""
    found: dict[tuple[str, ...], tuple[Alarm, int]] = {}
    for alarm in alarms:
        first, count = found.get(alarm.signature, (alarm, 0))
        found[alarm.signature] = first, count + 1
    return found
