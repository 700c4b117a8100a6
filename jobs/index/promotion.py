"""The alias: switched to a proven collection that is loaded and warm, watched, and switched back by itself.

A switch alone was seen to cost readers failed requests and latency (milvus #46284). So the new collection is loaded and
warm before, the replaced one stays loaded until the watch is over, and only then is released.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.errors import FaceReindexError, MixedFingerprints, NotProvenError
from jobs.index.collections import belongs_to
from jobs.index.milvus.vectors import ROUNDING
from jobs.index.protocol import VectorIndex, Vectors
from jobs.index.verification import TIE, Proof

WARM_UP_ROWS = 64
PROBES = 8
# Latency is judged over the last so many searches of the watch, once there are enough for a percentile to mean much.
_WATCHED, _ENOUGH = 500, 50
_PAUSE_S = 0.05


@dataclass(frozen=True)
class AliasWatch:
    """How long the alias is looked at after a switch, and the latency (99th percentile) that is too much."""

    seconds: float
    p99_ms: float


@dataclass(frozen=True)
class Watched:
    """What a watch saw: searches in all, and the latency of the last of them."""

    searches: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Promotion:
    """What an alias pointed at, what it points at, what was dropped for it, and what the watch saw if there was one."""

    previous: str | None
    current: str
    dropped: tuple[str, ...] = ()
    watched: Watched | None = field(default=None, compare=False)


def promote(
    index: VectorIndex,
    alias: str,
    collection: str,
    *,
    proof: Proof,
    proven: Sequence[str],
    keep: int,
    protected: Collection[str] = (),
    fingerprint: str | None = None,
    replicas: int = 1,
    timeout: float = 3600.0,
    watch: AliasWatch | None = None,
    before_drop: Callable[[Sequence[str]], None] = lambda _: None,
) -> Promotion:
    """Switch ``alias`` to ``collection``, watch it, then release what was live and drop what is too old.

    Args:
        index: where the collection is.
        alias: what readers use.
        collection: a collection with a passed ``proof``.
        proof: the outcome of ``prove`` for it.
        proven: proven collections of this alias, newest first (``collection`` may be among them).
        keep: how many proven collections stay, the live one included.
        protected: collections, or run ids, of runs that are still going on.
        fingerprint: the model that the collection must carry.
        replicas: copies in memory.
        timeout: seconds that the load may be without progress.
        watch: for how long, and how slow it may be; None: a single look.
        before_drop: told what is dropped next.

    Raises:
        NotProvenError: no passed proof, not one of our collections, or the alias does not answer from it or answers
            too slowly (then it is switched back).
        MixedFingerprints: the collection holds another model's embeddings.
    """
    if not proof.passed:
        raise NotProvenError(
            f"Collection '{collection}' is not proven, so alias '{alias}' stays: {'; '.join(proof.faults)}.",
            hint="run `verify` for its run; if it fails again, reindex.",
        )
    info = index.info(collection)
    if info is None:
        raise NotProvenError(
            f"'{collection}' is not a collection that Face Reindex built, or it is gone.", hint="run `load` first."
        )
    if fingerprint is not None and info.model_fingerprint != fingerprint:
        raise MixedFingerprints(f"'{collection}' holds embeddings of another model than this run's.")
    previous, watched = _switch(index, alias, collection, proven, replicas, timeout, watch)
    dropped = _drop_old(index, alias, collection, previous, proven, keep, protected, before_drop)
    return Promotion(previous=previous, current=collection, dropped=dropped, watched=watched)


def rollback(
    index: VectorIndex, alias: str, *, proven: Sequence[str], replicas: int = 1, timeout: float = 3600.0
) -> Promotion:
    """Switch ``alias`` to the proven collection before the live one. Nothing is dropped.

    Raises:
        NotProvenError: there is none.
    """
    live = index.alias_target(alias)
    there = set(index.list_collections())
    older = list(proven[list(proven).index(live) + 1 :]) if live is not None and live in proven else list(proven)
    target = next((name for name in older if name in there and name != live), None)
    if target is None:
        raise NotProvenError(
            f"Alias '{alias}' has no earlier proven collection to go back to.",
            hint="keep more with milvus.keep_collections, or run a new reindex.",
        )
    previous, _ = _switch(index, alias, target, proven, replicas, timeout, None)
    return Promotion(previous=previous, current=target)


def _switch(
    index: VectorIndex,
    alias: str,
    collection: str,
    proven: Sequence[str],
    replicas: int,
    timeout: float,
    watch: AliasWatch | None,
) -> tuple[str | None, Watched | None]:
    """Load, warm, switch, watch; switch back where the alias does not answer. Returns what was live, what was seen."""
    previous = index.alias_target(alias)
    index.load(collection, replicas=replicas, timeout=timeout)
    _, vectors = index.peek(collection, WARM_UP_ROWS)
    index.warm_up(collection, vectors)
    if previous == collection:
        # Killed during the watch and run again: what was live before stands next in the record.
        previous = next((name for name in proven if name != collection and index.exists(name)), None)
    index.switch_alias(alias, collection)
    try:
        _look_through(index, alias, collection)
        watched = None if watch is None else _watch(index, alias, vectors, watch)
    except FaceReindexError as error:
        if previous is None:
            raise
        index.load(previous, replicas=replicas, timeout=timeout)
        index.switch_alias(alias, previous)
        raise NotProvenError(
            f"Alias '{alias}' was switched back to '{previous}': {error}",
            hint="look at the server's load and logs; `promote --run-id` tries the same collection again.",
        ) from None
    return previous, watched


def _watch(index: VectorIndex, alias: str, vectors: Vectors, watch: AliasWatch) -> Watched | None:
    """Search through the alias, one vector at a time, until the watch is over.

    Raises:
        FaceReindexError: a search failed (after the driver's own retries).
        NotProvenError: a search found nothing, or searches are too slow.
    """
    if not len(vectors):
        return None
    times: deque[float] = deque(maxlen=_WATCHED)
    end = time.monotonic() + watch.seconds
    number = 0
    while time.monotonic() < end:
        begin = time.perf_counter()
        _, scores = index.search(alias, vectors[number % len(vectors)][None], 1, strong=False)
        times.append(1000 * (time.perf_counter() - begin))
        number += 1
        if not np.isfinite(scores[0, 0]):
            raise NotProvenError(f"a search through '{alias}' found nothing.")
        p99 = float(np.percentile(times, 99))
        if len(times) >= _ENOUGH and p99 > watch.p99_ms:
            raise NotProvenError(f"searches take {p99:.0f} ms (99th percentile), more than {watch.p99_ms:.0f} ms.")
        time.sleep(min(_PAUSE_S, watch.seconds / 100))
    if not times:
        return None
    p50, p99 = (float(value) for value in np.percentile(times, (50, 99)))
    return Watched(number, p50, p99)


def _look_through(index: VectorIndex, alias: str, collection: str) -> None:
    """The alias points there, and rows of the collection find themselves through it."""
    target = index.alias_target(alias)
    if target != collection:
        raise NotProvenError(f"Alias '{alias}' points at '{target}' after it was switched to '{collection}'.")
    ids, vectors = index.peek(collection, PROBES)
    if not len(ids):
        return
    found, scores = index.search(alias, vectors, 10)
    # An equal vector (of the same picture under another id) may come first, so the best score counts as well. It is the
    # server's, which makes a query's length one in the collection's own numbers.
    least = 1 - 10 * TIE - ROUNDING[index.vector_type(collection)]
    hits = (found == ids[:, None]).any(axis=1) | (scores[:, 0] >= least)
    if not np.all(hits):
        raise NotProvenError(
            f"{int((~hits).sum())} of {len(ids)} rows of '{collection}' do not find themselves through alias '{alias}'."
        )


def _drop_old(
    index: VectorIndex,
    alias: str,
    current: str,
    previous: str | None,
    proven: Sequence[str],
    keep: int,
    protected: Collection[str],
    before_drop: Callable[[Sequence[str]], None],
) -> tuple[str, ...]:
    """Drop proven collections beyond ``keep`` and leftovers of dead runs; release what is kept for a rollback."""
    there = index.list_collections()
    # What was live a moment ago comes first, whatever the record says: it is what a rollback wants.
    newest_first = dict.fromkeys([previous, *proven])
    others = [name for name in newest_first if name != current and name in there]
    standby = others[: max(0, keep - 1)]
    dropped, going = [], []
    for name in there:
        if name == current or name in protected:
            continue
        if name in standby:
            with contextlib.suppress(FaceReindexError):
                index.release(name)
            continue
        info = index.info(name)
        if info is None or info.run_id in protected or not belongs_to(alias, name, info):
            continue
        going.append(name)
    before_drop(going)
    for name in going:
        # A failure here must not make a switch that happened look as if it had not: the next promotion drops it.
        with contextlib.suppress(FaceReindexError):
            index.drop(name)
            dropped.append(name)
    return tuple(dropped)
