# SPDX-License-Identifier: Apache-2.0
"""The report's one script: a search box, and tables that are sorted by a click on a head.

The page works without it.
"""

import base64
import hashlib

SCRIPT = """
document.documentElement.classList.add("script");
const box = document.querySelector("#search"), found = document.querySelector("#found");
const rows = [...document.querySelectorAll("section tbody tr, article")];
const text = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
function search() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !words.every(word => text.get(row).includes(word));
    shown += !row.hidden;
  }
  found.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}
if (box) box.addEventListener("input", search);
for (const head of document.querySelectorAll("table.sort th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], at = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => row.cells[at].textContent.replace(/,/g, "");
  const order = (a, b) => value(a).localeCompare(value(b), undefined, {numeric: true});
  for (const row of [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a))) body.append(row);
});
"""
"""JavaScript; it loads nothing and sends nothing."""
HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
"""Of SCRIPT, as a Content-Security-Policy names it (CSP Level 3, hash-source)."""
