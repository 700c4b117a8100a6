"""`verify --erased`: nothing that a tombstone names is in any file or collection (Guarantees 10 and 13)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pyspark.sql import functions as F

from jobs.errors import BadInput, NotProvenError
from jobs.governance.erasure import COMPLETE
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, key_ring
from jobs.index.collections import belongs_to
from jobs.index.milvus import VectorIndex, connect
from jobs.runs.record import Job
from jobs.runs.scanner import places_of, scan
from jobs.schemas import ERASURE_STEPS, PROCESSING_BASIS, TOMBSTONES
from jobs.tables.store import materialise

_NAMED: Final = 5


def prove_erased(job: Job, places: Sequence[str], canaries: str | None) -> dict[str, Any]:
    """Search every file of the warehouse, the staging folder, an embedded index and ``places``; and all keys.

    A person who gave a new permission after the erasure is no finding; nor is a record imported before, which the gate
    refuses until it is erased again (it is reported as one).

    Raises:
        NotProvenError: something was found; names the files.
    """
    warehouse, settings = job.warehouse, job.settings
    ring = key_ring(settings)
    # Of what is complete: a legal hold keeps the rest, and an open request has its own next pass.
    complete = warehouse.read(ERASURE_STEPS).where(F.col("step") == COMPLETE).select("request_id")
    stones = warehouse.read(TOMBSTONES).where(F.col("kind").isin(IMAGE, CONTENT, FACE, SUBJECT))
    stones = stones.join(complete, "request_id", "left_semi")
    digests = {row["digest"] for row in stones.select("digest").toLocalIterator()} - _back_again(job)
    everywhere = [*places_of(warehouse, settings), *places]
    needles = _read_canaries(canaries) if canaries else {}
    index = connect(settings)
    try:
        keys = _keys_in(index, settings.milvus.alias, ring.keys, digests)
    finally:
        # An embedded index is open in one process at a time, and its files are searched next.
        index.close()
    with job.watching("verify-erased"):
        found = materialise(scan(job.spark, everywhere, needles, keys=ring.keys, tombstones=sorted(digests)))
    hits = [row.asDict() for row in found.orderBy("file", "needle").limit(1_000).collect()]
    if hits or any(keys.values()):
        named = ", ".join(f"{h['needle']} in {h['file']}" for h in hits[:_NAMED])
        in_index = ", ".join(f"{count} keys in {name}" for name, count in keys.items() if count)
        raise NotProvenError(
            f"What was erased is still there: {found.count()} findings in files{f' ({named})' if named else ''}"
            + (f"; {in_index}" if in_index else "")
            + ".",
            hint="run `expire` (a retention of history may not be over yet; Milvus removes compacted segments later).",
        )
    return {
        "places": everywhere,
        "tombstones": len(digests),
        "collections": sorted(keys),
        "message": f"nothing of {len(digests)} tombstones and {len(needles)} canaries is left in {len(everywhere)} "
        f"places and {len(keys)} collections",
    }


def _back_again(job: Job) -> set[str]:
    """Tombstones of persons who gave a permission after their erasure: they may be here again."""
    ring = key_ring(job.settings)
    stones = {
        row["digest"]: row["at"]
        for row in job.warehouse.read(TOMBSTONES)
        .where(F.col("kind") == SUBJECT)
        .select("digest", F.unix_micros("recorded_at").alias("at"))
        .collect()
    }
    last = F.array_max(F.transform("events", lambda event: event["event_time"]))
    people = (
        job.warehouse.read(PROCESSING_BASIS).groupBy("pii_principal_id").agg(F.unix_micros(F.min(last)).alias("first"))
    )
    back = set()
    for row in people.where("pii_principal_id IS NOT NULL").toLocalIterator() if stones else ():
        for key_id in ring.keys:
            digest = ring.digest(SUBJECT, row["pii_principal_id"], key_id)
            if digest in stones and row["first"] is not None and row["first"] > stones[digest]:
                back.add(digest)
    return back


def _keys_in(index: VectorIndex, alias: str, keys: Mapping[str, bytes], digests: set[str]) -> dict[str, int]:
    """How many keys of each collection have a tombstone."""
    found: dict[str, int] = {}
    for name in [n for n in index.list_collections() if belongs_to(alias, n, index.info(n))]:
        index.load(name, timeout=180)
        found[name] = sum(_marked(page, keys, digests) for page in index.keys(name))
        if name != index.alias_target(alias):
            index.release(name)
    return found


def _marked(page: np.ndarray, keys: Mapping[str, bytes], digests: set[str]) -> int:
    texts = [f"{FACE}\0{key}".encode() for key in page.tolist()]
    return sum(hmac.digest(secret, text, "sha256").hex() in digests for secret in keys.values() for text in texts)


def _read_canaries(path: str) -> dict[str, bytes]:
    try:
        return {name: bytes.fromhex(text) for name, text in json.loads(Path(path).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        raise BadInput(f"--canaries {path}: expected a JSON object of names and hexadecimal bytes.") from None
