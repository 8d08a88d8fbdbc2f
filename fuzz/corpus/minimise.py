# SPDX-License-Identifier: Apache-2.0
"""Select a smaller corpus with the same coverage: a deterministic greedy search, the simplest scenarios first."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fuzz.corpus.coverage_survey import Survey, open_watched, survey_corpus
from fuzz.corpus.files import Corpus, read_corpus
from fuzz.targets.options import TargetOptions
from harness.coverage.kvm_code import Covered
from harness.errors import InputError
from harness.scenario.simplify import order as simplest_first

T = TypeVar("T")


def minimise_corpus(
    items: Iterable[T], goals_of: Callable[[T], Set[Hashable]], order: Callable[[T], Any]
) -> tuple[T, ...]:
    """Return items that together have the coverage of ``items``, in ``order``.

    An item is selected if it reaches a goal that no simpler one reaches; then, beginning with the least simple, items
    are dropped whose goals the others reach.  So no returned item is redundant, although a smaller set may exist.
    """
    kept: list[tuple[T, frozenset[Hashable]]] = []
    reached: Counter[Hashable] = Counter()
    for item in sorted(items, key=order):
        own = frozenset(goals_of(item))
        if any(goal not in reached for goal in own):
            kept.append((item, own))
            reached.update(own)
    for entry in reversed(kept[:]):
        if all(reached[goal] > 1 for goal in entry[1]):
            kept.remove(entry)
            reached.subtract(entry[1])
    return tuple(item for item, _ in kept)


def count_goals(covered: Sequence[Covered]) -> dict[str, int]:
    """Return the numbers of goals that scenarios reach together."""
    return {
        "kvm_edges": len(frozenset().union(*(one.edges for one in covered))),
        "model_decisions": len(frozenset().union(*(one.decisions for one in covered))),
        "features": len(frozenset().union(*(one.features for one in covered))),
    }


@dataclass(frozen=True, slots=True)
class MinimisedCorpus:
    """The selected scenarios of a corpus, and the coverage of the whole corpus."""

    subject: Mapping[str, str]
    corpus: Corpus
    found: Survey
    kept: tuple[Covered, ...]
    out: Path

    @property
    def lost(self) -> Mapping[str, str]:
        """Return the scenarios at which the machine was lost, each with the reason."""
        return self.found.lost

    def to_json(self) -> dict[str, object]:
        """Return plain data for :mod:`json`."""
        return {
            **self.subject,
            "scenarios": len(self.corpus.scenarios),
            "kept": len(self.kept),
            "lost": dict(self.lost),
            "invalid_files": len(self.corpus.invalid),
            "noise": len(self.found.noise),
            "reached": count_goals(self.found.covered),
            "reached_by_kept": count_goals(self.kept),
            "out": str(self.out),
        }

    def text(self) -> str:
        """Return the result as text."""
        reached, kept = count_goals(self.found.covered), count_goals(self.kept)
        lines = [f"{len(self.kept)} of {len(self.corpus.scenarios)} scenarios kept in {self.out}"]
        lines += [f"{name}: {kept[name]} of {count}" for name, count in reached.items()]
        lines.append(f"noise, for which nothing was kept: {len(self.found.noise)}")
        lines += [f"machine lost at {name} (copied, too): {why}" for name, why in self.lost.items()]
        return "\n".join(lines)


def minimise_directory(
    directory: Path, out: Path, options: TargetOptions, repeat: int, progress: Callable[[str], None]
) -> MinimisedCorpus:
    """Copy to ``out`` the simplest scenarios of a directory that together have its coverage on a target.

    Each is run ``repeat`` times.  InputError, SetupError: a directory, a name or the set-up is wrong.  TargetError: the
    machine was lost repeatedly.
    """
    if not directory.is_dir():
        raise InputError(str(directory), None, "expected a directory with scenarios")
    _make_room(out)
    corpus = read_corpus([directory])
    watched = open_watched(options, progress)
    found = survey_corpus(watched, corpus, repeat, progress)
    kept = select_scenarios(corpus, found)
    # The coverage of a scenario at which the machine was lost is unknown, so it is selected.
    _copy([one.name for one in kept] + sorted(found.lost), out)
    return MinimisedCorpus(watched.facts, corpus, found, kept, out)


def select_scenarios(corpus: Corpus, found: Survey) -> tuple[Covered, ...]:
    """Return the selected scenarios of a measured corpus, the simplest first; noise does not count as coverage."""
    scenarios = {str(path): scenario for path, scenario in corpus.scenarios}
    return minimise_corpus(
        found.covered, lambda one: one.goals - found.noise, lambda one: (simplest_first(scenarios[one.name]), one.name)
    )


def _make_room(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise InputError(str(out), None, "is not empty: expected a directory that is new or empty")
    except OSError as error:
        raise InputError(str(out), None, f"cannot be written to: {error.strerror}") from error


def _copy(names: Sequence[str], out: Path) -> None:
    """Copy files; add a number to equal names."""
    for name in names:
        source = Path(name)
        place, number = out / source.name, 2
        while place.exists():
            place, number = out / f"{source.stem}-{number}{source.suffix}", number + 1
        shutil.copyfile(source, place)
