# SPDX-License-Identifier: Apache-2.0
"""What EL2 did not let a guest execute, told from where the guest came to instead.

The system registers of a protected VM are EL2's affair, and no exit tells of them.  What it refuses shows only in what
the guest does next: it is at its vector, and all that was to follow is missing.  Where the guest did not do what its
code says, it may have done what the same code says without some access; then that is what differs, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from types import MappingProxyType
from typing import TypeVar

from harness.arch import a64, sysregs
from harness.guest.execute import EC_UNKNOWN, Continue, Effect, RaiseException

UNDEFINED, IGNORED = "undefined", "ignored"
"""How an access is refused: by an undefined-instruction exception, or as RAZ/WI."""
NONE: Mapping[int, str] = MappingProxyType({})
Path = TypeVar("Path")
MAX_REFUSALS = 2
"""Accesses that may be refused in one run: behind the first the guest is at its vector, which mostly ends it."""


def refused_effect(word: int, how: str) -> Effect:
    """Return what an access that is refused does."""
    if how == UNDEFINED:
        return RaiseException(EC_UNKNOWN)
    target = word & 31
    return Continue({target: 0} if a64.mnemonic(word) == "mrs" and target != 31 else {})


def name(word: int, how: str) -> str:
    """Return what reports call a refusal: ``undefined.actlr_el1``."""
    return f"{how}.{sysregs.BY_ENCODING[a64.system_register(word)].name}"


def find_refusals(
    words: Iterable[int], again: Callable[[Mapping[int, str]], Path], agrees: Callable[[Path], bool]
) -> tuple[Mapping[int, str], Path] | None:
    """Return the fewest refusals with which a guest comes to where it was seen, and its path; None: there are none.

    ``words``: what may be in its code; ``again`` follows it with some accesses refused.
    """
    accesses = [word for word in dict.fromkeys(words) if _is_access(word)]
    choices = [(word, how) for word in accesses for how in (UNDEFINED, IGNORED)]
    for count in range(1, MAX_REFUSALS + 1):
        for chosen in combinations(choices, count):
            refused = dict(chosen)
            if len(refused) == count and agrees(path := again(refused)):
                return refused, path
    return None


def _is_access(word: int) -> bool:
    return a64.mnemonic(word) in ("mrs", "msr") and a64.system_register(word) in sysregs.BY_ENCODING
