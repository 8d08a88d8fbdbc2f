# SPDX-License-Identifier: Apache-2.0
"""The report as HTML: well-formed, self-contained, safe against untrusted text."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.parent import RUN
from fuzz.store.database import Database
from fuzz.store.runs import History
from fuzz.triage.report_page import book_of
from harness.relations.registry import WORDS
from harness.report.html_markup import LIVE_POLICY, POLICY, Markup, el, put
from harness.report.html_report import page
from harness.report.html_script import LIVE_SCRIPT, SCRIPT, hash_of
from tests.support.kept import filled

NO_END = {"meta", "line", "polyline", "input", "rect", "circle"}
STOPS = 30
"""Maximum number of presses of the Tab key to reach any problem."""


class Reader(HTMLParser):
    """Check that elements are closed in order; collect ids, links and elements that could load data."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: set[str] = set()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.stops: list[str] = []
        self._folded = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids[given.get("id") or ""] += "id" in given
        if tag == "a":
            self.links.add(given.get("href") or "")
        self.loads += [f"{tag} {name}" for name in given if name in ("src", "srcset", "data") or name.startswith("on")]
        self.loads += [tag] * (tag in ("script", "link", "iframe", "object", "img", "b:x"))
        self._note_stop(tag, given)
        if tag not in NO_END:
            self.open.append(tag)

    def _note_stop(self, tag: str, given: dict[str, str | None]) -> None:
        """Record where the Tab key stops, without folded elements."""
        self._folded += tag == "details"
        seen = self._folded == (tag == "summary") or (tag == "summary" and self._folded == 1)
        if seen and (tag in ("a", "input", "select", "summary", "button") or given.get("tabindex") == "0"):
            self.stops.append(given.get("id") or given.get("href") or tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in NO_END

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._folded -= tag == "details"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Return a database like those of campaigns."""
    return filled(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module")
def html(database: Database) -> str:
    """Return the report of the database."""
    return page(book_of(database))


def test_it_is_one_well_formed_page(html: str, database: Database) -> None:
    reader = Reader()
    reader.feed(html)
    assert reader.open == [] and reader.loads == ["script"], "only the report's script, which loads nothing"
    assert html.count(f"<script>{SCRIPT}</script>") == 1 and hash_of(SCRIPT) in POLICY
    assert not re.search(r"fetch|import|XMLHttp|src|eval|innerHTML", SCRIPT)
    assert not re.search(r"import|XMLHttp|src|eval|innerHTML|//", LIVE_SCRIPT) and hash_of(LIVE_SCRIPT) in LIVE_POLICY
    assert all(count <= 1 for name, count in reader.ids.items() if name)
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids), "a link without a target"
    assert all(link.startswith("#") for link in reader.links), "a link to another page"
    assert {story.anchor for story in book_of(database).stories} <= set(reader.ids)
    assert "url(" not in html and "@import" not in html


def test_the_report_has_all_parts(html: str) -> None:
    reader = Reader()
    reader.feed(html)
    text = " ".join(reader.text)
    for what in (
        "Verdict and reason",
        "Predictions, compared with KVM",
        "Registers, side by side",
        "Trace, step by step",
        "shadowfuzz replay findings/",
        "not measured",
        "host-writes-registers",  # the catalogue, with its hits
        "decisions with both outcomes",
        "a replayed round begins with an exit",  # why an outcome never occurred
        "How the target was lost",
        "How to read this",
        "The model predicts",
        "All 35 registers of the CPU",
        "3 scenarios that ran before",
        "flaky findings",
    ):
        assert what in text, what
    assert "<mark>" in html and ">7</td>" in html
    assert html.count('<span class="badge new">new</span>') == 2 * 3, "in the list of clusters and for each finding"
    assert "like reset-keeps-banked-registers" in text and "of them new" in text


def test_any_problem_is_a_few_stops_away(html: str, database: Database) -> None:
    reader = Reader()
    reader.feed(html)
    assert reader.stops.index("jump") < STOPS - 10, "a list is one stop; then the arrow keys"
    for problem in book_of(database).problems:
        assert f'<option value="#problem-{problem.stories[0].anchor}">' in html


def test_every_relation_has_a_sentence() -> None:
    for words in WORDS.values():
        assert "0x1" in words.sentence.format(exit="WFX", register="x0", expected="0x1", observed="0x2", helper="")


def test_hostile_text_stays_text(html: str) -> None:
    assert "<script" not in html.replace(f"<script>{SCRIPT}</script>", "") and "<b>died" not in html
    assert "\x1b" not in html and "\0" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert put("<&>", Markup("<b>")) == "&lt;&amp;&gt;<b>"
    assert el("p", "x", class_='"><script>') == '<p class="&quot;&gt;&lt;script&gt;">x</p>'


def test_branches_count_exits_and_name_what_was_never_reached(database: Database) -> None:
    rows = {branch.name: branch for branch in book_of(database).branches}
    assert len(rows) > 25, "all decisions of the model, taken or not"
    assert (rows["prep_hvc.psci"].yes, rows["prep_hvc.psci"].no, rows["prep_hvc.psci"].why_not) == (3, 1, "")
    table, cpu_on = rows["insert.room"], rows["prep_hvc.cpu_on"]
    assert (table.yes, table.no) == (0, 0) and "no stage-2 tables" in table.why_not
    assert cpu_on.why_not == "not yet, but possible"


def test_a_running_campaign_is_shown_from_its_statistics(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'findings.db'}")
    History(database).begin("2026-01-01", {"target": "kvm-nvhe"})
    (tmp_path / RUN).mkdir()
    for worker in range(2):
        stats = StatsWriter(tmp_path / RUN / f"worker-{worker}-0.stats")
        stats.add("branches", "prep_hvc.cpu_on=no", 20)
        stats.add("known", "host-writes-registers", 3)
    told = book_of(database, tmp_path)
    assert next(b.no for b in told.branches if b.name == "prep_hvc.cpu_on") == 40
    assert next(hits for entry, hits in told.known if entry.id == "host-writes-registers") == 6


def test_an_empty_campaign(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'findings.db'}")
    text = page(book_of(database))
    assert "Nothing new." in text and "No run has ended yet." in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the Debian package chromium is not installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_real_browser_shows_it(html: str, tmp_path: Path, width: int) -> None:
    report, shot = tmp_path / "r.html", tmp_path / "shot.png"
    report.write_text(html)
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1500"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", report.as_uri()]
    subprocess.run(argv, check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # An empty page of this size is below 10 kB.
    assert shot.stat().st_size > 40_000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the Debian package chromium is not installed")
def test_a_phone_needs_no_scrolling_sideways(html: str, tmp_path: Path) -> None:
    """Chromium has no windows below 500 pixels, so a frame simulates the phone; all details are unfolded."""
    report, phone = tmp_path / "r.html", tmp_path / "phone.html"
    report.write_text(html.replace("<details", "<details open"))
    script = "onload = () => {const b = document.querySelector('iframe').contentDocument.documentElement;"
    script += "document.title = `${b.clientWidth} ${b.scrollWidth} ${b.scrollHeight}`}"
    frame = f"<iframe src='{report.as_uri()}' style='border:0;width:390px;height:800px'></iframe>"
    phone.write_text(f"<!DOCTYPE html><title>no</title><script>{script}</script>{frame}")
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", phone.as_uri()]
    dom = subprocess.run(argv, check=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    wide, needed, high = map(int, dom.stdout.partition("<title>")[2].partition("<")[0].split())
    assert 300 < wide <= 390 and needed <= wide and high > 5000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the Debian package chromium is not installed")
def test_it_prints_on_a_few_pages(html: str, tmp_path: Path) -> None:
    report, printed = tmp_path / "r.html", tmp_path / "r.pdf"
    report.write_text(html)
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={printed}"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()]
    subprocess.run(argv, check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert 0 < len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) < 20


TRY = """
const inner = document.querySelector("iframe").contentDocument, view = inner.defaultView, said = [];
const set = (id, value, kind) => {
  const at = inner.querySelector(id);
  at.value = value;
  at.dispatchEvent(new view.Event(kind));
};
const left = () => [...inner.querySelectorAll("#problems > article")].filter(one => !one.hidden).length;
set("#search", "oopsed", "input"); said.push(left()); set("#search", "", "input");
set("#filter", "crash", "change"); said.push(left()); set("#filter", "", "change");
said.push(left());
set("#jump", inner.querySelector("#jump").options[2].value, "change");
setTimeout(() => {
  said.push("#" + inner.activeElement.id === inner.querySelector("#jump").value);
  const head = inner.querySelector("#errata th");
  head.dispatchEvent(new view.KeyboardEvent("keydown", {key: "Enter"}));
  document.title = [...said, head.getAttribute("aria-sort")].join(" ");
}, 300);
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="the Debian package chromium is not installed")
def test_search_filter_jump_and_sort_work(html: str, tmp_path: Path) -> None:
    report, around = tmp_path / "r.html", tmp_path / "around.html"
    report.write_text(html)
    frame = f"<iframe src='{report.as_uri()}' style='width:1200px;height:800px'></iframe>"
    around.write_text(f"<!DOCTYPE html><title>no</title>{frame}<script>onload = () => {{{TRY}}}</script>")
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    argv += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", around.as_uri()]
    dom = subprocess.run(argv, check=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert dom.stdout.partition("<title>")[2].partition("<")[0] == "1 2 3 true ascending"
