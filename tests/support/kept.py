# SPDX-License-Identifier: Apache-2.0
"""A database with a finding for each signature of the recorded trace, a flaky one, a crash and an odd one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, FLAKY, TRACE, Store
from fuzz.store.marks import Marks
from fuzz.store.nodes import Nodes
from fuzz.store.runs import History
from fuzz.store.shared_corpus import Offer, SharedCorpus, corpus_key
from fuzz.targets.observation import signatures
from harness.arch.cpu_models import cpu_model
from harness.errors import Dump, Remains
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import Finding, Signature, Subject, Tries, difference
from harness.findings.known_divergences import Catalogue
from harness.report.campaign_data import NodeRow, Sample
from harness.scenario.scenario import format_scenario, load
from harness.trace.tracefile import load_trace
from harness.vm.crash import Report, Reproduction, to_text
from tests.support.paths import CORPUS, GOLDEN

SUBJECT = Subject("kvm-nvhe", "6.1.0-x", "ab" * 32, "spec")
WHEN = "2026-01-02T03:04:05+00:00"
CONSOLE = "Kernel panic - not syncing: <script>alert(1)</script>\x1b[2J\0 end"


REGISTERS = {**{f"x{n}": n for n in range(31)}, "pc": 1 << 63, "v0": 1 << 127, "HCR_EL2": 0x80000000, "SCTLR_EL1": 5}
REPORT = Report(
    "oops",
    "Internal error: BRK handler: 00000000f2000000 [#1] SMP",
    "kvm_handle_mmio_return+0x0",
    "kvm-nvhe: the kernel panicked or powered off",
    Remains(
        REGISTERS,
        {"pc": "psci_sys_reset+0x24"},
        {"f+0x8": 9},
        Dump("dumps/crash-0/0001.kdump", 512 << 20, 14_000_000, 0.6),
        ("no <x>",),
    ),
    Reproduction((0, 3), (2, 3), 2),
)


def filled(root: Path) -> Database:
    """Return a database in ``root`` like those of campaigns."""
    root.mkdir(exist_ok=True)
    database = Database(default_url(root))
    store, flaky = Store(database, FINDINGS), Store(database, FLAKY)
    scenario, trace = load(GOLDEN / "mixture.scn"), load_trace(GOLDEN / "mixture.trace.json")
    checked = check(scenario, trace, "spec", cpu_model("cortex-a72"), Catalogue.load(CORPUS / "known", "spec"))
    text: Mapping[str, str] = {TRACE: (GOLDEN / "mixture.trace.json").read_text()}

    def finding(key: Signature, hits: int) -> Finding:
        members = [difference(d) for d in checked.unexplained if signature(d) == key]
        tries = Tries(hits, 1)
        return Finding("divergence", key, SUBJECT, tuple(members[:4]), len(members), tries, tries, WHEN)

    keys = signatures(checked)
    for key in keys:
        store.add(finding(key, 1), scenario, text, finding(keys[0], 1).id)
    Marks(database).set(CRASHED.id, WHEN, note="to be looked at")
    store.bump({finding(keys[0], 1).id: 1}, "2026-01-03")
    flaky.add(finding(keys[-1], 0), scenario, text)
    store.add(OLD_CRASH, scenario, {"console.txt": CONSOLE})
    earlier = {f"earlier-{n:02}.scn": format_scenario(scenario) for n in (1, 2, 3)}
    store.add(CRASHED, scenario, {"console.txt": CONSOLE, "crash.json": to_text(REPORT), **earlier})
    store.add(_plain("divergence", ("restore", "pc", "WFX", "none"), ""), None)
    history = History(database)
    run = history.begin(WHEN, {"target": "kvm-nvhe", "jobs": 2})
    for second in range(0, 60, 5):
        history.sample(run, Sample(second, 10 * second, 100 * second, 50 + second, second // 10))
    Nodes(database).put([NodeRow(run, "n1", "host", "kvm-nvhe", "lost: <gone>", WHEN, 0, 10, 100, 50, 7)])
    shared = SharedCorpus(database, corpus_key(SUBJECT))
    shared.push([Offer(format_scenario(scenario), frozenset({1, 2}))])
    with database.access(write=True) as access:
        sql = "INSERT INTO shares (node, shelf, id, count) VALUES ('run/n1', :shelf, :id, 1)"
        access.run(sql, shelf=FINDINGS, id=CRASHED.id)
    ways = {"prep_hvc.psci=yes": 3, "prep_hvc.psci=no": 1, "restore.skip=no": 2}
    history.end(run, {"known_by_entry": {"host-writes-registers": 7}, "branches": ways})
    return database


def _plain(kind: str, key: Signature, detail: str) -> Finding:
    return Finding(kind, key, SUBJECT, (), 0, Tries(0, 0), Tries(0, 0), WHEN, detail)


OLD_CRASH = _plain("crash", ("VmLost", "Kernel panic"), "<b>died</b>\x1b")
"""Return a crash of an older version, without a report."""
CRASHED = _plain(
    "crash", ("oops", "Internal error: BRK handler: N [#N] SMP", "kvm_handle_mmio_return"), "the host kernel oopsed"
)
"""Return a crash with all its texts; two scenarios must run before it."""
