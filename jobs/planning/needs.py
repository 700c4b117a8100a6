"""What a night needs beside time: GPU-hours, storage at its peak, memory, money. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.index.load_plan import GIB, LoadPlan
from jobs.planning.model import NightPlan, Work
from jobs.settings import PlanningSettings
from udfs.arrays import EMBEDDING_DIM

# A row of `embeddings`: the vector, which does not compress, and about as much as its box, landmarks, ids and records.
_FACE_BYTES = 4 * EMBEDDING_DIM + 250


@dataclass(frozen=True)
class Needs:
    """Bytes are estimates from row sizes. ``collections`` stand side by side at the peak, the new one included."""

    gpu_hours_embedding: float
    gpu_hours: float
    core_hours: float
    node_hours: float
    collections: int
    collection_bytes: int
    staging_bytes: int
    embeddings_bytes: int
    peak_bytes: int
    shuffle_bytes: int
    memory_bytes: int
    night_cost: float | None
    month_cost: float | None
    unpriced: tuple[str, ...]


def needs(plan: NightPlan, work: Work, load: LoadPlan, prices: PlanningSettings, *, keep: int, models: int) -> Needs:
    """What the night needs. ``keep``: proven collections kept; ``models``: models whose faces stand in `embeddings`.

    Machines are counted, and paid for, from the night's start to its end: executors hold their GPUs all along.
    The kept collections and the new one stand side by side until the promotion drops the oldest.
    """
    hours = plan.seconds / 3600
    used = {
        "gpu_hour": plan.pools.gpus * hours,
        "core_hour": plan.pools.cores * hours,
        "node_hour": plan.pools.data_nodes * hours if load.by_import else 0.0,
    }
    embeddings = models * work.faces * _FACE_BYTES
    collections = keep + 1
    kept = embeddings + keep * load.stored_bytes
    priced = {name: getattr(prices, name) for name in used}
    known = {name: price for name, price in priced.items() if price is not None}
    return Needs(
        gpu_hours_embedding=plan.pools.gpus * plan.by_step().get("embed", 0.0) / 3600,
        gpu_hours=used["gpu_hour"],
        core_hours=used["core_hour"],
        node_hours=used["node_hour"],
        collections=collections,
        collection_bytes=load.stored_bytes,
        staging_bytes=load.staging_bytes,
        embeddings_bytes=embeddings,
        peak_bytes=embeddings + load.staging_bytes + collections * load.stored_bytes,
        # Staging spreads the vectors over the files by key: they pass the executors' disks once, as float32.
        shuffle_bytes=load.shuffle_bytes,
        # Blue and green: the replaced collection is released only after the watch.
        memory_bytes=2 * load.memory_bytes,
        night_cost=sum(used[name] * price for name, price in known.items()) if known else None,
        month_cost=None if prices.gib_month is None else kept / GIB * prices.gib_month,
        unpriced=tuple(name for name, amount in used.items() if amount and priced[name] is None),
    )
