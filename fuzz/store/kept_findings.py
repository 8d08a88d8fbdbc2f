# SPDX-License-Identifier: Apache-2.0
"""From the database to stories: every kept finding read, checked again and explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fuzz.paths import ALARMS, CRASHES, KEPT, KNOWN_DIR
from fuzz.store.database import FILE, Database, default_url
from fuzz.store.emulator_results import from_text
from fuzz.store.findings import ELSEWHERE, FINDINGS, FLAKY, FRESH_QEMU, OTHER_TRACE, TRACE, Store
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError
from harness.findings.finding import Tries
from harness.findings.intended_changes import load_changes
from harness.findings.known_divergences import Catalogue
from harness.findings.problems import Example
from harness.findings.regressions import Regression, errata_of, like, load_regressions
from harness.findings.release_history import HISTORY, read_history
from harness.report.finding_data import Kept, Story, tell
from harness.scenario.scenario import Scenario, parse
from harness.trace.events import Trace
from harness.trace.tracefile import parse_trace
from harness.vm.config import load_config


def open_database(out: Path, url: str | None) -> Database:
    """Return the database of a campaign's directory, or that of a URL.  InputError: the directory has none."""
    if url is None and not (out / FILE).is_file():
        raise InputError(str(out), None, f"no campaign's directory: there is no {FILE} in it")
    return Database(url or default_url(out))


def kept_rows() -> tuple[Regression, ...]:
    """Return the findings of stock kernels that the project keeps: divergences, crashes and alarms.

    InputError: one of their files is none.
    """
    return load_regressions(KEPT, CRASHES, ALARMS)


class Explainer:
    """What findings are explained with; each file of the project's is read once.  InputError: it is none."""

    def __init__(self) -> None:
        self.kept = kept_rows()
        self._changes = load_changes(KNOWN_DIR)
        self._catalogues: dict[str, Catalogue] = {}

    def story(self, kept: Kept) -> Story:
        """Return the story of a finding, with the kept ones that it is like."""
        subject = kept.finding.subject
        if subject.level not in self._catalogues:
            self._catalogues[subject.level] = Catalogue.load(KNOWN_DIR, subject.level)
        cpu, errata = cpu_model(load_config(subject.target).cpu), errata_of(self.kept, subject.target)
        story = tell(kept, cpu, self._catalogues[subject.level], self._changes, errata)
        return replace(story, like=like(self.kept, kept.finding))


def stories_of(*shelves: Store) -> Iterator[Story]:
    """Yield the findings of shelves.  InputError: as :func:`story_of`."""
    explainer = Explainer()
    return (story_of(store, id_, explainer) for store in shelves for id_ in store.ids())


def stories(database: Database) -> tuple[Story, ...]:
    """Return all findings, confirmed ones first."""
    return tuple(stories_of(Store(database, FINDINGS), Store(database, FLAKY)))


def all_examples(database: Database) -> Mapping[str, tuple[Example, ...]]:
    """Return the scenarios of each confirmed finding that differ in what they show first."""
    return Store(database, FINDINGS).examples()


def find(database: Database, id_: str) -> Story:
    """Return the one finding whose id is, or begins or ends with, ``id_``.  InputError: none or several."""
    places = [(shelf, each) for shelf in (FINDINGS, FLAKY) for each in Store(database, shelf).ids()]
    exact = [place for place in places if place[1] == id_]
    found = exact or [
        place for place in places if place[1].startswith(id_) or place[1].partition("-")[2].startswith(id_)
    ]
    if len({each for _, each in found}) != 1:
        names = ", ".join(each for _, each in found[:5])
        raise InputError(id_, None, f"several findings begin like this: {names}" if found else "no such finding")
    shelf, name = found[0]
    return story_of(Store(database, shelf), name)


def story_of(store: Store, id_: str, explainer: Explainer | None = None) -> Story:
    """Read and explain one finding; ``explainer`` explains others, too.

    InputError: it cannot be read, or its target is none of ours any more.
    """
    entry, texts = store.entry(id_), dict(store.texts(id_))
    trace_text, other_text = texts.pop(TRACE, None), texts.pop(OTHER_TRACE, None)
    history = read_history(texts.pop(HISTORY, "[]"))
    qemu, elsewhere = texts.pop(FRESH_QEMU, "").split(), texts.pop(ELSEWHERE, None)
    scenario: Scenario | None = None
    trace: Trace | None = None
    other: Trace | None = None
    with suppress(InputError):  # written by another version: what can be read is shown
        scenario = None if entry.scenario is None else parse(entry.scenario, id_)
        trace = None if trace_text is None else parse_trace(trace_text, id_)
        other = None if other_text is None else parse_trace(other_text, id_)
    kept = Kept(
        finding=entry.finding,
        confirmed=store.shelf == FINDINGS,
        count=entry.count,
        last_seen=entry.last_seen,
        scenario=scenario,
        trace=trace,
        texts=texts,
        fresh_qemu=_tries(qemu),
        other_trace=other,
        elsewhere=None if elsewhere is None else from_text(elsewhere),
        history=history,
    )
    return (explainer or Explainer()).story(kept)


def _tries(words: list[str]) -> Tries | None:
    return Tries(*map(int, words)) if len(words) == 2 and all(word.isdecimal() for word in words) else None
