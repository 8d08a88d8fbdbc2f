# SPDX-License-Identifier: Apache-2.0
"""Write and read a machine's configuration as the text of a target file, as a finding keeps it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from harness.errors import InputError
from harness.vm.config import KEYS, MachineConfig, Mode

TARGET, OTHER_TARGET = "target.toml", "other-target.toml"
"""Names of the texts that a finding keeps: of its target, and of the second target if two were compared."""
_NAME = "# "


def format_config(config: MachineConfig) -> str:
    """Return a configuration as TOML with the keys of a target file; its name is in a comment in the first line."""
    lines = [f"{_NAME}{config.name}"]
    for key in KEYS:
        value = getattr(config, key.name)
        if value is None or (key.optional and not value) or (key.name == "kernel_package" and not value):
            continue
        plain = value.value if isinstance(value, Mode) else str(value) if isinstance(value, Path) else value
        lines.append(f"{key.name} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def read_stored(text: str, name: str, where: str) -> MachineConfig:
    """Return the configuration that :func:`format_config` wrote; its kernel need not exist any more.

    InputError: it is another text.
    """
    try:
        table = tomllib.loads(text)
        values = {key.name: key.parse(table[key.name]) for key in KEYS if key.name in table}
        tree = values.pop("kernel_tree", None)
        given = {"kernel_package": "", **values, "kernel_tree": None if tree is None else Path(str(tree))}
        return MachineConfig(name=name, **given)  # type: ignore[arg-type]  # KEYS checks each type
    except (ValueError, TypeError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise InputError(where, None, f"not a target: {type(error).__name__} {str(error)[:100]}".strip()) from None
