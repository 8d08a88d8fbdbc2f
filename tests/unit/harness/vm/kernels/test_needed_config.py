# SPDX-License-Identifier: Apache-2.0
"""Missing symbols of a kernel configuration, and the fragment that sets them."""

from __future__ import annotations

import pytest

from harness.vm.kernels.needed_config import (
    ALWAYS,
    EXTRA,
    FORBIDDEN,
    NEEDED,
    Symbol,
    Use,
    fragment,
    missing_symbols,
    symbols_of,
)

WHOLE = "\n".join(fragment())


def test_the_fragment_lacks_nothing() -> None:
    assert missing_symbols(WHOLE) == ()
    assert symbols_of(WHOLE)["SERIAL_8250_NR_UARTS"] == "4"


@pytest.mark.parametrize("row", NEEDED, ids=lambda row: row.name)
def test_each_symbol_is_missed(row: Symbol) -> None:
    for instead in (f"# CONFIG_{row.name} is not set", f"CONFIG_{row.name}=m", ""):
        found = missing_symbols(WHOLE.replace(f"CONFIG_{row.name}=y\n", f"{instead}\n"))
        assert [each.symbol.name for each in found] == [row.name]
        assert found[0].text.startswith(f"CONFIG_{row.name}=y is needed {row.use.value}: ")


def test_what_must_not_be_set() -> None:
    for row in FORBIDDEN:
        assert [each.wanted for each in missing_symbols(f"{WHOLE}\nCONFIG_{row.name}=y\n")] == ["n"]


def test_what_one_mode_needs() -> None:
    without = WHOLE.replace("CONFIG_JUMP_LABEL=y\n", "")
    assert missing_symbols(without, ALWAYS) == ()
    assert [each.symbol.name for each in missing_symbols(without, (Use.PROTECTED,))] == ["JUMP_LABEL"]


def test_each_symbol_once() -> None:
    names = [row.name for row in (*NEEDED, *FORBIDDEN)] + [name for name, _, _ in EXTRA]
    assert len(set(names)) == len(names)
