# SPDX-License-Identifier: Apache-2.0
"""A target as the text that a finding keeps: it is read back, and --target accepts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.vm.config import list_configs, load_config, parse_config
from harness.vm.config_text import format_config, read_stored


@pytest.mark.parametrize("name", (*list_configs(), "kvm-nvhe@6.12.117", "kvm-nvhe%cortex-a57"))
def test_a_target_comes_back_whole(name: str) -> None:
    config = load_config(name)
    text = format_config(config)
    assert text.startswith(f"# {name}\n")
    assert read_stored(text, name, "here") == config
    if "@" not in name:  # a file has no name of its own
        assert parse_config(name, text, "here") == config


def test_a_kernel_tree_need_not_be_there_any_more() -> None:
    config = replace(
        load_config("kvm-nvhe"), name="kvm-nvhe@/gone", kernel_tree=Path("/gone"), like="kvm-nvhe", kernel_package=""
    )
    assert read_stored(format_config(config), "kvm-nvhe@/gone", "here") == config


@pytest.mark.parametrize("text", ["", "cpu = 5", 'cpu = "cortex-a72"', "[" * 100_000, "\ud800", "cpu = ["])
def test_another_text(text: str) -> None:
    with pytest.raises(InputError, match="not a target"):
        read_stored(text, "x", "here")
