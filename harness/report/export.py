# SPDX-License-Identifier: Apache-2.0
"""Export a finding: a self-contained scenario file, and a C program that does not need shadowfuzz.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from harness.arch.registers import BY_NAME
from harness.findings.regressions import likeness
from harness.findings.verdict import verdict_lines
from harness.layout import CODE, DATA, VECTORS
from harness.relations import hyp_copy
from harness.relations.divergence import Divergence
from harness.report import crash
from harness.report.finding_data import Story
from harness.report.sites import Site
from harness.report.terminal import printable, shown
from harness.scenario.agent_operations import host_arguments, shaping
from harness.scenario.scenario import Scenario, Step, format_scenario, format_step, instruction
from harness.scenario.steps import KINDS, Actor
from harness.vm.crash import EARLIER

NOT_IN_C = frozenset({"forge", "vcpu"})
"""Steps that the C program cannot do: forged exits need the recording module; it has only one vCPU."""
NAP_US = 50_000
"""How long the C program lets a guest run without an exit before it interrupts it, in microseconds."""


def reproducer(story: Story) -> str | None:
    """Return a scenario file with expected and observed values, versions and hashes as comments; None without a
    scenario."""
    kept, finding = story.kept, story.kept.finding
    if kept.scenario is None:
        return None
    subject, other = finding.subject, finding.other
    before = len(earlier(story))
    more = "".join(f" {option}" for option in hyp_copy.options(finding.signature))
    replay = f"shadowfuzz replay THIS_FILE --target {subject.target} --level {subject.level}{more}"
    if before:
        replay = f"all {before + 1} files in their order, with shadowfuzz replay --same-vm --target {subject.target}"
    if other is not None:
        replay = f"shadowfuzz kernels against {subject.target} {other.target} THIS_FILE"
    said = [
        f"{story.id}: {story.title}",
        f"target {subject.target}, Linux {subject.kernel_release}, model level {subject.level}",
        *([] if other is None else [f"against {other.target}, Linux {other.kernel_release}, {other.kernel_sha256}"]),
        f"kernel sha256 {subject.kernel_sha256}",
        f"seen {kept.count} times, first {finding.first_seen}, last {kept.last_seen}; {likeness(story.like)}",
        *(verdict_lines(story.verdict, story.evidence) if story.evidence else (story.verdict.why,)),
        *([] if story.crash is None else (f"{name}: {words}" for name, words in crash.facts(story.crash))),
        f"replay: {replay}",
    ]
    header, rest = format_scenario(kept.scenario).split("\n", 1)
    comments = (f"# {printable(' '.join(line.split()))[:390]}" for line in said)
    return "\n".join([header, *comments, rest])


def earlier(story: Story) -> Mapping[str, str]:
    """Return the scenarios that must run before to reproduce a crash or an alarm, in their order, by the suffix of a
    file name."""
    again = None if story.crash is None else story.crash.again
    before = 0 if again is None else again.before
    if story.kept.finding.kind == "alarm":
        before = sum(name.startswith(EARLIER) for name in story.kept.texts)
    numbers = range(before, 0, -1)
    return {f"-{EARLIER}{n:02}.scn": story.kept.texts[f"{EARLIER}{n:02}.scn"] for n in numbers}


def crash_text(story: Story) -> str | None:
    """Return how the target was lost, with all registers and its console, or the alarm of its kernel.

    None: it was not lost, or no report exists, and there is no alarm.
    """
    if story.kept.finding.kind == "alarm":
        splat = "\n".join(printable(line) for line in story.kept.texts.get("console.txt", "").splitlines())
        return f"{story.id}: {printable(story.title)}\n{story.verdict.why}\n\n{splat}\n"
    if story.crash is None:
        return None
    console = "\n".join(printable(line) for line in story.kept.texts.get("console.txt", "").splitlines())
    return crash.text(f"{story.id}: {printable(story.title)}", story.crash, console)


def c_program(story: Story, name: str) -> str | None:
    """Return the C program ``name`` for a finding; None if no register that userspace can read shows it.

    Steps after the round in which it was observed are left out.
    """
    scenario, divergence = story.kept.scenario, story.divergence
    if scenario is None or divergence is None or story.ran is None or not _readable(divergence):
        return None
    site = next(site for site in story.ran.sites if any(j.divergence == divergence for j in site.judged))
    if not _expressible(scenario.steps[: _end(scenario, story, site)]):
        return None
    subject = story.kept.finding.subject
    register = BY_NAME["spsr_el1" if divergence.register == "spsr_0" else divergence.register]
    expected, seen = divergence.expected, divergence.observed
    values: Mapping[str, str] = {
        "TITLE": _comment(story.title),
        "WHERE": _comment(f"{subject.target}: Linux {subject.kernel_release}, sha256 {subject.kernel_sha256}"),
        "ID": story.id,
        "FILE": name,
        "BASE": hex(CODE.base),
        "VECTORS": hex(VECTORS.base),
        "DATA": hex(DATA.base),
        "END": hex(DATA.end),
        "PC": hex(BY_NAME["pc"].one_reg),
        "NAP": str(NAP_US),
        "STEPS": "\n".join(_steps(scenario, _end(scenario, story, site))),
        "CHECK": f"{register.one_reg:#x}ull, {shown(expected)}ull, {shown(seen)}ull, {json.dumps(register.name)}",
    }
    text = _template()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def why_no_program(story: Story) -> str:
    """Return why :func:`c_program` returned None."""
    if story.crash is not None:
        return "the target was lost, no register can be read"
    if story.kept.finding.kind == "alarm":
        return "it is an alarm of the target's kernel, no register shows it"
    if story.divergence is None:
        return "no trace of the divergence was kept"
    if _readable(story.divergence):
        return f"a C program cannot do these steps of its scenario: {', '.join(sorted(NOT_IN_C))}"
    return f"relation {story.divergence.relation} is not about a register that a program can read"


def _expressible(steps: Iterable[Step]) -> bool:
    return not any(step.kind in NOT_IN_C for step in steps)


def _readable(divergence: Divergence) -> bool:
    numbers = isinstance(divergence.expected, int) and isinstance(divergence.observed, int)
    return numbers and divergence.relation in ("host", "restore") and divergence.register in {*BY_NAME, "spsr_0"}


@cache
def _template() -> str:
    return files("harness.report").joinpath("standalone.c").read_text(encoding="utf-8")


def _comment(text: str) -> str:
    return printable(" ".join(text.split())).replace("*/", "* /")


def _end(scenario: Scenario, story: Story, site: Site) -> int:
    """Return the number of steps up to the end of the round at ``site``."""
    if site.place is None:
        end = 0
    elif site.place.step is not None:
        end = site.place.step + 1
    else:  # the guest was outside its code: the step of that run
        assert story.ran is not None
        end = min(story.ran.trace.events[site.event].step + 1, len(scenario.steps))
    while end < len(scenario.steps) and KINDS[scenario.steps[end].kind].side is Actor.HOST:
        end += 1
    return end


def _steps(scenario: Scenario, end: int) -> Iterator[str]:
    for step in (*shaping(scenario), *(Step("write", word) for word in scenario.boot)):
        yield _row(step.kind.upper(), *host_arguments(step), format_step(step))
    initial = {"vbar_el1": VECTORS.base} | dict(scenario.registers) | {"pc": CODE.base}
    for name, value in initial.items():
        yield _row("SET", BY_NAME[name].one_reg, value, f"reg {name} {value:#x}")
    address = CODE.base
    for step in scenario.steps[:end]:
        word = instruction(step)
        if word is not None:
            yield _row("GUEST", address, word, format_step(step))
            address += 4
        else:
            yield _row(step.kind.upper(), *host_arguments(step), format_step(step))


def _row(what: str, a: int, b: int, text: str) -> str:
    return f"\t{{ {what}, {a:#x}ull, {b:#x}ull, {json.dumps(text)} }},"
