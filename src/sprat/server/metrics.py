"""``Metrics``: what the server counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from sprat.server.model_pool import ServedModel

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of one server; names and labels are part of its interface (docs/server.md).

    Args:
        models: whose state is shown.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = tuple(models)
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens that were processed.", "model")
        self._cached = self._counter("cached_tokens", "Prompt tokens that were in a cache.", "model")
        self._generated = self._counter("generated_tokens", "Generated tokens.", "model")
        self._finished = self._counter("answers", "Answers by the reason of their end.", "model", "finish_reason")
        self._first = Histogram(
            "sprat_first_token_seconds",
            "From the request to the first part of its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._running = self._gauge("running", "Answers that are being generated.")
        self._waiting = self._gauge("waiting", "Requests that wait for a thread.")
        self._loaded = self._gauge("loaded", "1 while the model is in memory.")
        ProcessCollector(registry=self._registry)  # resident memory, CPU time, open files

    def request(self, route: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()

    def first_token(self, model: str, seconds: float) -> None:
        """Count the time until an answer began."""
        self._first.labels(model).observe(seconds)

    def answer(self, model: str, finish_reason: str) -> None:
        """Count an answer that has ended."""
        self._finished.labels(model, finish_reason).inc()

    def tokens(self, model: str, timings: dict[str, Any]) -> None:
        """Count the tokens of a request."""
        self._prompt.labels(model).inc(timings["prompt_n"])
        self._cached.labels(model).inc(timings["cache_n"])
        self._generated.labels(model).inc(timings["predicted_n"])

    def text(self) -> bytes:
        """All of it, in the text format."""
        for model in self._models:
            engine = model.engine
            self._running.labels(model.name).set(engine.n_running if engine else 0)
            self._waiting.labels(model.name).set(engine.n_waiting if engine else 0)
            self._loaded.labels(model.name).set(engine is not None)
        return generate_latest(self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"sprat_{name}", help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(f"sprat_{name}", help, ["model"], registry=self._registry)
