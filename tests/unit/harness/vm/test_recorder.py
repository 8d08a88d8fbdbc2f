# SPDX-License-Identifier: Apache-2.0
"""Requirements of a recording, as far as they can be tested without a VM."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.build.programs import Program
from harness.vm.config import load_config
from harness.vm.recorder import record


def test_a_kernel_with_borrowed_headers_cannot_record(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    target = PreparedTarget("t", nowhere, "", "6.5.0-1", "p", "1", nowhere, nowhere, nowhere, borrowed="6.6.0-1")
    with pytest.raises(SetupError, match="cannot record"):
        record(load_config("kvm-nvhe"), target, Program("p", (), {}), nowhere, tmp_path / "out", seconds=1)
    assert list(tmp_path.iterdir()) == []
