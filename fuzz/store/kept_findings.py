# SPDX-License-Identifier: Apache-2.0
"""Read stored findings, check their traces again and explain them; the result of each is a story."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from fuzz.paths import ALARMS, CRASHES, KEPT, KNOWN_DIR
from fuzz.store.database import FILE, Database, Unreadable, default_url, name_of
from fuzz.store.emulator_results import from_text
from fuzz.store.findings import ELSEWHERE, FINDINGS, FLAKY, FRESH_QEMU, OTHER_TRACE, TRACE, Entry, Store
from fuzz.store.marks import Mark, Marks
from harness.arch.cpu_models import Cpu, cpu_model
from harness.errors import InputError, SetupError
from harness.findings.finding import Tries
from harness.findings.intended_changes import load_changes
from harness.findings.known_divergences import Catalogue
from harness.findings.problems import Example
from harness.findings.regressions import Regression, errata_of, like, load_regressions
from harness.findings.release_history import HISTORY, read_history
from harness.report.finding_data import Kept, Story, build_story
from harness.scenario.scenario import Scenario, parse
from harness.trace.tracefile import parse_trace
from harness.vm.config import load_config
from harness.vm.config_text import OTHER_TARGET, TARGET, read_stored
from harness.vm.crash import CRASH
from harness.vm.crash import from_text as read_crash

T = TypeVar("T")


def open_database(out: Path, url: str | None) -> Database:
    """Return the database of a campaign's directory, or that of a URL.  InputError: the directory has none."""
    if url is None and not (out / FILE).is_file():
        raise InputError(str(out), None, f"no campaign's directory: it has no {FILE}")
    return Database(url or default_url(out))


def kept_files() -> Mapping[Path, tuple[Regression, ...]]:
    """Return the findings of stock kernels that the project keeps, by the folder that has their scenarios.

    InputError: one of the files is invalid.
    """
    return {path.parent: load_regressions(path) for path in (KEPT, CRASHES, ALARMS)}


def kept_rows() -> tuple[Regression, ...]:
    """Return all kept findings: divergences, crashes and alarms.  InputError: one of their files is invalid."""
    return tuple(row for rows in kept_files().values() for row in rows)


def refuse_kept(name: str, rows: Iterable[Regression]) -> None:
    """Check that the name of a campaign's finding is not that of a kept one.  InputError: it is."""
    if any(row.id == name for row in rows):
        words = "a kept finding, of no campaign: export accepts it with --mail or --selftest; see docs/findings.md"
        raise InputError(name, None, words)


@dataclass(frozen=True, slots=True)
class StoredFindings:
    """The findings of a database: ``stories``, confirmed ones first, and ``marks`` by the finding's id.

    ``examples`` are the scenarios of each confirmed finding, one for each leading cluster.  ``unreadable`` are the rows
    that could not be read.  ``rows`` are the kept findings with which the stories were compared.
    """

    stories: tuple[Story, ...]
    examples: Mapping[str, tuple[Example, ...]]
    marks: Mapping[str, Mark]
    unreadable: tuple[Unreadable, ...]
    rows: tuple[Regression, ...]


class Explainer:
    """Explains findings; reads each file of the catalogue once.  InputError: a file is invalid."""

    def __init__(self) -> None:
        self.kept = kept_rows()
        self._changes = load_changes(KNOWN_DIR)
        self._catalogues: dict[str, Catalogue] = {}

    def story(self, kept: Kept) -> Story:
        """Return the story of a finding, with the kept ones that it is like.  InputError: its level is unknown."""
        subject = kept.finding.subject
        if subject.level not in self._catalogues:
            self._catalogues[subject.level] = Catalogue.load(KNOWN_DIR, subject.level)
        errata = errata_of(self.kept, subject.target)
        story = build_story(kept, _cpu(kept), self._catalogues[subject.level], self._changes, errata)
        return replace(story, like=like(self.kept, kept.finding))


def _cpu(kept: Kept) -> Cpu | None:
    """Return the CPU of a finding's target; None: neither the stored target nor its name has a known CPU."""
    try:
        return cpu_model((kept.config or load_config(kept.finding.subject.target)).cpu)
    except (InputError, SetupError):
        return None


def read_stories(
    *shelves: Store, explainer: Explainer | None = None
) -> tuple[tuple[Story, ...], tuple[Unreadable, ...]]:
    """Return the findings of shelves, and the rows that cannot be read.  InputError: the database cannot be read."""
    explainer = explainer or Explainer()
    found: list[Story] = []
    others: list[Unreadable] = []
    for store in shelves:
        entries, unreadable = store.read()
        others += unreadable
        for entry, texts in entries:
            try:
                story, wrong = _story(entry, texts, explainer)
            except InputError as error:
                others.append(Unreadable(_row(entry), str(error)))
            else:
                found.append(story)
                others += wrong
    return tuple(found), tuple(others)


def read_findings(database: Database) -> StoredFindings:
    """Return all readable findings.  InputError: the database or every finding in it cannot be read."""
    confirmed, explainer = Store(database, FINDINGS), Explainer()
    stories, unreadable = read_stories(confirmed, Store(database, FLAKY), explainer=explainer)
    if unreadable and not stories:
        first, *others = unreadable
        more = f"; {len(others)} more cannot be read, and no finding can" if others else ""
        raise InputError(database.url, None, f"{first}{more}")
    examples, no_examples = confirmed.readable_examples()
    marks, no_marks = Marks(database).readable()
    return StoredFindings(stories, examples, marks, (*unreadable, *no_examples, *no_marks), explainer.kept)


def stories(database: Database) -> tuple[Story, ...]:
    """Return all readable findings, confirmed ones first."""
    return read_stories(Store(database, FINDINGS), Store(database, FLAKY))[0]


def find_finding(database: Database, id_: str, explainer: Explainer | None = None) -> Story:
    """Return the finding whose id equals, begins or ends with ``id_``.  InputError: no finding or several match."""
    places = [(shelf, each) for shelf in (FINDINGS, FLAKY) for each in Store(database, shelf).ids()]
    exact = [place for place in places if place[1] == id_]
    found = exact or [
        place for place in places if place[1].startswith(id_) or place[1].partition("-")[2].startswith(id_)
    ]
    if len({each for _, each in found}) != 1:
        names = ", ".join(each for _, each in found[:5])
        raise InputError(id_, None, f"several findings begin like this: {names}" if found else "no such finding")
    shelf, name = found[0]
    return story_of(Store(database, shelf), name, explainer)


def story_of(store: Store, id_: str, explainer: Explainer | None = None) -> Story:
    """Read and explain one finding.  InputError: it cannot be read."""
    return _story(store.entry(id_), store.texts(id_), explainer or Explainer())[0]


def _row(entry: Entry, text: str = "") -> str:
    keys = {"shelf": entry.shelf, "id": entry.finding.id}
    return name_of("texts", {**keys, "name": text}) if text else name_of("findings", keys)


def _story(entry: Entry, kept_texts: Mapping[str, str], explainer: Explainer) -> tuple[Story, tuple[Unreadable, ...]]:
    """Explain a finding without its unreadable texts; return the story and those texts."""
    texts, wrong = dict(kept_texts), list[Unreadable]()

    def read(name: str, how: Callable[[str], T], default: T) -> T:
        text = texts.pop(name, None)
        try:
            return default if text is None else how(text)
        except (InputError, ValueError) as error:
            why = error.reason if isinstance(error, InputError) else str(error)
            wrong.append(Unreadable(_row(entry, name), why))
            return default

    scenario: Scenario | None = None
    if entry.scenario is not None:
        try:
            scenario = parse(entry.scenario, entry.finding.id)
        except InputError as error:
            wrong.append(Unreadable(_row(entry), f"its scenario, {error.reason}"))
    kept = Kept(
        finding=entry.finding,
        confirmed=entry.shelf == FINDINGS,
        count=entry.count,
        last_seen=entry.last_seen,
        scenario=scenario,
        trace=read(TRACE, lambda text: parse_trace(text, TRACE), None),
        other_trace=read(OTHER_TRACE, lambda text: parse_trace(text, OTHER_TRACE), None),
        fresh_qemu=read(FRESH_QEMU, _tries, None),
        elsewhere=read(ELSEWHERE, from_text, None),
        history=read(HISTORY, read_history, ()),
        config=read(TARGET, lambda text: read_stored(text, entry.finding.subject.target, TARGET), None),
        other_config=read(OTHER_TARGET, lambda text: read_stored(text, OTHER_TARGET, OTHER_TARGET), None),
        texts={},
    )
    if CRASH in texts:
        try:
            read_crash(texts[CRASH])
        except ValueError as error:  # the scenario is shown as stored
            wrong.append(Unreadable(_row(entry, CRASH), str(error)))
    return explainer.story(replace(kept, texts=texts)), tuple(wrong)


def _tries(text: str) -> Tries:
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError("expected two numbers, hits and runs")
    tries = Tries(*map(int, words))
    if not tries.possible:
        raise ValueError(f"{tries.hits} of {tries.runs} runs, which is impossible")
    return tries
