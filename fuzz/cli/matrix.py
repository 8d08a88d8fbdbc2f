# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels matrix``: run scenarios on many targets, with one verdict per cell."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import campaign_beside_out, deterministic, file, json_flag, number, out_file, paths, tree
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.output_file import write_whole
from harness.vm.config import DEFAULT_TARGET

if TYPE_CHECKING:
    from fuzz.triage.matrix_run import MatrixPlan

_say = progress_printer("matrix")

EPILOG = """\
examples:
  shadowfuzz kernels matrix corpus/regressions --target 'kvm-nvhe@6.12.*' --target 'kvm-nvhe@7.*'
      every kernel of two series
  shadowfuzz kernels matrix corpus/seeds corpus/regressions --target 'kvm-*@*' --missing --html matrix.html
      run only cells without a result; write all cells as a page
  shadowfuzz kernels matrix corpus/seeds corpus/regressions --target 'kvm-*%qemu-*%*' --deterministic
      every installed version of QEMU (`shadowfuzz setup --emulators`) with every CPU model
  shadowfuzz kernels matrix corpus/regressions --target 'kvm-nvhe@6.12.*' --tree ~/linux
      a kernel of your own next to those of the archive
  shadowfuzz kernels matrix corpus/regressions --target 'kvm-nvhe@*' --missing --cluster 10.0.0.1:6379
      each cell on some node of a cluster; the results are kept here
  shadowfuzz kernels matrix --finding all --campaign out/campaign --target 'kvm-*@7.*' --html findings.html
      which of these kernels show what a campaign found

exit status: 0 no cell diverges, 1 one does, 2 bad usage or input, 3 a target was lost or cannot run
"""


@declare(
    "matrix",
    "Run scenarios on many targets, one boot each, and print a table of verdicts.",
    EPILOG,
    exclusive=(("json", "html", "markdown"),),
)
@paths(instead="--finding")
@option("--finding", "findings", multiple=True, metavar="ID", help="also that of a campaign's finding; `all`: of all")
@campaign_beside_out
@option(
    "--target",
    "targets",
    aliases=("--targets",),
    greedy=True,
    multiple=True,
    metavar="GLOB",
    help="CONFIG or CONFIG@VERSION, %qemu-VERSION and %CPU after it; * and ? match; or a kernel build directory, or "
    f"CONFIG@DIR; may be given several times (default: {DEFAULT_TARGET}@*)",
)
@tree
@flag("--missing", help="run only cells that have no result yet")
@number("--repeat", 1, "runs per cell", most=100)
@deterministic
@option("--cluster", metavar="ADDRESS", help="run cells on the nodes of a Ray cluster, as `shadowfuzz fuzz` names it")
@file("--results", "where results are kept (default: in the cache)")
@json_flag
@out_file("--html", "write one self-contained HTML file")
@flag("--markdown", help="print a Markdown page and nothing else")
def command(args: Args) -> int:
    """Run the cells, store the results, print the table."""
    from fuzz.triage.matrix import CANNOT, DIVERGES, LOST
    from fuzz.triage.matrix_run import run_matrix

    if args.cluster is None:
        found = run_matrix(plan_of(args), _say)
    else:
        from fuzz.cluster.address import read_address
        from fuzz.cluster.cells import cells_on_cluster

        with cells_on_cluster(read_address(args.cluster), _say) as run:
            found = run_matrix(plan_of(args), _say, run)
    if args.json:
        cells = [asdict(cell) for cell in found.cells]
        print_json("kernels matrix", {"targets": found.targets, "cells": cells})
    elif args.html is not None:
        text = found.html(args.html)
        write_whole(args.html, text)
        _say(f"{args.html}, {len(text.encode()) // 1024} KiB")
    elif args.markdown:
        print(found.markdown(), end="")
    else:
        print(found.text())
    if any(cell.verdict in (LOST, CANNOT) for cell in found.cells):
        return ExitStatus.FAILED
    return ExitStatus.DIVERGENCE if any(cell.verdict == DIVERGES for cell in found.cells) else ExitStatus.OK


def plan_of(args: Args) -> MatrixPlan:
    """Return the plan that the options describe."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.matrix_run import MatrixPlan, cases_of_findings

    findings = tuple(args.findings)
    if not findings and not args.paths:
        raise InputError("kernels matrix", None, "expected scenarios, or --finding")
    cases = cases_of_findings(open_database(args.campaign, args.store), findings, _say) if findings else ()
    trees = tuple(args.target) if args.tree else ()  # the names that --tree applies to
    patterns = (*(args.targets or ([] if trees else [f"{DEFAULT_TARGET}@*"])), *trees)
    how = args.repeat, args.missing, args.deterministic, args.results
    return MatrixPlan(tuple(args.paths), patterns, *how, findings=findings, found=cases)
