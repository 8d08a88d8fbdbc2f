# SPDX-License-Identifier: Apache-2.0
"""Read JSON files that this project wrote; any other content gives one error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.input_file import open_input

MAX_BYTES = 256 << 20


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"a number out of range: {digits[:20]}")
    return value


def strict_loads(text: str | bytes) -> Any:
    """Return a JSON document.  ValueError, RecursionError: not JSON, or it has NaN, infinity or a lone surrogate."""
    document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    json.dumps(document, ensure_ascii=False).encode()
    return document


@contextmanager
def reading(path: Path, what: str) -> Iterator[Any]:
    """Give the document of a file to a block that decodes it; ``what`` names the expected kind of file.

    InputError: it cannot be read, or is not what the block expects.
    """
    try:
        with open_input(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        yield strict_loads(data)
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        if isinstance(error, OSError):
            raise InputError(str(path), None, f"cannot be read: {error.strerror}") from error
        raise InputError(str(path), None, f"not {what}: {type(error).__name__} {str(error)[:100]}".strip()) from error
