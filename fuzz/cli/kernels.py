# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels``: list and fetch the kernels of Debian's archive."""

from __future__ import annotations

import os
import sys

import click

from fuzz.cli.declare import TEXT, Args, declare, flag
from fuzz.cli.options import json_flag
from fuzz.cli.output import print_json, print_table
from fuzz.cli.progress import progress_printer
from harness.errors import InputError
from harness.exit_status import ExitStatus

_say = progress_printer("kernels")

EPILOG = """\
examples:
  shadowfuzz kernels list
      list every kernel: version, release, suites, size, how it is recorded, what it supports, whether it is cached
  shadowfuzz kernels fetch 7.3 6.12.117+deb13
      fetch the newest kernel whose version begins with each of these
  shadowfuzz replay corpus/seeds --target kvm-nvhe@7.3
      use it: CONFIG@VERSION is the name of a target

  shadowfuzz kernels config > shadowfuzz.config
      write the configuration that a kernel of your own needs: merge it into a .config, or run
      make KCONFIG_ALLCONFIG=shadowfuzz.config allnoconfig

recording: "own headers": the recording module is built with the kernel's own headers; "borrowed": the archive
no longer has them; a neighbour's are used, and the layout of KVM's structures is read from the kernel's own BTF.

exit status: 0 done, 2 bad usage or input, 3 a kernel could not be fetched
"""


@declare("list", "List the arm64 cloud kernels of Debian's archive, and which of them are in the cache.", EPILOG)
@flag("--offline", help="use the list of the last run; do not access the network")
@json_flag
def list_command(args: Args) -> int:
    """Update the list from the archive, and print it."""
    from fuzz.targets.kernels import HEADS, kernel_row, table_lines, table_rows, table_totals
    from harness.vm.cache import Cache, default_root
    from harness.vm.kernels.fetch import load_kernels

    cache = Cache(default_root(os.environ))
    kernels = load_kernels(cache, _say, refresh=not args.offline)
    rows = [kernel_row(cache, kernel) for kernel in kernels.kernels]
    if args.json:
        print_json("kernels list", {"kernels": rows, "missing_suites": dict(kernels.missing)})
    elif sys.stdout.isatty():
        print_table(HEADS, table_rows(rows, kernels), red=lambda _: False)
        print("\n".join(table_totals(rows, kernels)))
    else:
        print("\n".join(table_lines(rows, kernels)))
    return ExitStatus.OK


@declare("config", "Print the configuration that a kernel of your own needs, each symbol with its reason.", EPILOG)
def config_command(_args: Args) -> int:
    """Print the fragment."""
    from harness.vm.kernels.needed_config import fragment

    print("\n".join(fragment()))
    return ExitStatus.OK


@declare("fetch", "Fetch kernels of Debian's archive with their headers.", EPILOG)
@click.argument("versions", nargs=-1, type=TEXT, metavar="[VERSION...]", help="a version, or its beginning")
@flag("--all", help="fetch everything that the archive offers")
@json_flag
def fetch_command(args: Args) -> int:
    """Fetch kernels; return 3 if one could not be fetched."""
    from fuzz.targets.kernels import fetch_all
    from harness.vm.cache import Cache, default_root
    from harness.vm.kernels.fetch import find_kernel, load_kernels

    if bool(args.versions) == args.all:
        raise InputError("kernels fetch", None, "expected either a VERSION or --all")
    cache = Cache(default_root(os.environ))
    if args.all:
        wanted = [kernel for kernel in load_kernels(cache, _say, refresh=True).kernels if kernel.listed]
    else:
        wanted = [find_kernel(cache, version, _say) for version in args.versions]
    failed = fetch_all(cache, wanted, _say)
    if args.json:
        fetched = [kernel.version for kernel in wanted if kernel.version not in failed]
        print_json("kernels fetch", {"fetched": fetched, "failed": failed})
    else:
        print(f"{len(wanted) - len(failed)} kernels are in the cache")
        for why in failed.values():
            print(why)
    return ExitStatus.FAILED if failed else ExitStatus.OK
