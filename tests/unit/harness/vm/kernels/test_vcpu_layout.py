# SPDX-License-Identifier: Apache-2.0
"""Layouts as numeric offsets: a release without headers, with the needed types in its BTF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from harness.errors import SetupError
from harness.vm.kernels.btf import Btf
from harness.vm.kernels.vcpu_layout import SLOTS, SYNC_CALL, render_borrowed


class FakeBtf:
    """Every member has some offset; the hypervisor's calls are given."""

    def __init__(self, calls: Mapping[str, int]) -> None:
        self.enums = {"vcpu_sysreg": {name: i for i, name in enumerate(SLOTS)}, "__kvm_host_smccc_func": calls}

    def enum(self, name: str) -> Mapping[str, int]:
        """Return the given enumerators."""
        return self.enums[name]

    def offset(self, _path: str) -> int:
        """Return some offset."""
        return 8

    def size(self, _name: str) -> int:
        """Return some size."""
        return 1024


def render(release: str, calls: Mapping[str, int]) -> str:
    """Return the header of a release."""
    return render_borrowed(cast(Btf, FakeBtf(calls)), release)


def test_the_call_that_asks_for_a_vcpus_registers() -> None:
    assert "SF_SYNC_ID 54\n" in render("7.3.4-cloud-arm64", {SYNC_CALL: 54})
    assert "SF_SYNC_ID" not in render("7.2.13-cloud-arm64", {})
    with pytest.raises(SetupError, match="sync_state"):
        render("7.4.1-cloud-arm64", {})
