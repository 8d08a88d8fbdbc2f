# SPDX-License-Identifier: Apache-2.0
"""Where a fast QEMU was found to record what Debian's own does: one entry of the cache for each target, with the proof.

It counts for these very programs, this kernel, recording module and machine; anything else is another key.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import SetupError
from harness.vm.cache import Cache, hash_file, hash_inputs
from harness.vm.clone import NO_FILES
from harness.vm.fast_qemu.build import FastQemu
from harness.vm.qemu_command import Machine, command_line
from harness.vm.qemu_versions import QEMU

KIND = "proven-qemu"
RECIPE = "1"
"""Part of the key: to be raised when more is compared than before."""


def proof_key(fast: FastQemu, machine: Machine) -> str:
    """Return the key of a proof: the hashes of both programs, and of all that the machine boots.

    SetupError: a file of them is not there.
    """
    own = shutil.which(QEMU)
    files = [Path(own or QEMU), machine.kernel, machine.initrd]
    try:
        hashes = [fast.sha256, *map(hash_file, files)]
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}") from error
    return hash_inputs([RECIPE, *hashes, *command_line(replace(machine, qemu=()), NO_FILES)])


def is_proven(cache: Cache, fast: FastQemu, machine: Machine) -> bool:
    """Whether a fast QEMU recorded what Debian's own does, on this machine."""
    return cache.find(KIND, proof_key(fast, machine)) is not None


def keep_proof(cache: Cache, fast: FastQemu, machine: Machine, prove: Callable[[], Mapping[str, object]]) -> None:
    """Keep what ``prove`` returns, unless there is a proof; what it raises leaves none."""
    cache.get(KIND, proof_key(fast, machine), lambda _: prove(), keep=24)
