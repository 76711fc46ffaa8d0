"""Our numbers in Prometheus' text format; the only file that knows its library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from inferq.metrics import Gauge, Metrics
from inferq.timing import Times

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Numbers(Collector):
    def __init__(self, metrics: Metrics, gauges: Iterable[Gauge], spent: Mapping[str, Times]) -> None:
        self._spent = spent
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for counter in self._metrics.counters():
            family = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
            for labels, value in counter.values.items():
                family.add_metric(labels, value)
            yield family
        for histogram in self._metrics.histograms():
            measured = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
            for labels, times in histogram.times.items():
                measured.add_metric(labels, _buckets(times), times.sum)
            yield measured
        spent = HistogramMetricFamily("inferq_store_seconds", "What the store's operations took, a commit group at a time.", labels=("op",))
        for name, times in self._spent.items():
            spent.add_metric((name,), _buckets(times), times.sum)
        yield spent
        for gauge in self._gauges:
            now = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in gauge.values.items():
                now.add_metric(labels, value)
            yield now


def _buckets(times: Times) -> list[tuple[str, float]]:
    return [("+Inf" if bound == float("inf") else repr(bound), count) for bound, count in times.cumulated()]


def exposition(metrics: Metrics, gauges: Iterable[Gauge], spent: Mapping[str, Times]) -> bytes:
    """Everything, and what the process costs."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(metrics, gauges, spent))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    text: bytes = generate_latest(registry)
    return text
