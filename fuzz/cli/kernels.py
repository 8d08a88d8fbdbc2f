# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels``: which kernels Debian's archive offers, and fetching them."""

from __future__ import annotations

import argparse
import json
import os

from fuzz.cli.options import Subparsers
from fuzz.cli.progress import progress_printer
from fuzz.targets.kernels import fetch_all, kernel_row, table_lines
from harness.vm.cache import Cache, default_root
from harness.vm.kernels.fetch import find_kernel, load_kernels
from harness.vm.kernels.needed_config import fragment

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
      write what a kernel of your own needs: merge it into a .config, or make KCONFIG_ALLCONFIG=shadowfuzz.config
      allnoconfig

recording: "own headers": the recording module is built with the kernel's own headers; "borrowed": the archive
no longer has them; a neighbour's are used, and the layout of KVM's structures is read from the kernel's own BTF.

exit status: 0 done, 2 bad usage or input, 3 a kernel could not be fetched
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``kernels``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "kernels",
        help="list or fetch the arm64 cloud kernels of Debian's archive",
        description="List the arm64 cloud kernels of Debian's archive, or fetch some of them with their headers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list what the archive offers, and what is in the cache")
    listing.add_argument(
        "--offline", action="store_true", help="use the list of the last run; do not access the network"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    listing.set_defaults(run=run_list)
    config = actions.add_parser("config", help="the configuration that a kernel of your own needs, with why")
    config.set_defaults(run=run_config)
    fetching = actions.add_parser("fetch", help="fetch kernels with their headers")
    which = fetching.add_mutually_exclusive_group(required=True)
    which.add_argument("versions", nargs="*", default=[], metavar="VERSION", help="a version, or its beginning")
    which.add_argument("--all", action="store_true", help="fetch everything that the archive offers")
    fetching.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    fetching.set_defaults(run=run_fetch)


def run_list(args: argparse.Namespace) -> int:
    """Print the kernels; the archive is asked first."""
    cache = Cache(default_root(os.environ))
    kernels = load_kernels(cache, _say, refresh=not args.offline)
    rows = [kernel_row(cache, kernel) for kernel in kernels.kernels]
    if args.json:
        print(json.dumps({"kernels": rows, "missing_suites": dict(kernels.missing)}, indent=1))
    else:
        print("\n".join(table_lines(rows, kernels)))
    return 0


def run_config(_args: argparse.Namespace) -> int:
    """Print the fragment."""
    print("\n".join(fragment()))
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch; 3 if one could not be had."""
    cache = Cache(default_root(os.environ))
    if args.all:
        wanted = [kernel for kernel in load_kernels(cache, _say, refresh=True).kernels if kernel.listed]
    else:
        wanted = [find_kernel(cache, version, _say) for version in args.versions]
    failed = fetch_all(cache, wanted, _say)
    if args.json:
        fetched = [kernel.version for kernel in wanted if kernel.version not in failed]
        print(json.dumps({"fetched": fetched, "failed": failed}, indent=1))
    else:
        print(f"{len(wanted) - len(failed)} kernels are here")
        for why in failed.values():
            print(why)
    return 3 if failed else 0
