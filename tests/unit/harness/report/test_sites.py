# SPDX-License-Identifier: Apache-2.0
"""Sentences about host actions, and decisions of a loop."""

from __future__ import annotations

from harness import protocol
from harness.arch.registers import NAMES
from harness.report import terminal
from harness.report.sites import host_sentence, user_sentence
from harness.trace.events import HOST, USER, Host, Switch


def test_decisions_of_a_loop_are_summed_up() -> None:
    path = (("f.a", True), ("f.b", False), ("g.dirty", False), ("g.dirty", True), ("g.dirty", True))
    assert terminal.decisions(path) == "f: a !b; g: dirty[1,2 of 0..2]"


def test_sentences_of_the_host() -> None:
    op_set = protocol.OPS["set"][0]
    x3 = 0x6030_0000_0010_0006
    assert host_sentence(Host(HOST, 0, op_set, x3, 0x80, 0, True)) == "set x3 = 0x80"
    assert host_sentence(Host(HOST, 0, op_set, 0x99, 1, 22, True)) == "set register 0x99 = 0x1 (failed: EINVAL)"
    assert host_sentence(Host(HOST, 0, 99, 0, 0, 0, False)) == "operation 99 (by the agent)"
    blank = Switch(USER, 0, 6, 0, 0, 0, 0, 0, 0, 0x1000, 0x104, 0xFEED, 0, (0,) * len(NAMES))
    assert user_sentence(blank) == "KVM_RUN returned MMIO: write of 0xfeed, 4 bytes at 0x1000"
    assert user_sentence(blank._replace(code=77)) == "KVM_RUN returned exit reason 77"
