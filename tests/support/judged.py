# SPDX-License-Identifier: Apache-2.0
"""A process that checks recorded runs and prints one hash over all that was judged: of the sources, or compiled.

``python -m tests.support.judged TARGET LEVEL DIRECTORY``: each NAME.scn of the directory with its NAME.trace.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import fields
from pathlib import Path

from fuzz.compiled.use import use_compiled


def main(target: str, level: str, directory: str) -> None:
    """Print whether the checker is compiled, how much was judged, and the hash."""
    use_compiled(os.environ)
    from fuzz.campaign.features import features
    from fuzz.targets.options import TargetOptions
    from fuzz.targets.target_set import open_targets
    from harness.findings import check
    from harness.findings.checked import CheckResult
    from harness.scenario.scenario import load
    from harness.trace.tracefile import parse_trace

    def plain(checked: CheckResult) -> object:
        rows = {field.name: getattr(checked, field.name) for field in fields(checked)}
        rows["judged"] = [
            (tuple(one.divergence), one.known and (one.known.id, getattr(one.known, "by_rule", True)))
            for one in checked.judged
        ]
        return sorted((name, sorted(row.items()) if hasattr(row, "items") else row) for name, row in rows.items())

    (side,) = open_targets(TargetOptions(target, level, cold=True)).sides
    digest, judged = hashlib.sha256(), 0
    for path in sorted(Path(directory).glob("*.scn")):
        trace = parse_trace(path.with_suffix(".trace").read_text())
        checked = side.check(load(path), trace)
        judged += len(checked.judged)
        digest.update(repr((path.name, plain(checked), sorted(features(trace, checked)))).encode())
    print("compiled" if str(check.__file__).endswith(".so") else "pure", judged, digest.hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
