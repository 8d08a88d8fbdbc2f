# SPDX-License-Identifier: Apache-2.0
"""How campaigns stand, as numbers in Prometheus' text format: what ``shadowfuzz report serve`` answers at /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from fuzz.store.database import Database
from fuzz.store.nodes import Nodes
from harness.report.campaign_data import NodeRow

EXPOSITION = CONTENT_TYPE_PLAIN_0_0_4
NODE = ("node", "host", "target")


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says of its last run.

    ``run`` is its id, ``sample`` its last sample by column, ``running``: it has not ended.  ``findings`` counts them by
    shelf and kind, ``corpus`` scenarios by target.  ``unreadable`` counts rows of nodes.
    """

    run: str
    running: bool
    sample: Mapping[str, int]
    nodes: tuple[NodeRow, ...]
    findings: Mapping[tuple[str, str], int]
    corpus: Mapping[str, int]
    unreadable: int


def read_standing(database: Database) -> Standing:
    """Read how the last run stands.  InputError: the database cannot be read."""
    rows, wrong = Nodes(database).readable()
    with database.access() as access:
        runs, _ = access.readable_rows("runs", "SELECT id, summary FROM runs ORDER BY started DESC, id DESC LIMIT 1")
        run = runs[0]["id"] if runs else ""
        sql = "SELECT * FROM samples WHERE run = :run ORDER BY second DESC LIMIT 1"
        samples, _ = access.readable_rows("samples", sql, run=run)
        sql = "SELECT shelf, kind, COUNT(*) AS n FROM findings GROUP BY shelf, kind"
        found, _ = access.readable_rows("findings", sql)
        corpus, _ = access.readable_rows("corpus", "SELECT target, COUNT(*) AS n FROM corpus GROUP BY target")
    return Standing(
        run=run,
        running=bool(runs) and runs[0]["summary"] is None,
        sample={name: value for name, value in (samples[0] if samples else {}).items() if isinstance(value, int)},
        nodes=tuple(row for row in rows if row.run == run),
        findings={(row["shelf"], row["kind"]): row["n"] for row in found},
        corpus={row["target"]: row["n"] for row in corpus},
        unreadable=len(wrong),
    )


def exposition(standing: Standing) -> str:
    """Return the numbers as text."""
    registry = CollectorRegistry()
    registry.register(_Collector(standing))  # type: ignore[no-untyped-call,unused-ignore]
    return generate_latest(registry).decode()


class _Collector:
    """What Prometheus' library asks for the families of numbers."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        now = self._standing
        yield _one("shadowfuzz_running", "1 while the last run has not ended", int(now.running))
        for name, what in _SAMPLE.items():
            yield _one(f"shadowfuzz_run_{name}", f"{what} of the last run", now.sample.get(name, 0))
        yield _family(
            GaugeMetricFamily("shadowfuzz_findings", "findings in the database", labels=("shelf", "kind")),
            now.findings.items(),
        )
        corpus = GaugeMetricFamily("shadowfuzz_corpus_scenarios", "scenarios of the shared corpus", labels=("target",))
        yield _family(corpus, [((target,), count) for target, count in now.corpus.items()])
        yield _nodes(GaugeMetricFamily, "workers", "workers alive", now.nodes)
        yield _nodes(GaugeMetricFamily, "rate", "checked exits a second lately", now.nodes)
        yield _nodes(GaugeMetricFamily, "coverage", "features of the model that the node covered", now.nodes)
        yield _nodes(CounterMetricFamily, "scenarios", "scenarios since the node joined", now.nodes)
        yield _nodes(CounterMetricFamily, "checked_exits", "checked exits since the node joined", now.nodes)
        states = GaugeMetricFamily("shadowfuzz_nodes", "nodes of the last run, by state", labels=("state",))
        names = [row.state.partition(":")[0] for row in now.nodes]
        yield _family(states, [((name,), names.count(name)) for name in sorted({*names, "running", "lost", "failed"})])
        yield _one("shadowfuzz_unreadable_rows", "rows of nodes that cannot be read", now.unreadable)


_SAMPLE = {
    "second": "seconds",
    "scenarios": "scenarios",
    "checked_exits": "checked exits",
    "coverage": "covered features of the model",
    "clusters": "unexplained clusters",
}


def _one(name: str, what: str, value: int) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _family(
    family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[tuple[tuple[str, ...], int]]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _nodes(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, what: str, rows: Iterable[NodeRow]
) -> Metric:
    values = [((row.node, row.host, row.target), int(getattr(row, name))) for row in rows]
    return _family(kind(f"shadowfuzz_node_{name}", what, labels=NODE), values)
