"""What the server counts and times, in Prometheus' text form or as JSON.

Invariant: a number is here because something measured it. Labels have few values that are known beforehand: a route is
its template and never the path, and nothing that a client writes becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from .._version import __version__

TEXT = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The numbers of one server.

    Args:
        model: its name, for `grpo_build_info`.
    """

    def __init__(self, model: str = "") -> None:
        self._registry = CollectorRegistry()
        self._tools: dict[str, str] = {}

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=self._registry)

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, buckets=_SECONDS, registry=self._registry)

        self.requests = counter("grpo_serve_requests", "Requests that were answered", "route", "method", "status")
        self.request_seconds = histogram("grpo_serve_request_seconds", "Time from headers to the last byte", "route")
        self.first_token_seconds = histogram(
            "grpo_serve_time_to_first_token_seconds", "Time from asking the engine to its first token"
        )
        self.output_token_seconds = histogram(
            "grpo_serve_time_per_output_token_seconds", "Time between two tokens of one reply, averaged over the reply"
        )
        self.prompt_tokens = counter("grpo_serve_prompt_tokens", "Tokens of the prompts of replies that were begun")
        self.generation_tokens = counter("grpo_serve_generation_tokens", "Tokens that were sampled")
        self.cancelled = counter("grpo_serve_cancelled", "Turns of conversations that were not finished", "reason")
        self.evictions = counter("grpo_serve_evictions", "Conversations that were ended to save room", "reason")
        self.rate_limited = counter("grpo_serve_rate_limited", "Requests that were answered with 429")
        self.tool_calls = counter("grpo_serve_tool_calls", "Calls of the agent's tools", "tool", "outcome")
        self.tool_seconds = histogram("grpo_serve_tool_seconds", "Time that one call of a tool took")
        self.store_seconds = histogram("grpo_serve_store_seconds", "Time that one operation of the store took", "op")
        build = Gauge("grpo_build_info", "1, with what runs as labels", ("version", "model"), registry=self._registry)
        build.labels(__version__, model).set(1)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Take a value that the conversations service or its engine's watch measured (see `watch.Observe`)."""
        if name == "time_to_first_token":
            self.first_token_seconds.observe(value)
        elif name == "time_per_output_token":
            self.output_token_seconds.observe(value)
        elif name == "prompt_tokens":
            self.prompt_tokens.inc(value)
        elif name == "generation_tokens":
            self.generation_tokens.inc(value)
        elif name == "turn":
            if labels["outcome"] != "done":
                self.cancelled.labels(labels["outcome"]).inc()
        elif name == "tool_call":
            self.tool_calls.labels(self._tools.get(labels["tool"], "unknown"), labels["outcome"]).inc()
            self.tool_seconds.observe(value)
        elif name == "eviction":
            self.evictions.labels(labels["reason"]).inc(value)
        elif name == "store":
            self.store_seconds.labels(labels["op"]).observe(value)

    def know_tools(self, names: Iterable[str]) -> None:
        """Tools that have a label of their own; a model may write any name."""
        self._tools = {name: name for name in names}

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Add a number that is read when it is asked for."""
        Gauge(name, about, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """Prometheus' text form, 0.0.4."""
        return generate_latest(_Plain(self._registry))

    def to_json(self) -> dict[str, Any]:
        """`{name: [{"labels": {...}, "value": n}, ...]}`."""
        found: dict[str, Any] = {}
        for family in _Plain(self._registry).collect():
            for sample in family.samples:
                found.setdefault(sample.name, []).append({"labels": dict(sample.labels), "value": sample.value})
        return found


class _Plain(Collector):
    """The numbers without the times at which their counting began, which no one asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
