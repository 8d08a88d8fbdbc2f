# SPDX-License-Identifier: Apache-2.0
"""Kill live campaigns repeatedly, any process at any time, and check that no finding is lost.

    python -m tests.vm.killing --kills 200

A worker counts a finding in its statistics, which outlive it, before it writes it to the database.  So only the last
counted finding may be missing in the database; and a finding that was once in the database must stay, with its texts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.campaign.counters_file import read_stats
from fuzz.campaign.parent import CORPUS, RUN
from fuzz.store.database import FILE, Database, default_url
from fuzz.store.findings import FINDINGS, FLAKY, TRACE, Store
from harness.vm.crash import CRASH

COMMAND = (sys.executable, "-c", "import sys; from fuzz.cli.main import main; sys.exit(main())", "fuzz", "--jobs", "2")
COUNTED = ("unexplained", "flaky", "crashes", "internal")
"""The groups of a worker's statistics that name findings."""
GAVE_UP = 3
PARENT, WORKER, QEMU = "campaign", "worker", "QEMU"


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Yield number and command line of the processes below ``pid``."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        try:
            yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        yield from descendants(child)


def gone(pids: set[int]) -> bool:
    """Whether none of the processes exists any more; waits a moment for the last ones."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(_lives(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # a zombie waits for its parent


@dataclass
class Tally:
    """The number of kills, and the errors that were found."""

    kills: Counter[str] = field(default_factory=Counter)
    campaigns: int = 0
    resumed: int = 0
    findings: int = 0
    in_flight: int = 0
    gave_up: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Place:
    """A campaign's directory, and its earlier content."""

    out: Path
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    corpus: int = 0

    def look(self, tally: Tally) -> None:
        """Compare the database with its earlier content, and keep its present content."""
        if not (self.out / FILE).exists():
            return
        database = Database(default_url(self.out))
        now: dict[tuple[str, str], int] = {}
        for shelf in (FINDINGS, FLAKY):
            store = Store(database, shelf)
            now |= {(shelf, id_): store.count(id_) for id_ in store.ids()}
        database.close()
        for key, count in self.counts.items():
            if now.get(key, 0) < count:
                tally.wrong.append(f"{self.out.name} {key}: counted {count} times, now {now.get(key, 0)}")
        self.counts = now

    def look_whole(self, tally: Tally) -> None:
        """Check a directory without a running campaign: database, texts, statistics of dead workers, corpus."""
        self.look(tally)
        if not self.counts:
            return
        (check,) = sqlite3.connect(self.out / FILE).execute("PRAGMA integrity_check").fetchone()
        if check != "ok":
            tally.wrong.append(f"{self.out.name}: integrity_check says {check}")
        for shelf, id_ in self.counts:
            store = Store(Database(default_url(self.out)), shelf)
            wanted = CRASH if store.load(id_).kind == "crash" else TRACE
            if wanted not in store.texts(id_) or (wanted == TRACE and store.entry(id_).scenario is None):
                tally.wrong.append(f"{self.out.name} {id_}: no {wanted} or no scenario")
        kept = {id_ for _, id_ in self.counts}
        for path in (self.out / RUN).glob("*.stats"):
            said = [name for group, name in read_stats(path).words if group in COUNTED]
            missing = [name for name in said if name not in kept]
            tally.in_flight += len(missing)
            if missing and missing != said[-1:]:
                tally.wrong.append(f"{self.out.name} {path.name}: counted, not kept: {missing} of {said}")
        corpus = sum(1 for _ in (self.out / CORPUS).iterdir())
        if corpus < self.corpus:
            tally.wrong.append(f"{self.out.name}: the corpus had {self.corpus} scenarios, now {corpus}")
        self.corpus = corpus


def start(out: Path, seed: int, seconds: int, *more: str) -> subprocess.Popen[str]:
    """Start a campaign, or continue one."""
    argv = [*COMMAND, "--out", str(out), "--seed", str(seed), "--seconds", str(seconds), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def victims(pid: int) -> dict[str, list[int]]:
    """Return the processes of a campaign by their kind."""
    found: dict[str, list[int]] = {PARENT: [pid], WORKER: [], QEMU: []}
    for child, line in descendants(pid):
        if line.startswith("qemu-system"):
            found[QEMU].append(child)
        elif " fuzz.campaign.worker_process " in line:
            found[WORKER].append(child)
    return found


def one_campaign(place: Place, kills: int, rng: random.Random, tally: Tally) -> None:
    """Start a campaign and kill its processes; the last kill is the campaign itself."""
    tally.campaigns += 1
    tally.resumed += bool(place.counts)
    with start(place.out, rng.randrange(1 << 32), 100_000) as campaign:
        everyone = {campaign.pid}
        for left in range(kills, 0, -1):
            time.sleep(rng.uniform(0.1, 6.0))
            if campaign.poll() is not None:  # too many of its machines were killed during boot
                tally.gave_up += 1
                if campaign.returncode != GAVE_UP:
                    tally.wrong.append(f"the campaign ended by itself with {campaign.returncode}")
                break
            found = victims(campaign.pid)
            kind = PARENT if left == 1 else rng.choice([k for k in (WORKER, QEMU) if found[k]] or [PARENT])
            everyone |= {pid for pid, _ in descendants(campaign.pid)}
            place.look(tally)
            os.kill(rng.choice(found[kind]), signal.SIGKILL)
            tally.kills[kind] += 1
            if kind == PARENT:
                break
        campaign.kill()
        campaign.communicate(timeout=30)
    if not gone(everyone):
        tally.wrong.append("a process still exists")
    place.look_whole(tally)


def end_in_order(place: Place, tally: Tally) -> None:
    """Continue a directory's campaign to its end: the directory is usable, and the summary has the findings."""
    with start(place.out, 1, 3, "--json") as campaign:
        output, _ = campaign.communicate(timeout=120)
    if campaign.returncode not in (0, 1):
        tally.wrong.append(f"{place.out.name}: status {campaign.returncode} after all, {output[-300:]}")
        return
    summary = json.loads(output)
    if summary["findings_unwritten"] or summary["lost_vms"] or summary["corpus"] < place.corpus:
        tally.wrong.append(f"{place.out.name}: {summary}")
    place.look_whole(tally)
    tally.findings += len(place.counts)


def run(kills: int, directories: int, root: Path, seed: int, say: Callable[[str], None]) -> Tally:
    """Kill processes of campaigns on several directories; return the tally."""
    rng, tally = random.Random(seed), Tally()
    for number in range(directories):
        place = Place(root / f"campaign-{number}")
        share = kills * (number + 1) // directories - kills * number // directories
        while share > 0:
            some = min(share, rng.randint(1, 5))
            before = sum(tally.kills.values())
            one_campaign(place, some, rng, tally)
            share -= max(1, sum(tally.kills.values()) - before)
            say(f"{sum(tally.kills.values())} of {kills} kills, {len(place.counts)} findings, wrong: {tally.wrong}")
        end_in_order(place, tally)
    return tally


def main() -> int:
    """Run with the command line's options; print the tally as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.killing", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="(200)")
    parser.add_argument("--directories", type=int, default=8, metavar="N", help="campaigns' directories (8)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random numbers (1)")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sf-kills-") as root:
        tally = run(args.kills, args.directories, Path(root), args.seed, lambda line: print(line, file=sys.stderr))
    said = {
        name: getattr(tally, name) for name in ("campaigns", "resumed", "gave_up", "findings", "in_flight", "wrong")
    }
    print(json.dumps({"kills": dict(tally.kills), **said, "seconds": round(time.monotonic() - begun)}, indent=1))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
