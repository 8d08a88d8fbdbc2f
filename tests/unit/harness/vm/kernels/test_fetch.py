# SPDX-License-Identifier: Apache-2.0
"""Selection of the release whose headers are used for one without headers."""

from __future__ import annotations

from harness.vm.debian.apt import Package
from harness.vm.debian.kernel_archive import Kernel
from harness.vm.kernels.fetch import donors


def package(name: str, version: str, architecture: str = "arm64", depends: tuple[str, ...] = ()) -> Package:
    return Package(name, version, architecture, depends, "0" * 64)


def test_a_donor_is_the_nearest_with_headers_its_own_series_first() -> None:
    headers = (package("linux-headers-x", "1"),)
    rows = [("6.12.94-1", True), ("6.16.3-1", False), ("7.1.3-1", False), ("7.2.6-1", True), ("7.2.9-1", True)]
    kernels = [Kernel(v, v, ("sid",), (), headers if own else ()) for v, own in rows]
    assert [k.version for k in donors(kernels[1], kernels)] == ["7.2.6-1", "6.12.94-1"]
    older = Kernel("6.12.43-1", "6.12.43", ("sid",), (), ())
    assert donors(older, kernels)[0].version == "6.12.94-1"
