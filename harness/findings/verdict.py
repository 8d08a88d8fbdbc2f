# SPDX-License-Identifier: Apache-2.0
"""Classify a divergence by its reproduction rate and the levels that predict it (docs/spec/differential.md section 4).

Pure: the caller makes the runs.  The verdict ``emulator`` is based on runs on other QEMU versions and ``-cpu`` models;
if none were made, every verdict reports that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from harness.arch.registers import INDEX, MASK64
from harness.findings.checked import CheckResult, signature
from harness.findings.compare_releases import RELATION
from harness.findings.finding import Signature, Tries, is_member
from harness.model import LEVEL_NAMES
from harness.model.replay import predict
from harness.relations import save_restore
from harness.relations.basis import CONVENTION
from harness.relations.divergence import Divergence
from harness.relations.host import expected_entry_states
from harness.trace.events import Trace
from harness.trace.indexed import index_trace
from harness.trace.rounds import Round

Z95 = 1.959963984540054
"""Quantile of the normal distribution for a confidence of 95 per cent."""
RUNS = frozenset({"switch", "flush", "sync"})
"""Relations that are about a run of the guest and KVM's own handling of it."""
WITHOUT_MODEL = RUNS | {"host"}
"""Relations that compare KVM with the architecture alone."""
DEPLOYED = "kernel"

AGAINST, WITH, TAKES, SILENT = "against KVM", "with KVM", "takes the host's value", "says nothing"
SIDES = (AGAINST, WITH, TAKES, SILENT)
"""The positions of a level; ``TAKES``: it agrees, because it passes on whatever the host wrote."""
CONTENT = "content with KVM"
"""A position of the architecture, in addition to AGAINST and SILENT."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One way to run a scenario again: ``repeat`` (same KVM VM), ``fresh_vm`` or ``fresh_qemu``; how often it came."""

    name: str
    tries: Tries


STAGES = ("repeat", "fresh_vm", "fresh_qemu")


@dataclass(frozen=True, slots=True)
class EmulatorResult:
    """The same scenario on the same kernel under another QEMU (``qemu-10.0``) or ``-cpu`` model (``cortex-a57``).

    ``same`` is how often the same divergence occurred, ``changed`` how often one of its signature with other values;
    ``why``: the reason why it could not be run there; ``unlike``: the difference of the CPU model itself, because of
    which a divergence that disappears there proves nothing about the emulator.
    """

    name: str
    same: Tries
    changed: int = 0
    why: str = ""
    unlike: str = ""

    @property
    def is_qemu(self) -> bool:
        """Whether it is another QEMU, not another CPU model."""
        return self.name.startswith("qemu-")


def wilson(tries: Tries, z: float = Z95) -> tuple[float, float]:
    """Return the confidence interval of the rate of success, at 95 per cent by default (Wilson 1927).

    Without a try it is from 0 to 1.
    """
    n, p = tries.runs, tries.hits / tries.runs if tries.runs else 0.0
    if not n:
        return 0.0, 1.0
    middle, spread = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula is exact, floating-point arithmetic is not.
    low = 0.0 if not tries.hits else (middle - spread) / scale
    high = 1.0 if tries.hits == n else (middle + spread) / scale
    return low, high


def together(stages: tuple[Stage, ...]) -> Tries:
    """Add up the tries of all stages."""
    return Tries(sum(s.tries.hits for s in stages), sum(s.tries.runs for s in stages))


def rate_text(tries: Tries) -> str:
    """Return a rate with its interval: ``19 of 20 (95 %: 0.76 to 0.99)``."""
    low, high = wilson(tries)
    return f"{tries.hits} of {tries.runs} (95 %: {low:.2f} to {high:.2f})"


@dataclass(frozen=True, slots=True)
class LevelPosition:
    """The position of one level on one divergence; ``value`` is its prediction as text, empty if it has none."""

    level: str
    stand: str
    value: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The input of a verdict.

    ``architecture``: AGAINST if a relation without a model (``host``, ``switch``) differs at the same place too,
    CONTENT if it was compared and does not, SILENT if the required value is not determined.  ``elsewhere``: the results
    of other emulators, empty if none was tried.  ``basis``: what it violates (:mod:`harness.relations.basis`).
    """

    relation: str
    stages: tuple[Stage, ...]
    sides: tuple[LevelPosition, ...]
    architecture: str
    elsewhere: tuple[EmulatorResult, ...] = ()
    basis: str = ""

    def levels(self, *stands: str) -> tuple[str, ...]:
        """Return the levels with one of these positions."""
        return tuple(side.level for side in self.sides if side.stand in stands)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``name`` is one of docs/spec/differential.md section 4, ``why`` a sentence or two."""

    name: str
    why: str


def _never_again(e: Evidence) -> bool:
    return any(s.tries.runs and not s.tries.hits for s in e.stages)


def _rarely(e: Evidence) -> bool:
    tries = together(e.stages)
    return bool(tries.runs) and wilson(tries)[1] < 0.5


def differs(place: EmulatorResult, stages: tuple[Stage, ...]) -> bool:
    """Whether a divergence disappears or changes there: it shows in less than half of the runs, and less than here.

    Both with a confidence of 95 per cent.
    """
    return wilson(place.same)[1] < min(0.5, wilson(together(stages))[0])


def _on_other_qemu(e: Evidence) -> bool:
    return any(place.is_qemu and differs(place, e.stages) for place in e.elsewhere)


def _on_other_cpu(e: Evidence) -> bool:
    return any(differs(place, e.stages) for place in e.elsewhere if not place.unlike)


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of :data:`RULES`."""

    verdict: str
    holds: Callable[[Evidence], bool]
    why: str


RULES: tuple[Rule, ...] = (
    Rule("flaky", _never_again, "it never came back in one of the stages"),
    Rule("flaky", _rarely, "it comes back in less than half of the runs"),
    Rule(
        "unexplained",
        lambda e: not e.stages or not all(s.tries.runs for s in e.stages),
        "it was not run again: not confirmed",
    ),
    Rule(
        "unexplained",
        lambda e: e.relation == RELATION,
        "two targets differ, and no row of corpus/known/releases.toml says that this was meant",
    ),
    Rule(
        "emulator", _on_other_qemu, "it goes away or changes on another version of QEMU, nothing else being different"
    ),
    Rule(
        "emulator",
        _on_other_cpu,
        "it goes away or changes on another -cpu: it depends on the CPU model, or on how QEMU emulates that one",
    ),
    Rule(
        "convention",
        lambda e: e.basis == CONVENTION,
        "KVM differs from a convention of Linux; it violates neither the architecture nor the KVM API",
    ),
    Rule(
        "kvm",
        lambda e: e.architecture == AGAINST and e.relation in RUNS,
        "KVM's own world switch changed what the guest has, against the architecture; no model is asked there",
    ),
    Rule(
        "unexplained",
        lambda e: e.architecture == AGAINST and bool(e.levels(WITH)),
        "a level of the model agrees with KVM against the architecture: one of the two readings is wrong",
    ),
    Rule(
        "kvm",
        lambda e: e.architecture == AGAINST and len(e.levels(AGAINST)) == len(e.sides),
        "KVM disagrees with all levels and with the architecture",
    ),
    Rule(
        "kvm",
        lambda e: e.architecture == AGAINST,
        "KVM disagrees with the architecture; no level predicts KVM's value by itself",
    ),
    Rule(
        "model",
        lambda e: DEPLOYED in e.levels(WITH) and bool(e.levels(AGAINST)),
        "a level of the proof disagrees with the deployed one, which agrees with KVM",
    ),
    Rule(
        "unexplained",
        lambda e: len(e.levels(AGAINST)) == len(e.sides) and e.architecture == CONTENT,
        "all levels disagree with KVM, the architecture does not: the model may cover less than KVM does there",
    ),
    Rule(
        "unexplained",
        lambda e: len(e.levels(AGAINST)) == len(e.sides),
        "all levels disagree with KVM, and no rule of the project says what the architecture requires there",
    ),
    Rule("unexplained", lambda e: True, "levels differ, but the deployed one does not agree with KVM"),
)
"""The first row that holds gives the verdict."""


def classify(evidence: Evidence) -> Verdict:
    """Return the verdict on a divergence that the catalogue does not explain."""
    rule = next(rule for rule in RULES if rule.holds(evidence))
    return Verdict(rule.verdict, rule.why)


ALARM = "alarm"


def alarm_evidence(stages: tuple[Stage, ...]) -> Evidence:
    """Return the evidence of an alarm: its reproduction rate; no level and no rule of the architecture covers it."""
    return Evidence(ALARM, stages, (), SILENT)


def alarm_verdict(stages: tuple[Stage, ...]) -> Verdict:
    """Return the verdict on an alarm of a target's kernel."""
    if any(stage.tries.hits for stage in stages):
        return Verdict(ALARM, "the target's kernel complains in its log of what the scenario does")
    return Verdict("flaky", "the target's kernel complained once, and did not in fresh machines")


def first_of(checked: CheckResult, wanted: Signature) -> Divergence | None:
    """Return the first unexplained divergence of a signature."""
    return next((d for d in checked.unexplained if is_member(signature(d), wanted)), None)


def evidence(
    trace: Trace,
    checked: CheckResult,
    divergence: Divergence,
    stages: tuple[Stage, ...],
    elsewhere: tuple[EmulatorResult, ...] = (),
) -> Evidence:
    """Gather the evidence of a confirmed trace about one of its divergences: all levels are replayed on its round."""
    round_ = next((r for r in index_trace(trace).rounds if r.first == divergence.event), None)
    architecture = _architecture(checked, divergence, round_)
    if divergence.relation == RELATION:
        return Evidence(divergence.relation, stages, (), SILENT)
    if divergence.relation in RUNS or round_ is None:
        return Evidence(divergence.relation, stages, (), architecture, elsewhere, divergence.basis)
    here = divergence.event, divergence.register
    bases = (d.basis for d in checked.unexplained if (d.event, d.register) == here and d.basis)
    basis = divergence.basis or next(bases, "")  # a divergence from the model has the basis of the contract's
    return Evidence(divergence.relation, stages, sides(round_, divergence), architecture, elsewhere, basis)


def _architecture(checked: CheckResult, divergence: Divergence, round_: Round | None) -> str:
    here = divergence.event, divergence.register
    if any(d.relation in WITHOUT_MODEL and (d.event, d.register) == here for d in checked.unexplained):
        return AGAINST
    determined = round_ is not None and not all(state.undetermined for state in expected_entry_states(round_))
    return CONTENT if determined else SILENT


def sides(round_: Round, divergence: Divergence) -> tuple[LevelPosition, ...]:
    """Return the position of each level."""
    return tuple(_side(round_, divergence, level) for level in LEVEL_NAMES)


def _side(round_: Round, divergence: Divergence, level: str) -> LevelPosition:
    prediction = predict(round_, level)
    if prediction.undefined:
        return LevelPosition(level, SILENT, f"undefined: {prediction.undefined}")
    if divergence.relation == "save":
        found = save_restore.compare_save(round_, prediction)
        same = [d for d in found if (d.relation, d.register) == ("save", divergence.register)]
        return LevelPosition(
            level, AGAINST if same else WITH, str(same[0].expected) if same else str(divergence.observed)
        )
    if prediction.state is None:
        return LevelPosition(level, SILENT, "panics")
    index = INDEX.get("spsr_el1" if divergence.register == "spsr_0" else divergence.register)
    if index is None:
        return LevelPosition(level, SILENT, "has no such register")
    said = prediction.spsr_0 if divergence.register == "spsr_0" else prediction.state[index]
    if said != round_.guest_view[index]:
        return LevelPosition(level, AGAINST, hex(said))
    return LevelPosition(level, TAKES if _follows(round_, index, level, said) else WITH, hex(said))


def _follows(round_: Round, index: int, level: str, said: int) -> bool:
    """Whether the level would predict another value if the host had written another one."""
    values = round_.entry.values
    other = (*values[:index], values[index] ^ MASK64, *values[index + 1 :])
    again = predict(replace(round_, entry=round_.entry._replace(values=other)), level)
    return again.state is not None and again.state[index] != said


def verdict_lines(verdict: Verdict, evidence: Evidence) -> tuple[str, ...]:
    """Return a verdict and its evidence, one line each."""
    return (
        f"verdict {verdict.name}: {verdict.why}",
        *(f"{s.name} {rate_text(s.tries)}" for s in evidence.stages),
        f"architecture {evidence.architecture}",
        *(f"level {s.level} {s.stand}" + (f": {s.value}" if s.value else "") for s in evidence.sides),
        *(f"on {place.name} {elsewhere_text(place)}" for place in evidence.elsewhere),
        *not_measured(evidence),
    )


def elsewhere_text(place: EmulatorResult) -> str:
    """Return the results of another emulator: the rate of the same divergence, and the other results."""
    if place.why:
        return f"not measured: {place.why}"
    changed = f", {place.changed} with other values" if place.changed else ""
    unlike = f"; it has {place.unlike}" if place.unlike else ""
    return f"{rate_text(place.same)}{changed}{unlike}"


def not_measured(evidence: Evidence) -> tuple[str, ...]:
    """Return a line for the runs that were not made, without which the verdict ``emulator`` is not ruled out."""
    if evidence.relation == ALARM:
        return ()
    ran = [place.is_qemu for place in evidence.elsewhere if place.same.runs]
    names = (("other versions of QEMU", True), ("other -cpu models", False))
    missing = [name for name, kind in names if kind not in ran]
    return (f"not measured: {' and '.join(missing)} (verdict emulator)",) if missing else ()
