"""Our numbers in Prometheus' text format; the only file that knows its library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from inferq.metrics import Gauge, Metrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Numbers(Collector):
    def __init__(self, metrics: Metrics, gauges: Iterable[Gauge]) -> None:
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
            for labels in histogram.counts:
                buckets = [("+Inf" if bound == float("inf") else repr(bound), count) for bound, count in histogram.cumulated(labels)]
                measured.add_metric(labels, buckets, histogram.sums[labels])
            yield measured
        for gauge in self._gauges:
            now = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in gauge.values.items():
                now.add_metric(labels, value)
            yield now


def exposition(metrics: Metrics, gauges: Iterable[Gauge]) -> bytes:
    """Everything, and what the process costs."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(metrics, gauges))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    text: bytes = generate_latest(registry)
    return text
