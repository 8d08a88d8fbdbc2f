# SPDX-License-Identifier: Apache-2.0
"""Each run is predicted with memory as the host has left it by then."""

from __future__ import annotations

from harness.arch.cpu_models import cpu_model
from harness.layout import DATA
from harness.protocol import OP_WRITE
from harness.relations.evidence import predict_runs
from harness.scenario.code_layout import codes_of
from harness.scenario.scenario import parse
from harness.trace.events import HOST, Host
from tests.support.traces import entry, indexed, irq, state

S = state()
CODES = codes_of(parse("shadowfuzz-scenario 1\nabout A test.\nhvc 0x0\n"))


def test_a_write_of_the_host_is_there_at_the_next_run() -> None:
    write = Host(HOST, 0, OP_WRITE, DATA.base, 0x55, 0, True)
    refused = write._replace(b=0x66, error=14)
    whole = indexed([entry(S), irq(S), write, refused, entry(S), irq(S)])
    seen = [
        (at.run.event, at.context.memory.read(DATA.base)) for at in predict_runs(whole, CODES, cpu_model("cortex-a72"))
    ]
    assert seen == [(1, 0), (5, 0x55)]
