# SPDX-License-Identifier: Apache-2.0
"""The fast QEMU, where one was built: it records what Debian's does, and would be refused if it did not."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice

import pytest

from fuzz.targets.fast_qemu import compare_machines, corpus_of, on_fast
from harness.errors import SetupError
from harness.vm.build.prepare import prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import load_config
from harness.vm.fast_qemu.build import FastQemu, find_fast_qemu
from harness.vm.target import boot

SOME = 12
"""So many scenarios: the whole corpus is compared when the program is set up."""


@pytest.fixture(scope="module")
def fast() -> FastQemu:
    try:
        found = find_fast_qemu(Cache(default_root(os.environ)))
    except SetupError as error:
        pytest.skip(f"no fast QEMU: {error}")
    if found is None:
        pytest.skip("no fast QEMU was built here (`shadowfuzz setup --fast-qemu`)")
    return found


@pytest.mark.parametrize(("environment", "differs"), [((), False), (("env", "SHADOWFUZZ_SABOTAGED=1"), True)])
def test_flushes_that_do_not_reach_a_set_that_waits_are_seen(
    fast: FastQemu, environment: tuple[str, ...], differs: bool
) -> None:
    config = load_config("kvm-nvhe")
    own = prepare(config)
    other = on_fast(own, fast)
    other = replace(other, qemu=(*environment, *other.qemu))
    with boot(config, own, deterministic=True) as one, boot(config, other, deterministic=True) as two:
        found = compare_machines(one, two, islice(corpus_of(config, own), SOME))
    assert bool(found.differ) is differs and found.exits > SOME
