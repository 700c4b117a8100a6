"""The `images` table: what is new is found without reading a byte of what is old."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.schemas import IMAGES
from jobs.tables.links import bind_before_they_go, bind_waiting
from jobs.tables.sources import IMAGES_A_TASK, Source
from jobs.tables.store import Warehouse, looked_up, materialise
from udfs.listing import UNREADABLE_FOLDER
from udfs.names import OTHER_SUFFIX
from udfs.reading import UNREAD_PREFIX
from udfs.sources import BROKEN_SHARD

#: Why an entry of a source is not taken, beside what its listing says: its id stands more than once there, and nobody
#: knows which picture is meant; or it is that of an image of another batch, whose records are not about this one.
DUPLICATE_ID: Final = "DUPLICATE_ID"
OTHER_BATCH: Final = "OTHER_BATCH"
#: Other bytes for an image that a legal hold keeps as it is, or may.
LEGAL_HOLD: Final = "LEGAL_HOLD"
_NAMED: Final = 3
# Suffixes that are told of a reason.
_SUFFIXES: Final = 20
# Reasons that say nothing of a picture's bytes: what was read before stays as it was.
_OUT_OF_REACH: Final = ("NOT_FOUND", "ACCESS_DENIED", "TIMEOUT", "THROTTLED", "IO_ERROR", "OUTSIDE_ROOTS")


@dataclass(frozen=True)
class Ingested:
    """What an ingestion met and did; ``listed``, all that it met, is the sum of the others up to ``refused``.

    ``barred``: not taken, for they were erased (Guarantee 13). ``refused``: entries that were not taken, by reason.
    ``unread``: of the images that are there now, those without bytes or digest, by reason. ``out_of_reach``: images
    that could not be read this time, and stay as they were, by reason. ``batches``: some of those that refused ids
    belong to; ``broken``: some of the shards that break off; ``twice``: for some ids, two places that have one.
    ``suffixes``: of the files among ``refused`` and of ``unread``, how many have which suffix, by reason. ``unbound``:
    links that were given for what was to come, and that nobody can tell the bytes of (`bind_waiting`).
    """

    listed: int
    new: int
    changed: int
    unchanged: int
    barred: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    out_of_reach: Mapping[str, int] = field(default_factory=dict)
    batches: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    twice: tuple[tuple[str, str], ...] = ()
    suffixes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unbound: int = 0

    @property
    def images(self) -> int:
        """Images among what was met, the barred ones included: what is neither another file nor in question."""
        return self.listed - sum(self.refused.values())

    @property
    def in_part(self) -> bool:
        """Whether part of the source was not even listed, or is taken for another batch's."""
        return bool(self.refused.keys() & {BROKEN_SHARD, UNREADABLE_FOLDER, OTHER_BATCH})


@dataclass(frozen=True, eq=False)
class Left:
    """What an ingestion left as it was, though its source may have other bytes for it: what is given beside these is
    not given for what is there.

    ``settled``: image_id of all that was read and stored, found as it was, or barred for good. ``listed``: of all that
    the source has; None: part of it could not be listed. What it has that could be no image is only counted: whether
    it stands in place of one that is here is looked up, by the address in ``stored`` (image_id, uri).
    """

    source: Source
    stored: DataFrame
    settled: DataFrame
    listed: DataFrame | None

    def of(self, images: DataFrame) -> DataFrame:
        """Those of ``images`` (image_id, …) that were left, computed once."""
        others = materialise(images.join(self.settled, "image_id", "left_anti"))
        if self.listed is None or others.isEmpty():
            return others
        absent = others.select("image_id").join(self.listed, "image_id", "left_anti").distinct()
        hidden = self.source.still_there(self.stored.join(absent, "image_id", "left_semi"))
        left = others.select("image_id").join(self.listed, "image_id", "left_semi").unionByName(hidden)
        return materialise(others.join(left, "image_id", "left_semi"))


#: Of rows with image_id and content_sha256, those that may be taken; the second frame's rows have no content yet.
Admit = Callable[[DataFrame], DataFrame]


def ingest_images(
    warehouse: Warehouse,
    source: Source,
    *,
    inline: bool,
    now: datetime,
    images_a_part: int,
    dry_run: bool = False,
    admit: Admit | None = None,
    on_hold: DataFrame | None = None,
) -> tuple[Ingested, Left]:
    """Bring a source into `images`; a second time changes nothing. Returns counts, and what was left as it was.

    Bytes are read once for images whose id is new, and (as a hash only) for those whose id is known. A changed
    image replaces its former row, and permissions given for the former bytes do not hold for the new ones
    (Guarantee 1). The deletion comes first, so that a run killed in between only has to add again. ``admit`` keeps out
    what was erased: by its id before it is read, by its bytes before it is written. An image that is ``on_hold``
    (image_id) keeps the bytes that it has.
    """
    entries = listing = materialise(source.listing())
    listed = int((entries.agg(F.sum("entries")).first() or [0])[0] or 0)
    aside = _by_suffix(entries.where("image_id IS NULL"))
    known = _known(warehouse, listing, "content_sha256", "changed_at")
    listing, refused, batches, twice = _takeable(listing, known, source.batch_id)
    refused |= _totals(aside)
    broken = _broken(entries)
    taken = listed - sum(refused.values())
    own = listing
    if admit is not None:
        listing = materialise(admit(listing))
    barred = taken - listing.count() if admit is not None else 0
    taken -= barred
    new = materialise(listing.join(known, "image_id", "left_anti"))
    added = new.count()
    # Where nothing is known, as at a first ingestion, nothing needs to be read to compare it.
    compared = materialise(_changed(source, listing, known)) if added < taken else None
    altered = compared.where("kept IS NULL") if compared is not None else None
    left = []
    if altered is not None and on_hold is not None:
        held = materialise(altered.join(on_hold, "image_id", "left_semi").select("image_id"))
        if kept_back := held.count():
            refused[LEGAL_HOLD] = kept_back
            taken -= kept_back
            altered = materialise(altered.join(held, "image_id", "left_anti"))
            left.append(held)
    changed = altered.count() if altered is not None else 0
    out_of_reach = _by_reason(compared, "kept") if compared is not None else {}
    if compared is not None and out_of_reach:
        left.append(compared.where("kept IS NOT NULL").select("image_id"))
    unchanged, unbound = taken - added - changed, 0
    if not dry_run:
        remaining = warehouse.read(IMAGES).count() - changed
        parts = [(new, added, F.lit(None)), *_giving_place(warehouse, listing, altered, changed, now=now)]
        for wanted, count, changed_at in parts:
            if count:
                _append(
                    warehouse, source, wanted, changed_at, inline=inline, now=now, images_a_part=images_a_part,
                    admit=admit,
                )  # fmt: skip
        # What was kept out by its bytes is known only now.
        kept_out = remaining + added + changed - warehouse.read(IMAGES).count()
        lost = 0
        if kept_out and altered is not None:
            # They had a row, which is gone.
            lost = altered.join(warehouse.read(IMAGES), "image_id", "left_anti").count()
        added, changed, barred = added - kept_out + lost, changed - lost, barred + kept_out
        unbound = bind_waiting(warehouse, _without(listing, left), now=now)
    unread = _unread(warehouse, listing)
    done = Ingested(
        listed, added, changed, unchanged, barred, refused, _totals(unread), out_of_reach, batches, broken, twice,
        _told({**aside, **unread}), unbound,
    )  # fmt: skip
    unlisted = bool(refused.keys() & {BROKEN_SHARD, UNREADABLE_FOLDER})
    every = entries.where("image_id IS NOT NULL").select("image_id").distinct()
    stored = warehouse.read(IMAGES).select("image_id", "uri")
    return done, Left(source, stored, _without(own, left), None if unlisted else every)


def _giving_place(
    warehouse: Warehouse, listing: DataFrame, altered: DataFrame | None, count: int, *, now: datetime
) -> list[tuple[DataFrame, int, Column]]:
    """Delete the ``count`` images that have other bytes; what comes in their place, how many, and when it changed."""
    if altered is None or not count:
        return []
    # What was permitted is bound to the former bytes before they go.
    bind_before_they_go(warehouse, altered, now=now)
    warehouse.delete_matching(IMAGES, altered, ["image_id"])
    parts = []
    for first, when in ((True, F.lit(None)), (False, F.lit(now))):
        wanted = materialise(listing.join(altered.where(F.col("first") == first), "image_id", "left_semi"))
        parts.append((wanted, wanted.count(), when))
    return parts


def _without(listing: DataFrame, left: Sequence[DataFrame]) -> DataFrame:
    """The image_id of a listing, but of these."""
    ids = listing.select("image_id")
    return reduce(lambda rest, some: rest.join(some, "image_id", "left_anti"), left, ids)


def counted_by(entries: DataFrame) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Entries of a listing by reason, and the files among them by reason and suffix."""
    counts = _by_suffix(entries)
    return _totals(counts), _told(counts)


def _takeable(
    listing: DataFrame, known: DataFrame, batch_id: str
) -> tuple[DataFrame, dict[str, int], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The entries whose ids are theirs alone; how many are not, by reason; whose ids they are, and where some stand."""
    refused: dict[str, int] = {}
    listing = listing.where("image_id IS NOT NULL")
    twice = materialise(
        listing.groupBy("image_id").agg(
            F.count("*").alias("count"), F.min("place").alias("one"), F.max("place").alias("other")
        ).where("count > 1")
    )  # fmt: skip
    if not twice.isEmpty():
        refused[DUPLICATE_ID] = int(twice.agg(F.sum("count")).first()[0])  # type: ignore[index]
        listing = listing.join(looked_up(twice), "image_id", "left_anti")
    others = known.where(~F.col("source_batch_id").eqNullSafe(batch_id)).select("image_id", "source_batch_id")
    taken = materialise(others.join(listing, "image_id", "left_semi"))
    if not taken.isEmpty():
        refused[OTHER_BATCH] = taken.count()
        listing = listing.join(looked_up(taken), "image_id", "left_anti")
    places = twice.where("one IS NOT NULL").orderBy("one").select("one", "other").limit(_NAMED).collect()
    return (
        materialise(listing) if refused else listing,
        refused,
        _some_batches(taken),
        tuple((str(row[0]), str(row[1])) for row in places),
    )


def to_come(warehouse: Warehouse, source: Source, admit: Admit | None) -> tuple[DataFrame, DataFrame]:
    """What an ingestion would take, and what of it is not there yet: image_id. No byte is read."""
    listing = materialise(source.listing())
    known = _known(warehouse, listing)
    listing, *_ = _takeable(listing, known, source.batch_id)
    taken = listing.select("image_id") if admit is None else materialise(admit(listing.select("image_id")))
    return taken, taken.join(known, "image_id", "left_anti")


def ids_of_others(warehouse: Warehouse, source: Source) -> tuple[int, tuple[str, ...]]:
    """Of a source that has not come in yet: how many of its ids images of other batches have, and some of these.

    None where some are images of its own batch: then it did come in, and what is not its own is refused one by one.
    """
    known = _known(warehouse, source.listing())
    mine = F.col("source_batch_id").eqNullSafe(source.batch_id)
    if not known.where(mine).isEmpty():
        return 0, ()
    return known.count(), _some_batches(known)


def _known(warehouse: Warehouse, listing: DataFrame, *columns: str) -> DataFrame:
    """Those of a listing that are images already: image_id, source_batch_id and these ``columns``, computed once."""
    images = warehouse.read(IMAGES).select("image_id", "source_batch_id", *columns)
    return materialise(images.join(listing.select("image_id"), "image_id", "left_semi"))


def _some_batches(images: DataFrame) -> tuple[str, ...]:
    """Some of the batches that these images are of."""
    names = images.select("source_batch_id").distinct().orderBy("source_batch_id").limit(_NAMED).collect()
    return tuple(str(row[0]) for row in names)


def _changed(source: Source, listing: DataFrame, known: DataFrame) -> DataFrame:
    """Listed images that are not what they were: image_id, and whether nobody had read any bytes before (``first``).

    ``kept``: why they are out of reach, which is none to give up what is there; null: they have other bytes.
    """
    candidates = listing.join(known.select("image_id"), "image_id", "left_semi")
    hashes = [part.select("image_id", "content_sha256") for part in source.read(candidates, keep_bytes=False)]
    found = reduce(DataFrame.unionByName, hashes)
    before = known.withColumnRenamed("content_sha256", "former")
    other = ~F.col("content_sha256").eqNullSafe(F.col("former"))
    unread = F.coalesce(F.col("former").startswith(UNREAD_PREFIX), F.lit(False))
    reason = _reason(F.col("content_sha256"))
    kept = F.when(~unread & reason.isin(*_OUT_OF_REACH), reason)
    first = unread & F.col("changed_at").isNull()
    joined = found.join(before, "image_id").where(other)
    return joined.select("image_id", first.alias("first"), kept.alias("kept")).distinct()


def _reason(digest: Column) -> Column:
    """`udfs.reading.unread_reason` as an expression."""
    parts = F.split(digest, ":")
    known = F.when(F.size(parts) > 2, F.get(parts, F.lit(1))).otherwise(F.lit("NOT_READ"))
    return F.when(digest.startswith(UNREAD_PREFIX), known)


def _unread(warehouse: Warehouse, listing: DataFrame) -> dict[str, dict[str, int]]:
    reason = _reason(F.col("content_sha256"))
    mine = warehouse.read(IMAGES).select("image_id", reason.alias("reason")).where("reason IS NOT NULL")
    return _by_suffix(mine.join(listing.select("image_id", "suffix", "entries"), "image_id"))


def _by_reason(rows: DataFrame, column: str) -> dict[str, int]:
    counted = rows.where(F.col(column).isNotNull()).groupBy(column).count().collect()
    return {str(row[column]): int(row["count"]) for row in counted}


def _by_suffix(rows: DataFrame) -> dict[str, dict[str, int]]:
    """Entries by reason and suffix ("": what has none, such as folders): as many keys as there are of both."""
    found: dict[str, dict[str, int]] = {}
    for row in rows.groupBy("reason", "suffix").agg(F.sum("entries").alias("entries")).collect():
        found.setdefault(str(row["reason"]), {})[row["suffix"] or ""] = int(row["entries"])
    return found


def _totals(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {reason: sum(by_suffix.values()) for reason, by_suffix in counts.items()}


def _told(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The most frequent suffixes of each reason, the rest of them as one."""
    told: dict[str, dict[str, int]] = {}
    for reason, by_suffix in counts.items():
        named = Counter({suffix: count for suffix, count in by_suffix.items() if suffix})
        rest = sum(count for _, count in named.most_common()[_SUFFIXES:])
        most = Counter(dict(named.most_common(_SUFFIXES))) + Counter({OTHER_SUFFIX: rest})
        if most:
            told[reason] = dict(most.most_common())
    return told


def _broken(entries: DataFrame) -> tuple[str, ...]:
    """The names of some shards whose rest is unknown."""
    if "uri" not in entries.columns:
        return ()
    shards = entries.where(F.col("reason") == BROKEN_SHARD).select(F.element_at(F.split("uri", "/"), -1))
    return tuple(sorted(str(row[0]) for row in shards.limit(_NAMED).collect()))


def _append(
    warehouse: Warehouse,
    source: Source,
    wanted: DataFrame,
    changed_at: Column,
    *,
    inline: bool,
    now: datetime,
    images_a_part: int,
    admit: Admit | None,
) -> None:
    last = warehouse.read(IMAGES).agg(F.max("part")).first()
    base = 0 if last is None or last[0] is None else int(last[0]) + 1
    tasks_a_part = max(1, images_a_part // IMAGES_A_TASK)
    for rows in source.read(wanted, keep_bytes=True):
        # A WebDataset member has no address that could be read again, so it is always kept inline.
        keep = inline or source.kind == "webdataset"
        content = F.col("content") if keep else F.when(F.col("uri").isNull(), F.col("content"))
        frame = rows.select(
            # A task writes one file into one part: no shuffle of bytes, no small files.
            (F.lit(base) + F.floor(F.spark_partition_id() / tasks_a_part)).cast("int").alias("part"),
            "image_id",
            content.alias("content"),
            "uri",
            "content_sha256",
            "byte_size",
            F.lit(source.batch_id).alias("source_batch_id"),
            F.lit(now).cast("timestamp").alias("ingested_at"),
            content.isNull().alias("by_uri"),
            changed_at.cast("timestamp").alias("changed_at"),
            F.lit(source.root).alias("root"),
        )
        warehouse.append(frame if admit is None else admit(frame), IMAGES)
        last = warehouse.read(IMAGES).agg(F.max("part")).first()
        base = 0 if last is None or last[0] is None else int(last[0]) + 1
