"""Search load as readers make it: several processes, at a rate that does not wait for answers (open loop).

A closed loop, which sends the next request after the last answer, hides a stall: while the server stands still it sends
nothing. So requests have their times beforehand, and latency counts from then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

CLIENTS = 4


@dataclass(frozen=True)
class Answers:
    """When requests were due (seconds, this machine's monotonic clock), milliseconds to the answer, and what failed."""

    due: np.ndarray
    latency_ms: np.ndarray
    failures: list[str]

    def p99(self, begin: float, end: float) -> float:
        """99th percentile of the requests due between."""
        chosen = self.latency_ms[(self.due >= begin) & (self.due < end)]
        return float(np.percentile(chosen, 99))


def capacity(uri: str, alias: str, vectors: np.ndarray, seconds: float = 8.0) -> float:
    """Searches a second that the clients get answered one after the other, each waiting for its own."""
    with load(uri, alias, vectors, rate=float("inf")) as stop:
        time.sleep(seconds)
        answers = stop()
    middle = answers.due[(answers.due > answers.due.min() + 1) & (answers.due < answers.due.max() - 1)]
    return len(middle) / (middle.max() - middle.min())


@contextmanager
def load(uri: str, alias: str, vectors: np.ndarray, *, rate: float) -> Iterator[Any]:
    """Clients that search at ``rate`` a second together; yields a function that ends them and gives their answers."""
    context = get_context("spawn")
    ended, ready, out = context.Event(), context.Barrier(CLIENTS + 1), context.Queue()
    clients = [
        context.Process(target=_client, args=(uri, alias, vectors, rate / CLIENTS, n / rate, ready, ended, out))
        for n in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    ready.wait(60)

    def stop() -> Answers:
        ended.set()
        parts = [out.get(timeout=120) for _ in clients]
        due, latency = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return Answers(due, latency, [failure for part in parts for failure in part[2]])

    try:
        yield stop
    finally:
        ended.set()
        for client in clients:
            client.join(30)
            client.kill()


def _client(
    uri: str, alias: str, vectors: np.ndarray, rate: float, offset: float, ready: Any, ended: Any, out: Any
) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(uri, timeout=20)
    rng = np.random.default_rng()
    due: list[float] = []
    latency: list[float] = []
    failures: list[str] = []

    def search() -> None:
        vector = vectors[rng.integers(len(vectors))].tolist()
        # One try: a reader whose library repeats the request would not see the failure, and so would this test not.
        client.search(alias, [vector], limit=10, search_params={"metric_type": "COSINE"}, timeout=10, retry_times=1)

    search()
    ready.wait(60)
    begin, number = time.monotonic() + offset, 0
    while not ended.is_set():
        at = begin + number / rate if np.isfinite(rate) else time.monotonic()
        number += 1
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            search()
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}"[:200])
        due.append(at)
        latency.append(1000 * (time.monotonic() - at))
    out.put((np.array(due), np.array(latency), failures))
    client.close()
