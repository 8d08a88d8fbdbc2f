# SPDX-License-Identifier: Apache-2.0
"""List the kernels of Debian's archive that can be targets, with their features, and fetch them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.debian.kernel_archive import FEATURES, Kernel, Kernels
from harness.vm.kernels.fetch import fetch, find_fetched


def supports(kernel: Kernel) -> tuple[str, ...]:
    """Return the names of a kernel's features."""
    return tuple(feature.name for feature in FEATURES if kernel.linux >= feature.since)


def kernel_row(cache: Cache, kernel: Kernel) -> dict[str, object]:
    """Return the properties of a kernel as plain data, and whether it is in the cache."""
    return {
        "version": kernel.version,
        "release": kernel.uname,
        "suites": list(kernel.suites),
        "bytes": kernel.size,
        "recording": "own headers" if kernel.headers else "borrowed",
        "supports": list(supports(kernel)),
        "listed": kernel.listed,
        "fetched": find_fetched(cache, kernel) is not None,
    }


HEADS = ("package version", "release", "suites", "MiB", "recording", "supports")
_WIDTHS = (21, 31, 26, -4, 11, 0)
"""Minimum widths of columns in plain lines; negative: aligned to the right."""


def table_rows(rows: Sequence[Mapping[str, object]], kernels: Kernels) -> Iterator[tuple[str, ...]]:
    """Yield a row for each kernel, in the order of :data:`HEADS`."""
    for kernel, row in zip(kernels.kernels, rows, strict=True):
        where = ", ".join(kernel.suites) if kernel.listed else "gone from the archive"
        here = "  (here)" if row["fetched"] else ""
        size = f"{kernel.size / (1 << 20):.0f}"
        yield kernel.version, kernel.uname, where, size, str(row["recording"]), f"{', '.join(supports(kernel))}{here}"


def table_totals(rows: Sequence[Mapping[str, object]], kernels: Kernels) -> Iterator[str]:
    """Yield the totals, then the suites that could not be read."""
    listed = [kernel for kernel in kernels.kernels if kernel.listed]
    own = sum(bool(kernel.headers) for kernel in listed)
    yield (
        f"{len(listed)} kernels in the archive, {own} with headers; {len(kernels.kernels) - len(listed)} gone; "
        f"{sum(kernel.size for kernel in listed) >> 20} MiB to fetch, {sum(bool(row['fetched']) for row in rows)} here"
    )
    for suite, why in kernels.missing.items():
        yield f"suite {suite} could not be read: {why}"


def table_lines(rows: Sequence[Mapping[str, object]], kernels: Kernels) -> Iterator[str]:
    """Yield a line for each kernel, then the totals, then the suites that could not be read."""
    for row in (HEADS, *table_rows(rows, kernels)):
        cells = (f"{cell:>{-w}}" if w < 0 else f"{cell:{w}}" for cell, w in zip(row, _WIDTHS, strict=True))
        yield " ".join(cells)
    yield from table_totals(rows, kernels)


def fetch_all(cache: Cache, wanted: Sequence[Kernel], progress: Callable[[str], None]) -> dict[str, str]:
    """Fetch kernels with their headers; return the errors by version."""
    failed: dict[str, str] = {}
    start, total, done = time.monotonic(), sum(kernel.size for kernel in wanted), 0
    for number, kernel in enumerate(wanted, start=1):
        try:
            fetch(cache, kernel, progress)
        except SetupError as error:
            failed[kernel.version] = str(error)
        done += kernel.size
        progress(
            f"{number} of {len(wanted)}: {kernel.version} {failed.get(kernel.version, 'is here')}; "
            f"{done >> 20} of {total >> 20} MiB, {time.monotonic() - start:.0f} s"
        )
    return failed
