# SPDX-License-Identifier: Apache-2.0
"""What campaigns store, read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import InputError


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Give the document of a file to a block that takes it apart.  InputError: it is not what the block expects."""
    try:
        yield json.loads(path.read_text())
    except OSError as error:
        raise InputError(str(path), None, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(str(path), None, f"not what `shadowfuzz lemma --store` writes: {error!r}") from error
