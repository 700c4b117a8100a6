"""`verify --erased`: nothing that a tombstone names is in any file or collection (Guarantees 10 and 13)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.byte_scan import NOT_SEARCHED, UNREADABLE, places_of, refuse_empty, scan
from jobs.erasure.holds import kept_on_hold
from jobs.erasure.kinds import COMPLETE, RECORD
from jobs.erasure.requests import open_requests
from jobs.errors import BadInput, NotProvenError
from jobs.governance.gate import gate_warehouse
from jobs.governance.tombstones import CONTENT, FACE, IMAGE, SUBJECT, Stones, given_since, key_ring, last_given
from jobs.governance.tombstones import digests as digests_of
from jobs.index.milvus.connect import connect
from jobs.index.permitted_keys import keys_in
from jobs.index.protocol import VectorIndex
from jobs.runs.history import buckets_of
from jobs.runs.job_result import Result
from jobs.runs.record import JobContext
from jobs.runs.staging_paths import recorded_bases
from jobs.runs.stores import not_here, own_collections, own_live
from jobs.schemas import EMBEDDINGS, ERASURE_ITEMS, ERASURE_STEPS, PROCESSING_BASIS, TOMBSTONES
from jobs.tables.faces import known_faces
from jobs.tables.store import looked_up, materialise

_NAMED: Final = 5
#: What nobody knows whether it holds something, and what is to be done about it.
_UNSURE: Final = {
    UNREADABLE: " Unreadable Parquet is what a write that was cut off has left, and goes with the next VACUUM, which "
    "is `expire`, or it is being written; if a table refers to it, restore that table.",
    NOT_SEARCHED: " What cannot be read, move away or make readable: with BAD_ADDRESS rename it (its name is no UTF-8, "
    "or has a control character in it), with ACCESS_DENIED or UNREADABLE_FOLDER let this job's user read it, with "
    "NO_MEMORY give the executors more memory; else look whether its disk or store answers.",
}
_LOOKED_FOR: Final = (IMAGE, CONTENT, FACE, SUBJECT)


def prove_erased(job: JobContext, places: Sequence[str], canaries: str | None) -> Result:
    """Search every file of the warehouse, the staging folder, an embedded index and ``places``; and all keys.

    A person who gave a new permission after the erasure is no finding, a record of theirs that was imported before is
    one. What a sweep leaves alone (`leftovers`) is none: what an open request names has its own next pass, and what a
    legal hold covers stays.

    Raises:
        NotProvenError: something was found, or a file, or what should be Parquet, cannot be read, which names the
            files; or a collection on record could not be looked at.
        GovernanceError: a key that tombstones were written under is not in the ring.
        SettingsError: the alias points at a collection that is not of this warehouse; or one of ``places`` has no file.
    """
    warehouse, settings = job.warehouse, job.settings
    refuse_empty(job.spark, places)
    ring = key_ring(settings)
    # Without their key nothing would be found of them, which is no proof.
    Stones.read(warehouse.read(TOMBSTONES), ring)
    waiting = materialise(open_requests(warehouse).select("request_id"))
    on_hold = kept_on_hold(warehouse)
    complete = warehouse.read(ERASURE_STEPS).where(F.col("step") == COMPLETE).select("request_id")
    every = warehouse.read(TOMBSTONES).where(F.col("kind").isin(*_LOOKED_FOR))
    stones = every.join(complete, "request_id", "left_semi")
    stones = stones.join(_left_alone(job, every, waiting, on_hold), "digest", "left_anti")
    back = _back_again(job, stones).unionByName(_faces_permitted(job))
    stones = materialise(stones.join(back, "digest", "left_anti"))
    digests = stones.select("digest").distinct()
    looked_for = digests.count()
    everywhere = [*places_of(warehouse, settings, sorted(recorded_bases(warehouse))), *places]
    needles = _read_canaries(canaries) if canaries else {}
    # An embedded index is open in one process at a time, and its files are searched next: it is closed before.
    with connect(settings) as index:
        own_live(warehouse, settings, index)
        here = own_collections(warehouse, settings, index)
        keys, strays = _erased_keys(job, index, list(here), stones)
        missing = not_here(warehouse, here)
    if missing.names:
        raise NotProvenError(
            f"Not all was looked at: {', '.join(missing.names)} not in the index of the settings, nor on record as "
            "dropped.",
            hint=missing.hint,
        )
    with job.watching("verify-erased"):
        found = materialise(scan(job.spark, everywhere, needles, keys=ring.keys, tombstones=digests))
    hits = [row.asDict() for row in found.orderBy("file", "needle").limit(1_000).collect()]
    if hits or any(keys.values()) or any(strays.values()):
        in_index = [f"{count} keys in {name}" for name, count in keys.items() if count]
        unknown = [f"{count} keys in {name} that no embedding stands for" for name, count in strays.items() if count]
        raise _not_proven(hits, found.count(), [*in_index, *unknown])
    unfinished = waiting.count()
    left = [f"open requests ({unfinished}) name"] if unfinished else []
    left += ["a legal hold keeps, or may"] if on_hold is not None else []
    not_looked_for = "; not looked for: what " + " and what ".join(left) if left else ""
    return Result(
        f"nothing of {looked_for} tombstones and {len(needles)} canaries is left in {len(everywhere)} places and "
        f"{len(keys)} collections{not_looked_for}",
        data={
            "places": everywhere,
            "tombstones": looked_for,
            "collections": sorted(keys),
            "open_requests": unfinished,
            "on_hold": on_hold is not None,
        },
    )


def _not_proven(hits: Sequence[Mapping[str, str]], findings: int, in_index: Sequence[str]) -> NotProvenError:
    """``hits``: the first of the ``findings`` in files; of one that cannot be read nobody knows what it holds."""
    named = ", ".join(_named(hit) for hit in hits[:_NAMED])
    needles = {hit["needle"] for hit in hits}
    is_there = in_index or needles - _UNSURE.keys()
    return NotProvenError(
        f"{'What was erased is still there' if is_there else 'Not all could be searched'}: {findings} findings in files"
        + (f" ({named})" if named else "")
        + "".join(f"; {text}" for text in in_index)
        + ".",
        hint="run `expire` (a retention of history may not be over yet; Milvus removes compacted segments later)."
        + "".join(what for needle, what in _UNSURE.items() if needle in needles),
    )


def _named(hit: Mapping[str, str]) -> str:
    if hit["needle"] == NOT_SEARCHED:
        return f"{NOT_SEARCHED}, {hit['place']}: {hit['file']}"
    return f"{hit['needle']} in {hit['file']}"


def _left_alone(job: JobContext, stones: DataFrame, waiting: DataFrame, on_hold: DataFrame | None) -> DataFrame:
    """Digests of what the requests ``waiting`` (request_id) name or have found, and of what is ``on_hold``.

    ``on_hold``: `kept_on_hold`; of its records the persons of whom no other is there.
    """
    items = job.warehouse.read(ERASURE_ITEMS).join(waiting, "request_id", "left_semi")
    values = [items.select("value"), items.select(F.col("image_id").alias("value"))]
    if on_hold is not None:
        values.append(on_hold.select(F.col("kept_by").alias("value")))
        kept = on_hold.where(F.col("kind") == RECORD).select(F.col("kept_by").alias("record_id"))
        # A person one of whose records is another that came back is looked for: only rows tell, and not the name.
        basis = job.warehouse.read(PROCESSING_BASIS)
        whose, others = (
            basis.join(kept, "record_id", how).select(F.col("pii_principal_id").alias("value"))
            for how in ("left_semi", "left_anti")
        )
        values.append(whose.join(others, "value", "left_anti"))
    every = reduce(DataFrame.unionByName, values).dropna().distinct()
    ring = key_ring(job.settings)
    # Under each kind: a value of one kind is none of another.
    named = digests_of(every, dict.fromkeys(_LOOKED_FOR, "value"), "value", ring, list(ring.keys)).select("digest")
    return named.unionByName(stones.join(waiting, "request_id", "left_semi").select("digest"))


def _back_again(job: JobContext, stones: DataFrame) -> DataFrame:
    """Tombstones (digest) of persons all of whose records give a permission after their erasure: they are back."""
    basis = job.warehouse.read(PROCESSING_BASIS).where("pii_principal_id IS NOT NULL")
    first = F.min(F.coalesce("given_at", F.timestamp_micros(F.lit(0)))).alias("given_at")
    people = last_given(basis).groupBy("pii_principal_id").agg(first)
    keyed = _keyed(job, people, SUBJECT, "pii_principal_id")
    given = keyed.join(people.withColumnRenamed("pii_principal_id", "row_key"), "row_key").select("digest", "given_at")
    erased = stones.groupBy("digest").agg(F.max("recorded_at").alias("erased_at"))
    return erased.join(given, "digest").where(given_since(F.col("given_at"))).select("digest")


def _faces_permitted(job: JobContext) -> DataFrame:
    """Tombstones (digest) that faces have which are permitted now: their person came back, with the same picture."""
    stones = job.warehouse.read(TOMBSTONES).where(F.col("kind") == FACE).select("digest")
    faces = job.warehouse.read(EMBEDDINGS).select("face_id", "image_id", "input_digest")
    there = materialise(_keyed(job, faces, FACE, "face_id").join(stones, "digest", "left_semi"))
    if there.isEmpty():
        return there.select("digest")
    gated = gate_warehouse(job.warehouse, job.settings, now=job.clock(), to_destroy=True)
    permitted = faces.join(gated.accepted.select("image_id", "input_digest"), ["image_id", "input_digest"])
    keys = permitted.select(F.col("face_id").cast("string").alias("row_key"))
    return there.join(keys, "row_key", "left_semi").select("digest")


def _keyed(job: JobContext, rows: DataFrame, kind: str, column: str) -> DataFrame:
    """The tombstones that ``column`` would have, under every key of the ring: row_key, digest."""
    ring = key_ring(job.settings)
    return digests_of(rows, {kind: column}, column, ring, list(ring.keys)).select("row_key", "digest")


def _erased_keys(
    job: JobContext, index: VectorIndex, collections: Sequence[str], stones: DataFrame
) -> tuple[dict[str, int], dict[str, int]]:
    """How many keys of each of these ``collections`` have a tombstone; and how many are of no face that is known.

    The latter are of faces whose rows went before anybody wrote down whose they were. Those that were written down
    (`removed_faces`) were removed and not erased: a collection beside the live one holds them until the next erasure.

    Raises:
        NotProvenError: a collection has rows that its keys do not account for.
    """
    warehouse, milvus = job.warehouse, job.settings.milvus
    faces = looked_up(stones.where(F.col("kind") == FACE).select("digest"))
    known = known_faces(warehouse).select("face_id")
    found: dict[str, int] = {}
    strays: dict[str, int] = {}
    for name in collections:
        index.load(name, timeout=milvus.index_timeout_s)
        rows = index.count(name)
        keys = materialise(keys_in(job.spark, index, name, job.settings, buckets_of(warehouse, name)))
        read = keys.count()
        if read < rows:
            raise NotProvenError(
                f"Collection {name} has {rows} rows and {read} keys in its buckets: not all was looked at.",
                hint="run it again if a job was taking faces out; else `reindex` builds a collection that is whole.",
            )
        found[name] = _keyed(job, keys, FACE, "face_id").join(faces, "digest", "left_semi").count()
        strays[name] = keys.join(known, "face_id", "left_anti").count()
        if not index.aliases_of(name):
            index.release(name)
    return found, strays


def _read_canaries(path: str) -> dict[str, bytes]:
    """What to look for in every file, by name.

    Raises:
        BadInput: it is no such file, or a name stands twice in it: one of the two would not be looked for.
    """
    twice = False

    def of_pairs(pairs: list[tuple[str, str]]) -> dict[str, str]:
        nonlocal twice
        twice = twice or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=of_pairs)
        canaries = {name: bytes.fromhex(text) for name, text in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        raise BadInput(f"--canaries {path}: expected a JSON object of names and hexadecimal bytes.") from None
    if twice:
        raise BadInput(
            f"--canaries {path}: a name stands twice, and one of the two would not be looked for.",
            hint="give each a name of its own.",
        )
    return canaries
