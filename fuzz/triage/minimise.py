# SPDX-License-Identifier: Apache-2.0
"""Minimise a scenario in real VMs while it still shows a divergence or an alarm of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.targets.observation import signatures_shown
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import OK_STATUSES, Side, TargetSet, open_targets
from harness.errors import InputError
from harness.findings.finding import Signature, place_text, signature_text
from harness.minimiser import Minimiser
from harness.scenario.scenario import Scenario, load
from harness.scenario.simplify import PASSES, order

MAX_TRIES = 20_000
LEAST = "The least that shows"
"""The beginning of the description of a minimised scenario."""


@dataclass(frozen=True, slots=True)
class Minimised:
    """The result of a minimisation; ``confirmed``: it was reproduced in a fresh QEMU."""

    scenario: Scenario
    signature: Signature
    tries: int
    confirmed: bool


def choose_signature(found: Sequence[Signature], name: str | None, where: str) -> Signature:
    """Return the signature to keep.  InputError: the scenario shows none, or not the named one."""
    if not found:
        raise InputError(
            where, None, "shows no unexplained divergence and no alarm here; `shadowfuzz replay` says what it shows"
        )
    names = {text(signature): signature for text in (place_text, signature_text) for signature in reversed(found)}
    if name is None:
        return found[0]
    if name not in names:
        raise InputError(where, None, f"does not show {name!r}; it shows {', '.join(map(signature_text, found))}")
    return names[name]


def minimise_on(targets: TargetSet[Side], scenario: Scenario, wanted: Signature, tries: int = MAX_TRIES) -> Minimised:
    """Return the simplest scenario that the passes find and that shows ``wanted`` on the targets.

    InputError: the start does not show it twice in a row.
    """

    # Some findings are guests that exit without end; for any other finding, a scenario that runs away is no success.
    ends = OK_STATUSES | {targets.run_and_check(scenario).checked.status}

    def holds(candidate: Scenario) -> bool:
        # Successes are rare and later tries depend on them, so a success must be reproduced once.
        return targets.reproduces(candidate, wanted, ends=ends) and targets.reproduces(candidate, wanted, ends=ends)

    try:
        minimiser = Minimiser(scenario, holds, order, tries)
    except ValueError:
        raise InputError("scenario", None, f"does not show {signature_text(wanted)} in every run") from None
    # The description of the first scenario may not apply to the minimised one.
    least = replace(minimiser.run(PASSES), about=f"{LEAST} {signature_text(wanted)}.")
    targets.stop()
    return Minimised(least, wanted, minimiser.tries, targets.reproduces(least, wanted, ends=ends))


def minimise(
    options: TargetOptions, file: Path, wanted: str | None, say: Callable[[str], None]
) -> tuple[Scenario, Minimised]:
    """Return the scenario of a file, and its minimised form that shows one of its divergences or alarms on targets.

    ``wanted`` is the signature to keep (None: the first of the trace, else the first alarm).  InputError, SetupError: a
    file, a name or the set-up is wrong, or nothing is to be minimised.  TargetError: the machine was lost too often.
    """
    scenario = load(file)
    with open_targets(options, say) as targets:
        found = signatures_shown(targets.run_and_check(scenario))
        kept = choose_signature(found, wanted, str(file))
        say(f"keeping {signature_text(kept)}")
        return scenario, minimise_on(targets, scenario, kept)
