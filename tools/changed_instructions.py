#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fuzz kernels in which one instruction of KVM is changed, one kernel at a time, and record when each is detected.

    python tools/changed_instructions.py --seconds 60            every row, docs and data rewritten
    python tools/changed_instructions.py mmio-length --dry       one row, nothing written

exit status: 0 all were detected and the unchanged kernel shows nothing new, 1 otherwise, 2 bad usage
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from harness.vm.build.prepare import prepare  # noqa: E402
from harness.vm.config import DEFAULT_TARGET, load_config  # noqa: E402
from harness.vm.kernels.kallsyms import read_symbols  # noqa: E402
from tests.vm.changed import STOCK, document, page, search_all  # noqa: E402
from tests.vm.changes import CHANGES  # noqa: E402

DATA, PAGE = ROOT / "tests" / "vm" / "changes.json", ROOT / "docs" / "changed-instructions.md"


def main() -> int:
    """Fuzz each changed kernel, print a line for each, write data and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [change.name for change in CHANGES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of fuzzing for each (60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order and the mutants (1)")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    args = parser.parse_args()
    if unknown := set(args.names) - set(names):
        parser.error(f"no such change: {', '.join(sorted(unknown))}")
    wanted = [change for change in CHANGES if change.name in (args.names or names)]
    prepared = prepare(load_config(DEFAULT_TARGET))
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for one in search_all(wanted, Path(directory), read_symbols(prepared.kernel), args.seconds, args.seed):
            found.append(one)
            by = f"{one.divergence} in {one.scenario} (like: {one.hidden_by})" if one.divergence else "nothing new"
            print(f"{one.change:20} {one.seconds:6.2f} s {one.scenarios:5} scenarios  {by}", flush=True)
    if not args.dry:
        kept = document(found, prepared.kernel_release, args.seconds, args.seed)
        if args.names and DATA.exists():
            before = json.loads(DATA.read_text())["noticed"]
            kept["noticed"] = [row for row in before if row["change"] not in (*args.names, STOCK)] + kept["noticed"]
        DATA.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.write_text(page(kept))
    return 0 if all(bool(one.divergence) == (one.change != STOCK) for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
