"""A run in numbers, as a Prometheus text file: rewritten at the end of each step and every half minute.

All of it is derived from the results of steps, which also stand in `run_steps`: the tables are the truth, this
is a view. The accumulators are not: Spark adds a task's part again when the task is done again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from jobs.runs.results import Embedded, Outlook, Reconciled, Screened, Verified
from jobs.runs.step_result import StepResult
from jobs.runs.step_watcher import ActiveStep

_PREFIX: Final = "face_reindex_"
_LAST_SUCCESS: Final = f"{_PREFIX}last_success_timestamp_seconds"
_Values = dict[tuple[str, ...], float]
_SHOWN: Final[tuple[type[StepResult], ...]] = (Screened, Embedded, Verified, Outlook)
_STATES: Final = ("running", "done", "failed")


class RunMetrics(Collector):
    """What a run has done so far; without a ``path`` it is kept to itself.

    A label is called `command`, for `job` is Prometheus's own. ``active`` tells which steps run.
    """

    def __init__(
        self,
        path: str | None,
        command: str,
        run_id: str,
        *,
        active: Callable[[], list[ActiveStep]] = list,
    ) -> None:
        self._path = Path(path.replace("{job}", command)).expanduser() if path else None
        self._command, self._run_id = command, run_id
        self._active = active
        self._counted: Mapping[str, Callable[[], int]] = {}
        self._started = time.time()
        self._state = "running"
        self._seconds: dict[str, float] = {}
        self._results: dict[str, StepResult] = {}
        self._succeeded = self._before()
        self._faulty = False
        self._lock = threading.Lock()

    def step_done(self, name: str, result: Mapping[str, Any], seconds: float = 0.0) -> None:
        """A step has ended, now or before the run was resumed, with this ``result`` on record."""
        # Chunks and files of one step are one series: their number grows with the data.
        with self._lock:
            family = name.partition("/")[0]
            self._seconds[family] = self._seconds.get(family, 0.0) + seconds
            if kind := next((kind for kind in _SHOWN if kind.is_name(name)), None):
                self._results[name] = kind.of_record(result)

    def also(self, counted: Mapping[str, Callable[[], int]]) -> None:
        """Export these counters, too."""
        self._counted = counted

    def ended(self, state: str) -> None:
        """The run is ``done`` or ``failed``."""
        self._state = state
        if state == "done":
            self._succeeded = time.time()

    def write(self) -> str | None:
        """Replace the file as a whole; returns what went wrong, the first time: it must not end a run."""
        if self._path is None:
            return None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            with self._lock:
                self._replace(generate_latest(registry))
        except OSError as error:
            told, self._faulty = self._faulty, True
            return None if told else f"metrics.file {self._path}: cannot be written ({error.strerror})."
        return None

    def _replace(self, text: bytes) -> None:
        """Whole or not at all. Readable by everybody, other than what a job writes else: it holds counts, and is for
        node_exporter, which is another user.
        """
        assert self._path is not None  # noqa: S101 - asked before
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            fresh.write_bytes(text)
            fresh.chmod(0o644)
            fresh.replace(self._path)
        finally:
            fresh.unlink(missing_ok=True)

    def collect(self) -> Iterator[Metric]:
        """The numbers, as prometheus_client asks for them."""
        yield self._gauge("run_info", "The run that this file is about.", {(self._run_id,): 1}, "run_id")
        states: _Values = {(state,): float(state == self._state) for state in _STATES}
        yield self._gauge("run_state", "1 for the state that the run is in.", states, "state")
        yield self._gauge("run_start_timestamp_seconds", "When this start of the run began.", {(): self._started})
        if self._succeeded:
            yield self._gauge("last_success_timestamp_seconds", "When this job last ended well.", {(): self._succeeded})
        seconds: _Values = {(step,): value for step, value in self._seconds.items()}
        yield self._gauge("step_duration_seconds", "Time in a step, in this start of the run.", seconds, "step")
        active = {step.step.partition("/")[0]: step for step in self._active()}
        for name, text, field in (
            ("step_tasks", "Spark tasks of a step that runs.", "total"),
            ("step_tasks_done", "Spark tasks of it that are done.", "done"),
            ("step_stalled", "1 where no task of it has finished for logging.stall_after_s.", "stalled"),
        ):
            yield self._gauge(name, text, {(s,): float(getattr(w, field)) for s, w in active.items()}, "step")
        yield from self._outcomes()
        for name, count in self._counted.items():
            text = "In Spark tasks so far; tasks that were done twice count twice."
            counter = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=["command"])
            counter.add_metric([self._command], count())
            yield counter

    def _outcomes(self) -> Iterator[Metric]:
        gate, verified = self._results.get(Screened.name()), self._results.get(Verified.name())
        chunks = [result for result in self._results.values() if isinstance(result, Embedded)]
        if isinstance(gate, Screened) and gate.accepted is not None:
            refused: _Values = {("refused", reason): count for reason, count in gate.reasons.items()}
            decided: _Values = {("accepted", ""): gate.accepted, **refused}
            yield self._gauge("gated_images", "Images by the gate's decision.", decided, "status", "reason")
        if chunks:
            totals = {"images": sum(c.images for c in chunks), "faces": sum(c.faces for c in chunks)}
            for what, total in totals.items():
                text = f"{what.capitalize()} that this run embedded, and did not reuse."
                yield self._gauge(f"embedded_{what}", text, {(): total})
        if isinstance(verified, Verified):
            proof = verified.proof
            yield self._gauge("images", "All images by outcome.", _by_outcome(verified.counts), "status", "reason")
            yield self._gauge("faces", "Faces in the collection.", {(): proof.rows_found})
            yield self._gauge("recall_ratio", "recall@10 against exact search.", {(): proof.recall})
            p99 = proof.latency_p99_ms / 1e3
            yield self._gauge("search_latency_p99_seconds", "99th percentile of the proof's searches.", {(): p99})
        ahead = self._results.get(Outlook.name())
        if isinstance(ahead, Outlook):
            yield from self._ahead(ahead)

    def _ahead(self, ahead: Outlook) -> Iterator[Metric]:
        yield self._gauge("records_in_force", "Records in force that an image is linked to.", {(): ahead.records})
        yield self._gauge("records_ending_30d", "Of these, records that end within 30 days.", {(): ahead.ending})
        yield self._gauge("erasure_requests_open", "Erasures to be carried out.", {(): ahead.open_requests})
        if ahead.oldest_request is not None:
            text = "When the oldest open erasure was asked for."
            yield self._gauge("oldest_open_erasure_timestamp_seconds", text, {(): ahead.oldest_request})

    def _gauge(self, name: str, text: str, values: _Values, *labels: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(_PREFIX + name, text, labels=["command", *labels])
        for key, value in values.items():
            family.add_metric([self._command, *key], value)
        return family

    def _before(self) -> float:
        """When this job last ended well, by the file that an earlier run left: a night that fails must not hide it."""
        try:
            text = self._path.read_text(encoding="utf-8") if self._path else ""
            samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        except (OSError, ValueError):
            return 0.0
        times = [s.value for s in samples if s.name == _LAST_SUCCESS and s.labels.get("command") == self._command]
        return max(times, default=0.0)


def _by_outcome(counts: Reconciled) -> _Values:
    """Every image once: by reason where there is one, and the rest of its status without."""
    by_reason = {tuple(key.split(":", 1)): count for key, count in counts.reasons.items()}
    left = dict(counts.statuses)
    for (status, _), count in by_reason.items():
        left[status] = left.get(status, 0) - count
    return {**by_reason, **{(status, ""): count for status, count in left.items() if count > 0}}
