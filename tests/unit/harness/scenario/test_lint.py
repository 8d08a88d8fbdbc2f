# SPDX-License-Identifier: Apache-2.0
"""Warnings: probable mistakes in a valid scenario are reported with their line; intended steps are not."""

from __future__ import annotations

import pytest

from harness.scenario.lint import warnings_of
from harness.scenario.scenario import HEADER, parse
from tests.support.paths import CORPUS

HEAD = f"{HEADER}\nabout A test.\n"

SAID: tuple[tuple[str, int, str], ...] = (
    ("movz x3, 0x5\nset x3 0x7\nhvc 0x0\n", 4, "is delayed: `movz x3, 0x5` does not trap"),
    ("mov x3, x4\ncomplete 0x7\n", 4, "after the last step"),
    ("hvc 0x0\nset x3 0x1\nset x4 0x1\nset x3 0x2\nhvc 0x0\n", 4, "`set x3 0x2` replaces it"),
    ("set x3 0x1\nset x3 0x1\n", 3, "replaces it"),
    ("hvc 0x0\nwrite 0x40020000 0x1\nwrite 0x40020000 0x2\n", 4, "replaces it"),
    ("ldr x0, [x1]\ncomplete 0x1\ncomplete 0x2\n", 4, "`complete 0x2` replaces it"),
    ("reg x3 0x1\nset x3 0x2\nhvc 0x0\n", 3, "`set x3 0x2` replaces it"),
    ("# a comment\n\nreg x3 0x1\nreg x4 0x1\nreset\nhvc 0x0\n", 5, "`reset` replaces it"),
    ("hvc 0x0\ncomplete 0x1\n", 4, "completes nothing"),
    ("str x0, [x1]\ncomplete 0x1\n", 4, "completes nothing"),
    ("complete 0x1\nhvc 0x0\n", 3, "completes nothing"),
    ("ldrb w0, [x1]\ncomplete 0x180\n", 4, "`ldrb w0, [x1]` reads 1 byte, as after `complete 0x80`"),
    ("ldrsh x0, [x1]\ncomplete 0x10000\n", 4, "reads 2 bytes, as after `complete 0x0`"),
    ("ldr w0, [x1]\ncomplete 0xffffffff80000000\n", 4, "reads 4 bytes"),
    ("forge esr 0x1\nhvc 0x0\n", 3, "forges nothing"),
    ("expect x3 0x1\nmovz x3, 0x5\nhvc 0x0\n", 3, "is compared after `movz x3, 0x5`"),
    ("expect x4 0x1\nmovz x3, 0x5\nexpect x3 0x5\nset x3 0x7\nhvc 0x0\n", 6, "is delayed: `movz x3, 0x5`"),
    ("vcpu 0.0\nhvc 0x0\n", 3, "0.0 is already the current vCPU"),
    ("gic_line spi 0x20 0x1\nhvc 0x0\n", 3, "reaches no guest"),
)


@pytest.mark.parametrize(("text", "line", "words"), SAID)
def test_mistakes_have_a_warning(text: str, line: int, words: str) -> None:
    found = warnings_of(HEAD + text, parse(HEAD + text))
    assert any(one.line == line and words in one.text for one in found), found
    shown = (HEAD + text).splitlines()[line - 1]
    assert any(one.item == shown for one in found)


MEANT = (
    "ldr x0, [x1]\ncomplete 0x1\nfinish\ncomplete 0x2\n",
    "ldr x0, [x1]\ncomplete 0xffffffffffffffff\n",
    "ldrsb x0, [x1]\ncomplete 0xff\n",
    "ldrb w0, [x1]\nforge esr 0x93c08006\ncomplete 0x180\n",
    "ldrb w0, [x1]\nvcpu 0.1\ncomplete 0x180\n",
    "ldp x0, x2, x1, 0x0\ncomplete 0xffffffffffffffff\n",
    "hvc 0x0\nset x3 0x1\nhvc 0x0\nset x3 0x2\n",
    "hvc 0x0\nset x3 0x1\nvcpu 0.1\nset x3 0x2\nhvc 0x0\n",
    "debug step\nmovz x3, 0x5\nset x3 0x7\nhvc 0x0\n",
    "mov x6, x5\nvcpu 0.1\nhvc 0x0\n",
    "hvc 0x0\nforge esr 0x93c08006\ncomplete 0x1\n",
    "reg x3 0x1\nhvc 0x0\nset x3 0x2\n",
    "movz x3, 0x5\nexpect x3 0x5\nhvc 0x0\n",
    "expect x3 0x1\nhvc 0x0\nmovz x3, 0x5\n",
    "vcpu 2.0\ngic_line spi 0x20 0x1\nhvc 0x0\n",
)


@pytest.mark.parametrize("text", MEANT)
def test_intended_steps_have_no_warning(text: str) -> None:
    assert warnings_of(HEAD + text, parse(HEAD + text)) == ()


def test_the_corpus_has_only_intended_warnings() -> None:
    found = {}
    for path in sorted(CORPUS.rglob("*.scn")):
        text = path.read_text()
        if count := len(warnings_of(text, parse(text))):
            found[path.name] = count
    assert found == {
        "aarch32_state_and_back.scn": 1,
        "host_writes_gprs.scn": 1,
        "mmio_store_then_complete.scn": 2,
        # Values wider than their loads on purpose: KVM reads only the bytes of the load from kvm_run.mmio.data.
        "long_mixture_mmio_hvc.scn": 12,
        "mmio_load_data_too_wide.scn": 7,
        "mmio_same_address_all_ways.scn": 8,
        "protected_vm.scn": 1,
    }
