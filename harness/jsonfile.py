# SPDX-License-Identifier: Apache-2.0
"""JSON that this project wrote to a file, read again: anything else gets one error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import InputError


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"a number that cannot be: {digits[:20]}")
    return value


def strict_loads(text: str | bytes) -> Any:
    """Return a JSON document.  ValueError, RecursionError: none, or it holds NaN, an infinity or a lone surrogate."""
    document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    json.dumps(document, ensure_ascii=False).encode()
    return document


@contextmanager
def reading(path: Path, what: str) -> Iterator[Any]:
    """Give the document of a file to a block that takes it apart; ``what`` says what the file was to be.

    InputError: it cannot be read, or is not what the block expects.
    """
    try:
        yield strict_loads(path.read_bytes())
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
