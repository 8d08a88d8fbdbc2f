# SPDX-License-Identifier: Apache-2.0
"""Register 8-bit counters with libFuzzer, which reads and clears them at each execution, like compiled-in coverage.

libFuzzer is part of atheris' extension module, so this module depends on atheris.  Call :meth:`Counters.attach` before
``atheris.Setup``.
"""

from __future__ import annotations

import ctypes
import importlib
import zlib

PC_ENTRY = 16  # bytes per counter in the PC table: address and flags


class Counters:
    """``size`` counters (a power of two) in this process's memory, which libFuzzer reads."""

    def __init__(self, size: int) -> None:
        if size & (size - 1):
            raise ValueError("the number of counters must be a power of two")
        self.size = size
        self._buffer = (ctypes.c_uint8 * size)()
        self._pcs = (ctypes.c_uint8 * (size * PC_ENTRY))()
        self._mask = size - 1
        self._attached = False

    def attach(self) -> None:
        """Register the counters with libFuzzer; raises ``RuntimeError`` the second time."""
        if self._attached:
            raise RuntimeError("these counters are attached already")
        core = importlib.import_module("atheris.core_with_libfuzzer")
        assert core.__file__ is not None
        library = ctypes.CDLL(core.__file__)
        for function, array, size in (
            ("__sanitizer_cov_8bit_counters_init", self._buffer, self.size),
            ("__sanitizer_cov_pcs_init", self._pcs, self.size * PC_ENTRY),
        ):
            begin = ctypes.addressof(array)
            init = getattr(library, function)
            init.argtypes, init.restype = [ctypes.c_void_p, ctypes.c_void_p], None
            init(begin, begin + size)
        self._attached = True

    def hit(self, key_index: int) -> None:
        """Count one occurrence of a key; a counter stops at 255."""
        index = key_index & self._mask
        if self._buffer[index] != 255:
            self._buffer[index] += 1

    def fill(self, counts: bytes) -> None:
        """Set all counters at once.  ValueError: the number of counts is not ``size``."""
        if len(counts) != self.size:
            raise ValueError(f"{len(counts)} counts for {self.size} counters")
        ctypes.memmove(self._buffer, counts, self.size)

    def value(self, key_index: int) -> int:
        """Return how often a key occurred since libFuzzer last cleared the counters."""
        return self._buffer[key_index & self._mask]


def key_index(*parts: object) -> int:
    """Return a number for a key that is the same in every process."""
    return zlib.crc32(repr(parts).encode())
