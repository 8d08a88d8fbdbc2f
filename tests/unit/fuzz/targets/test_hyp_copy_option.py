# SPDX-License-Identifier: Apache-2.0
"""Whether the hypervisor's own copies are compared: the option, and the support of the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.cli.main import parsed
from fuzz.targets.hyp_copy_option import check_option, choose_copy
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.errors import InputError, SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.config import load_config

PLAIN, PROTECTED = load_config("kvm-nvhe"), load_config("kvm-7.3-protected")
COMMANDS = ("replay a.scn", "fuzz", "confirm a.scn", "minimise a.scn", "triage")


@pytest.fixture
def nothing(tmp_path: Path) -> PreparedTarget:
    """Return a target whose kernel cannot be read."""
    nowhere = tmp_path / "nowhere"
    return PreparedTarget("fake", nowhere, "00" * 32, "7.3.0", "p", "1", nowhere, nowhere, nowhere, qemu=("no-qemu",))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("word", "wanted"), [("", None), ("--hyp-copy", True), ("--no-hyp-copy", False)])
def test_every_command_takes_the_option(command: str, word: str, wanted: bool | None) -> None:
    assert parsed([*command.split(), *word.split()]).hyp_copy is wanted


def test_outside_of_protected_mode_it_is_rejected_before_anything_is_built() -> None:
    with pytest.raises(InputError, match="--hyp-copy: kvm-nvhe does not run in protected mode"):
        open_targets(TargetOptions("kvm-nvhe", "spec", hyp_copy=True))
    for wanted in (None, False):
        check_option(wanted, [PLAIN, PROTECTED])


def test_inaccessible_copies_are_an_error_or_reported(nothing: PreparedTarget) -> None:
    said: list[str] = []
    assert choose_copy(None, PLAIN, nothing, said.append) is None
    assert choose_copy(False, PROTECTED, nothing, said.append) is None
    assert said == []
    assert choose_copy(None, PROTECTED, nothing, said.append) is None
    assert len(said) == 1 and "without the relations flush and sync" in said[0] and "nowhere" in said[0]
    with pytest.raises(SetupError, match="nowhere"):
        choose_copy(True, PROTECTED, nothing, said.append)
