"""What is measured of endpoints' requests: for the autoscaler and for people (`Meter`), and for Prometheus."""

from collections.abc import Collection, Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.serving.meter import Meter, Sample

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MOST = 500
"""Endpoints that Prometheus is told of; of the others only what is asked for."""


class Measures(Collector):
    """By endpoint. What of it Prometheus reads is forgotten with the endpoint."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._ready: dict[str, int] = {}
        self._requests = Counter(
            "helmsman_endpoint_requests", "Requests answered, by class of status; none: the caller was gone before.",
            ["endpoint", "status"], registry=None,
        )  # fmt: skip
        self._latency = Histogram(
            "helmsman_endpoint_latency_seconds", "From a request's coming to the end of its answer.",
            ["endpoint"], buckets=SECONDS, registry=None,
        )  # fmt: skip
        self._told: set[str] = set()

    def know(self, ready: dict[str, int], now: float) -> None:
        """These are all endpoints, each with how many replicas take requests."""
        for gone in self._meters.keys() - ready.keys():
            del self._meters[gone]
            self._forget(gone)
        for name in ready.keys() - self._meters.keys():
            self._meters[name] = Meter(now)
        self._ready = ready

    def meter(self, name: str, now: float) -> Meter:
        return self._meters.get(name) or Meter(now)

    def sample(self, name: str, now: float) -> Sample:
        return self.meter(name, now).sample(now)

    def answered(self, name: str, status: int | None, seconds: float) -> None:
        """`status` of the answer; None when there was none, since the caller had gone."""
        if name not in self._meters or (name not in self._told and len(self._told) >= MOST):
            return
        self._told.add(name)
        self._requests.labels(name, "none" if status is None else f"{status // 100}xx").inc()
        self._latency.labels(name).observe(seconds)

    def _forget(self, name: str) -> None:
        if name in self._told:
            self._told.remove(name)
            self._requests.remove_by_labels({"endpoint": name})
            self._latency.remove_by_labels({"endpoint": name})

    def collect(self) -> Iterator[Metric]:
        """For a scrape."""
        ready = GaugeMetricFamily(
            "helmsman_endpoint_ready_replicas", "Replicas that take requests.", labels=["endpoint"]
        )
        for name in sorted(self._ready)[:MOST]:
            ready.add_metric([name], self._ready[name])
        yield ready
        yield from self._amounts(sorted(self._meters)[:MOST])
        yield from self._requests.collect()
        yield from self._latency.collect()

    def _amounts(self, names: Collection[str]) -> Iterator[Metric]:
        flight = GaugeMetricFamily(
            "helmsman_endpoint_requests_in_flight", "Requests that are not answered yet.", labels=["endpoint"]
        )
        queue = GaugeMetricFamily(
            "helmsman_endpoint_requests_waiting", "Requests that wait for a replica.", labels=["endpoint"]
        )
        for name in names:
            sample = self._meters[name].sample(0.0)
            flight.add_metric([name], sample.in_flight)
            queue.add_metric([name], sample.queue_depth)
        yield flight
        yield queue
