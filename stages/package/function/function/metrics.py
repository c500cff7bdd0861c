"""What /metrics on port 8081 tells, under the names that of-watchdog uses."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app
from prometheus_client.process_collector import ProcessCollector

# One process serves, its threads share these, so that nothing needs to be summed.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """The counters of one function."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ["code", "method"],
            registry=self.registry,
        )  # fmt: skip
        self.duration = Histogram(
            "http_request_duration_seconds", "From a request's head to its answer's end.",
            ["code", "method"], registry=self.registry,
        )  # fmt: skip
        self._answered: dict[tuple[str, int], tuple[Any, Any]] = {}
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.inference = Histogram(
            "inference_duration_seconds", "One model on one tile.", ["model"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )  # fmt: skip

    def answered(self, method: str, code: int, seconds: float) -> None:
        """Count one answer; methods that nobody should send share one label."""
        key = (method if method in _METHODS else "unknown", code)
        if key not in self._answered:
            labels = (str(code), key[0])
            self._answered[key] = self.requests.labels(*labels), self.duration.labels(*labels)
        requests, duration = self._answered[key]
        requests.inc()
        duration.observe(seconds)

    def app(self) -> Any:
        """Return the ASGI application that tells them, whatever the path."""
        return make_asgi_app(self.registry, disable_compression=True)
