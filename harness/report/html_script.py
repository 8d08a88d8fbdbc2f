# SPDX-License-Identifier: Apache-2.0
"""Provide the report's scripts: search box, sorted tables, list of problems; on a server's page details on demand.

The page works without them.  A file's script loads nothing and sends nothing.
"""

import base64
import hashlib

SCRIPT = """
document.documentElement.classList.add("script");
const box = document.querySelector("#search"), found = document.querySelector("#found");
const filter = document.querySelector("#filter");
const rows = [...document.querySelectorAll(
  "section > article, section > .wide tbody tr, section > details > .wide tbody tr, .clusters > li")];
const text = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
function search() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean), tag = filter ? filter.value : "";
  let shown = 0;
  for (const row of rows) {
    const tags = row.dataset.tags, other = tag && tags !== undefined && !tags.split(" ").includes(tag);
    row.hidden = other || !words.every(word => text.get(row).includes(word));
    shown += !row.hidden;
    if (words.length && !row.hidden) open_around(row.parentElement);
  }
  found.textContent = words.length || tag ? `${shown} of ${rows.length} rows` : "";
}
if (box) box.addEventListener("input", search);
if (filter) filter.addEventListener("change", search);
function open_around(element) {
  for (let at = element; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}
function reveal() {
  const at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!at) return;
  open_around(at);
  const first = at.matches("details") ? at.querySelector("summary") : at;
  if (first === at) at.tabIndex = -1;
  first.focus();
  at.scrollIntoView();
}
addEventListener("hashchange", reveal);
if (location.hash) reveal();
const jump = document.querySelector("#jump");
if (jump) jump.addEventListener("change", () => { if (jump.value) location.hash = jump.value; });
function sort(head) {
  const body = head.closest("table").tBodies[0], at = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => row.cells[at].textContent.replace(/,/g, "");
  const order = (a, b) => value(a).localeCompare(value(b), undefined, {numeric: true});
  for (const row of [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a))) body.append(row);
}
for (const head of document.querySelectorAll("table.sort th")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(head); });
}
"""
"""JavaScript of every page."""
LIVE_SCRIPT = (
    SCRIPT
    + """
for (const part of document.querySelectorAll("details[data-load]")) part.addEventListener("toggle", async () => {
  const place = part.dataset.load;
  if (!part.open || !place) return;
  delete part.dataset.load;
  const said = part.querySelector(":scope > p");
  try {
    const answer = await fetch(place);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    said.replaceWith(document.adoptNode(page.querySelector("article")));
  } catch (error) {
    part.dataset.load = place;
    said.append(` could not be loaded: ${error.message}`);
  }
});
"""
)
"""JavaScript of a server's page: load an unfolded finding from the same server."""


def hash_of(script: str) -> str:
    """Return a script's hash for a Content-Security-Policy (CSP Level 3, hash-source)."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
