"""What an erasure has to destroy: found in the tables, written down, destroyed there, and looked for again.

A request names a person (`subject`: a pseudonym), an image, a source batch, or, for an expiry, a basis record. All
requests of a pass are found and destroyed together: ten thousand of them read each table once. What came back after it
was erased (a restored table, a late write) is found by `leftovers` and becomes a request of its own.

A person's erasure takes the records of that person, the faces that were embedded under them, and every image that no
other recorded person shares. Of a shared picture exactly that person's faces go (Guarantee 16): the picture stays for
the others, and the receipt counts it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.errors import NotProvenError
from jobs.governance.decide import STATES_GIVEN, Reason
from jobs.governance.gate import (
    Gated,
    assessed_since,
    current_records,
    gate_warehouse,
    input_digest,
    not_assessed_since,
)
from jobs.governance.tombstones import (
    BATCH,
    CONTENT,
    EXPIRED,
    FACE,
    IMAGE,
    LEFT,
    LEFT_CONTENT,
    SUBJECT,
    KeyRing,
    Stones,
    digests,
    given_since,
    last_given,
)
from jobs.schemas import (
    BASIS_LINKS,
    BASIS_QUARANTINE,
    EMBEDDINGS,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    ERASURE_STEPS,
    IMAGE_STATUS,
    IMAGES,
    PROCESSING_BASIS,
    RECORD_STRUCT,
    REMOVED_FACES,
    SOURCE_BATCHES,
    TOMBSTONES,
    TableSpec,
)
from jobs.tables.faces import faces_under_records, known_faces
from jobs.tables.links import NOT_READ, without_link
from jobs.tables.store import Warehouse, looked_up, materialise

if TYPE_CHECKING:
    from jobs.settings import Settings

#: Kinds of targets and items beside those of tombstones; EXPIRY is the request of a pass over all that is due, SWEEP
#: over all that came back. LINK: the hash of erased bytes, in links of an image that holds others now. ORPHAN: an image
#: that has faces or a status, and no row: its links stay, for nobody asked for an erasure, and it may come in again.
#: UNLINKED: an image to which a person's faces led, and no link of anybody: their request waits until one does.
RECORD, SHARED, LINK, EXPIRY, SWEEP = "record", "shared", "link", "expiry", "sweep"
ORPHAN, UNLINKED = "orphan", "unlinked"
_ASKED: Final = (SUBJECT, IMAGE, BATCH, EXPIRED, RECORD, FACE, LINK, ORPHAN)
_NAMED: Final = "request_id string, kind string, value string"
#: What `pending` gives, and `find` takes: also how often, and when last, a person or a batch was asked for.
TARGETS: Final = f"{_NAMED}, asked bigint, asked_at timestamp"
_ITEM: Final = ("request_id", "kind", "value", "image_id")
#: Steps of a request. Of EXPIRY and SWEEP: BEGUN, rows go from now on; VOID, it was taken back before. SETTLED: nothing
#: is left in the ledger of what it named, in no file either, and its receipt is written.
COMPLETE, BEGUN, VOID, SETTLED = "complete", "begun", "void", "settled"
#: A step of no request: what the pass that was closed at that instant did, for its receipts.
CARRIED_OUT: Final = "carried-out"
#: How a request ended: something was found; nothing, for an earlier request had erased it; nothing that is known here.
ERASED, ERASED_BEFORE, NOT_FOUND = "erased", "erased before", "nothing found"
#: What the step COMPLETE has of a request, in numbers; beside its `outcome` and how often it was `asked` for, which
#: earlier releases did not record.
_COUNTED: Final = ("images", "faces", "records", "shared_images")
_COUNTS: Final = ", ".join(f"{name} bigint" for name in _COUNTED)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Target:
    """What one request asks for: `subject` (a pseudonym), `image`, `batch`, or `expired` (a record).

    ``also``: further pseudonyms that the same person may stand under.
    """

    kind: str
    value: str
    also: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """All that it names."""
        return (self.value, *self.also)


@dataclass(frozen=True)
class Store:
    """One table through an erasure: ``before`` = ``after`` + ``erased``, and ``left`` of what was to go: 0."""

    before: int
    erased: int
    after: int
    left: int


class Closed(NamedTuple):
    """How many requests a pass has completed; and how many stay open, by what they wait for: see `close`."""

    completed: int
    suspended: int
    unknown: int
    again: int


# Where the items of a kind stand: table, item kind, column, the column's type. Those of LINK: `_loose_links`.
_STORES: Final[Sequence[tuple[TableSpec, str, str, str]]] = (
    (EMBEDDINGS, FACE, "face_id", "bigint"),
    (REMOVED_FACES, FACE, "face_id", "bigint"),
    (IMAGE_STATUS, IMAGE, "image_id", "string"),
    (IMAGE_STATUS, ORPHAN, "image_id", "string"),
    (IMAGES, IMAGE, "image_id", "string"),
    (BASIS_LINKS, IMAGE, "image_id", "string"),
    (BASIS_LINKS, RECORD, "record_id", "string"),
    (PROCESSING_BASIS, RECORD, "record_id", "string"),
    (BASIS_QUARANTINE, RECORD, "record_id", "string"),
)
# What leads to pictures goes behind them, for whoever is cut off in between has to find them, and what a hold keeps.
_PICTURES: Final = (EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS, IMAGES)
_LEADING: Final = (BASIS_LINKS, PROCESSING_BASIS, BASIS_QUARANTINE)
TABLES: Final = (*_PICTURES, *_LEADING)


def request(warehouse: Warehouse, targets: Sequence[Target], ring: KeyRing, *, run_id: str, now: datetime) -> list[str]:
    """Write requests down, and the tombstones of what they name, so that nothing of it is indexed from now on.

    No lease is needed: rows are only added. A target with an unfinished request keeps it, and is barred anew: what was
    said of it since the former time is over as well. If a pass completes it meanwhile it is asked for anew: here, or,
    where that pass saw the tombstones first, by it (`ask_again`). Returns the requests' ids.
    """
    ids = {target: f"er-{ring.digest(target.kind, target.value)[:20]}-{now:%Y%m%dT%H%M%S}" for target in targets}
    pending = open_requests(warehouse)
    open_ones = {row["target"]: row["request_id"] for row in pending.select("target", "request_id").collect()}
    kept = {target: _digests(target, ring) & open_ones.keys() for target in ids}
    fresh = {t: i for t, i in ids.items() if not kept[t]}
    ids |= {t: open_ones[min(kept[t])] for t in ids if t not in fresh}
    spark = warehouse.spark
    known = _named_by(warehouse, [i for t, i in ids.items() if t not in fresh])
    named = [(i, t.kind, value) for t, i in ids.items() for value in t.values]
    said = _last_said(warehouse, named, ring)
    if fresh:
        # First of all: items without their request would be nobody's. And tombstones before items, for a pass may come
        # in between, and carry these out.
        rows = [(i, t.kind, ring.digest(t.kind, t.value), ring.current, run_id, now) for t, i in fresh.items()]
        warehouse.append(spark.createDataFrame(rows, ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
    stones = [
        (kind, ring.current, ring.digest(kind, value), i, max(now, said.get(i, now)))
        for i, kind, value in named
        if kind in (IMAGE, SUBJECT, BATCH)
    ]
    if stones:
        warehouse.append(spark.createDataFrame(stones, TOMBSTONES.columns), TOMBSTONES)
    # Without its image_id, which an item has that was found: nobody knows yet whether this one is there.
    items = [(i, kind, value, None) for i, kind, value in named if (i, value) not in known]
    if items:
        warehouse.append(spark.createDataFrame(items, ERASURE_ITEMS.columns), ERASURE_ITEMS)
    if len(fresh) < len(ids):
        # Else the pass saw what was written here, or is yet to see it: `close`, `ask_again`.
        left = {row["request_id"] for row in open_requests(warehouse).select("request_id").collect()}
        closed = [t for t, i in ids.items() if t not in fresh and i not in left]
        if closed:
            ids |= dict(zip(closed, request(warehouse, closed, ring, run_id=run_id, now=now), strict=True))
    return [ids[target] for target in targets]


def _digests(target: Target, ring: KeyRing) -> set[str]:
    """What a request for ``target`` may stand under: its keys may have been other ones then."""
    return {ring.digest(target.kind, value, key_id) for value in target.values for key_id in ring.keys}


def _last_said(warehouse: Warehouse, named: list[tuple[str, str, str]], ring: KeyRing) -> dict[str, datetime]:
    """By request, the time of the last that is on record of those whom it names: an event, an assessment, an erasure.

    Where a clock was ahead, or a year mistyped, that is later than now: the erasure counts from then, else the very
    same line would be a consent given since. What was said by records that are erased is known by their tombstones:
    those of other pseudonyms, if keys have changed.
    """
    named = [row for row in named if row[1] in (SUBJECT, BATCH)]
    if not named:
        return {}
    stones = [(i, kind, ring.digest(kind, value, key_id)) for i, kind, value in named for key_id in ring.keys]
    names = looked_up(warehouse.spark.createDataFrame(named + stones, _NAMED), len(named) + len(stones))
    event = F.array_max(F.transform("events", lambda event: event["event_time"]))
    said = [
        warehouse.read(spec).select(kind.alias("kind"), F.col(column).alias("value"), at.alias("at"))
        for spec, kind, column, at in (
            (PROCESSING_BASIS, F.lit(SUBJECT), "pii_principal_id", event),
            (SOURCE_BATCHES, F.lit(BATCH), "source_batch_id", F.col("assessed_at")),
            (TOMBSTONES, F.col("kind"), "digest", F.col("recorded_at")),
        )
    ]
    last = reduce(DataFrame.unionByName, said).join(names, ["kind", "value"]).groupBy("request_id")
    rows = last.agg(F.unix_micros(F.max("at")).alias("at")).dropna().collect()
    return {row["request_id"]: _EPOCH + timedelta(microseconds=row["at"]) for row in rows}


def _named_by(warehouse: Warehouse, request_ids: list[str]) -> set[tuple[str, str]]:
    """(request_id, value) of what open requests name already."""
    if not request_ids:
        return set()
    targets = _targets(warehouse).where(F.col("request_id").isin(request_ids))
    return {(row["request_id"], row["value"]) for row in targets.select("request_id", "value").collect()}


def request_all(warehouse: Warehouse, due: DataFrame, ring: KeyRing, *, kind: str, run_id: str, now: datetime) -> int:
    """Write one request (EXPIRY or SWEEP) down for everything that is ``due`` (kind, value); returns how many rows."""
    # With the time: what a run that is resumed finds is not part of a request that it has completed before.
    request_id = f"er-{kind}-{run_id}-{now:%Y%m%dT%H%M%S}"
    known = _targets(warehouse).select("kind", "value")
    rows = materialise(due.join(known, ["kind", "value"], "left_anti"))
    count = rows.count()
    if count:
        image = F.when(F.col("kind") == IMAGE, F.col("value"))
        row = (request_id, kind, ring.digest(kind, run_id), ring.current, run_id, now)
        warehouse.append(warehouse.spark.createDataFrame([row], ERASURE_REQUESTS.columns), ERASURE_REQUESTS)
        items = rows.select(F.lit(request_id).alias("request_id"), "kind", "value", image.alias("image_id"))
        warehouse.append(items, ERASURE_ITEMS)
    return count


def strike_off(warehouse: Warehouse, *, run_id: str, now: datetime) -> None:
    """Take back every request of a pass (EXPIRY, SWEEP) that was cut off before it began to destroy rows.

    What was due then need not be due now, for a permission may have been renewed; what is, is asked for anew.
    """
    begun = warehouse.read(ERASURE_STEPS).where(F.col("step") == BEGUN).select("request_id")
    idle = open_requests(warehouse).where(F.col("kind").isin(EXPIRY, SWEEP)).join(begun, "request_id", "left_anti")
    _note(warehouse, idle, VOID, run_id=run_id, now=now)


def begin(
    warehouse: Warehouse, targets: DataFrame, found: DataFrame, ring: KeyRing, *, run_id: str, now: datetime
) -> None:
    """Mark the requests of a pass among ``targets`` as begun: what is destroyed in part is not taken back.

    Then its tombstones, which nobody takes back either. A pass that is cut off in between finds the same again, for it
    has destroyed no row.
    """
    passes = targets.where(_of_pass())
    if passes.isEmpty():
        return
    _note(warehouse, passes, BEGUN, run_id=run_id, now=now)
    _bar(warehouse, found.where(_of_pass() & ~F.col("on_hold")), ring, now=now)


def _of_pass() -> Column:
    """Whether a request is one of a pass and not of somebody: an EXPIRY or a SWEEP."""
    return _expires() | _sweeps()


def _expires() -> Column:
    """Whether a request is an EXPIRY: what goes by it comes in again under a permission given since."""
    return F.col("request_id").startswith(f"er-{EXPIRY}-")


def _sweeps() -> Column:
    """Whether a request is a SWEEP: what goes by it came back after it was erased, or has lost its picture."""
    return F.col("request_id").startswith(f"er-{SWEEP}-")


def _note(warehouse: Warehouse, requests: DataFrame, step: str, *, run_id: str, now: datetime) -> None:
    """Record a step of ``requests`` (request_id) that have not had it."""
    had = warehouse.read(ERASURE_STEPS).where(F.col("step") == step).select("request_id")
    ids = requests.select("request_id").distinct().join(had, "request_id", "left_anti")
    at = F.lit(now).cast("timestamp").alias("recorded_at")
    rows = ids.select(
        "request_id", F.lit(step).alias("step"), F.lit(run_id).alias("run_id"), F.lit("{}").alias("result"), at
    )
    rows = materialise(rows)
    if not rows.isEmpty():
        warehouse.append(rows, ERASURE_STEPS)


def open_requests(warehouse: Warehouse) -> DataFrame:
    """Requests that are neither complete nor taken back, as ERASURE_REQUESTS has them."""
    finished = warehouse.read(ERASURE_STEPS).where(F.col("step").isin(COMPLETE, VOID)).select("request_id")
    return warehouse.read(ERASURE_REQUESTS).join(finished, "request_id", "left_anti")


def pending(warehouse: Warehouse) -> DataFrame:
    """Targets of the requests that are not complete, as TARGETS has them."""
    stones = warehouse.read(TOMBSTONES).where(F.col("kind").isin(SUBJECT, BATCH))
    asked = stones.groupBy("request_id").agg(F.count("*").alias("asked"), F.max("recorded_at").alias("asked_at"))
    return _targets(warehouse).join(asked, "request_id", "left").fillna(0, ["asked"])


def _targets(warehouse: Warehouse) -> DataFrame:
    """What the requests that are not complete name: request_id, kind, value."""
    asked = warehouse.read(ERASURE_ITEMS).where(F.col("kind").isin(*_ASKED))
    # Of the items found later, an image is none that was asked for, if its request is of another kind.
    wanted = open_requests(warehouse).select("request_id", F.col("kind").alias("asked"))
    meant = (F.col("kind") == F.col("asked")) | F.col("asked").isin(EXPIRY, SWEEP)
    return asked.join(wanted, "request_id").where(meant).select("request_id", "kind", "value")


def leftovers(warehouse: Warehouse, gated: Gated, ring: KeyRing) -> DataFrame:
    """What came back after it was erased, or was left without its picture, as (kind, value): nobody has to ask for it.

    A restored table, a write that came late, rows of an image that is not there. Tombstones of open requests do not
    count, for those have a pass of their own; nor does a face that is permitted now, by a record given since; nor what
    a legal hold covers.
    """
    complete = warehouse.read(ERASURE_STEPS).where(F.col("step") == COMPLETE).select("request_id")
    stones = Stones.read(materialise(warehouse.read(TOMBSTONES).join(complete, "request_id", "left_semi")), ring)
    images = warehouse.read(IMAGES).select("image_id")
    rows = [warehouse.read(spec).select("image_id") for spec in (EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS)]
    orphans = reduce(DataFrame.unionByName, rows).join(images, "image_id", "left_anti")
    under_hold = materialise(held_records(warehouse))
    on_hold = materialise(_images_under(warehouse, under_hold))
    orphans = orphans.join(on_hold, "image_id", "left_anti")
    found = [orphans.select(F.lit(ORPHAN).alias("kind"), F.col("image_id").alias("value"))]
    if stones.counts:
        found += [
            _images_again(gated, stones),
            _faces_again(warehouse, gated, stones),
            _records_again(warehouse, stones).join(
                _kept_records(warehouse, under_hold, on_hold), F.col("value") == F.col("record_id"), "left_anti"
            ),
            *_links_again(warehouse, stones, on_hold),
        ]
    return reduce(DataFrame.unionByName, found).distinct()


def _images_again(gated: Gated, stones: Stones) -> DataFrame:
    # What is refused by the tombstone of an open request, its person's for one, is not among them.
    erased = gated.refused.where((F.col("reason") == Reason.ERASED.value) & ~F.col("on_hold"))
    again = stones.matching(erased, {IMAGE: "image_id", CONTENT: "content_sha256"}, "image_id")
    return again.select(F.lit(IMAGE).alias("kind"), F.col("row_key").alias("value"))


def _faces_again(warehouse: Warehouse, gated: Gated, stones: Stones) -> DataFrame:
    settled = ["image_id", "input_digest"]
    on_hold = gated.refused.where("on_hold").select("image_id")
    there = warehouse.read(EMBEDDINGS).select("face_id", *settled)
    faces = there.join(gated.accepted.select(*settled), settled, "left_anti").select("face_id", "image_id")
    removed = warehouse.read(REMOVED_FACES).select("face_id", "image_id").join(there, "face_id", "left_anti")
    faces = faces.unionByName(removed).join(on_hold, "image_id", "left_anti")
    again = stones.matching(faces, {FACE: "face_id"}, "face_id")
    return again.select(F.lit(FACE).alias("kind"), F.col("row_key").alias("value"))


def _records_again(warehouse: Warehouse, stones: Stones) -> DataFrame:
    """Records of erased people that give nothing since, and of erased batches that nobody has assessed since."""
    basis = warehouse.read(PROCESSING_BASIS)
    records = last_given(basis).withColumnRenamed("pii_principal_id", "row_key")
    erased = stones.matching(records.select("row_key").distinct(), {SUBJECT: "row_key"}, "row_key")
    old = records.join(erased, "row_key").where(~given_since(F.col("given_at")))
    batch = F.max_by("source_batch_id", F.struct("recorded_at", "content_digest")).alias("row_key")
    newest = basis.groupBy("record_id").agg(batch)
    erased = stones.matching(newest.select("row_key").distinct(), {BATCH: "row_key"}, "row_key")
    of_batch = newest.join(F.broadcast(not_assessed_since(warehouse, erased)), "row_key")
    found = old.select("record_id").unionByName(of_batch.select("record_id"))
    return found.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("value"))


def _links_again(warehouse: Warehouse, stones: Stones, on_hold: DataFrame) -> list[DataFrame]:
    """Links that name an erased image, or erased bytes, where no row of `images` does: the gate sees none of them."""
    images = warehouse.read(IMAGES).select("image_id", "content_sha256")
    links = warehouse.read(BASIS_LINKS).select(*images.columns).join(on_hold, "image_id", "left_anti")
    loose = materialise(links.join(images, images.columns, "left_anti").distinct())
    if loose.isEmpty():
        return []
    gone = loose.select("image_id").join(images, "image_id", "left_anti")
    return [
        stones.matching(rows, {kind: column}, column).select(F.lit(item).alias("kind"), F.col("row_key").alias("value"))
        for rows, kind, column, item in ((gone, IMAGE, "image_id", IMAGE), (loose, CONTENT, "content_sha256", LINK))
    ]


def find(warehouse: Warehouse, targets: DataFrame) -> DataFrame:
    """Everything that ``targets`` (as TARGETS has them) ask for: rows of `erasure_items`, marked.

    `on_hold`: it stays; `unknown`: not for a legal hold, but because nobody can tell whose it is, or what a hold keeps.

    Also what an earlier pass wrote down. Reads keys and hashes; no image byte and no vector. What no target is of is
    not looked for: each kind costs scans of its tables, and no table is shuffled for a few people.
    """
    asked = _Asked(targets, {row["kind"]: row["count"] for row in targets.groupBy("kind").count().collect()})
    records = _records(warehouse, asked)
    images = _images(warehouse, asked, records)
    return _what_goes(warehouse, asked, records, images, _fates(warehouse, asked, records, images))


@dataclass(frozen=True)
class _Asked:
    """The targets of a pass, and how many there are of each kind."""

    targets: DataFrame
    counts: Mapping[str, int]

    def of(self, kind: str, name: str, *more: str) -> DataFrame:
        """Those of one ``kind`` (request_id, ``name``, …), as a side of a join."""
        named = self.targets.where(F.col("kind") == kind).select("request_id", F.col("value").alias(name), *more)
        return looked_up(named, self.counts.get(kind, 0))


class _Near(NamedTuple):
    """What there is of the images that a pass touches, under their image_id: few rows, computed once.

    ``images``: content_sha256. ``links``: record_id, content_sha256; also of faces, whose link may be lost; ``linked``:
    without these. ``faces``: face_id, record_id (null: under none). ``records``: record_id, pii_principal_id, of those
    that are there.
    """

    images: DataFrame
    links: DataFrame
    linked: DataFrame
    faces: DataFrame
    records: DataFrame


@dataclass(frozen=True)
class _Records:
    """Records that a pass takes, and what they are told by.

    ``batches``: `_assessed_again`. ``leaving`` (request_id, record_id): those that go. ``ended``: also those that
    have reached their end, which stay while their faces go.
    """

    batches: DataFrame
    leaving: DataFrame
    ended: DataFrame


@dataclass(frozen=True)
class _Images:
    """Images that a pass touches (``touched``: `_touched`), how many, to how many a link led, what is `near` them.

    ``bare``: those to which only faces led (image_id); None: there are none.
    """

    touched: DataFrame
    count: int
    by_links: int
    near: _Near
    bare: DataFrame | None


@dataclass(frozen=True)
class _Fates:
    """What becomes of the images, each with its request_id.

    ``whole`` (image_id) go, ``shared`` ones stay for others. ``shown``: `_shown`. ``contents`` (image_id,
    content_sha256) do not come back. ``loose``: links to erased bytes, of images that hold others now.
    """

    whole: DataFrame
    shared: DataFrame
    shown: DataFrame
    contents: DataFrame
    loose: DataFrame


def _records(warehouse: Warehouse, asked: _Asked) -> _Records:
    """Which records the targets take: of people, of batches, by their ids, and those that have expired."""
    batches = asked.of(BATCH, "source_batch_id", "asked_at")
    if BATCH in asked.counts:
        batches = _assessed_again(warehouse, batches)
    leaving = materialise(_leaving(warehouse, asked, batches))
    ended = leaving
    if EXPIRED in asked.counts:
        basis = warehouse.read(PROCESSING_BASIS).select("record_id")
        expired = basis.join(asked.of(EXPIRED, "record_id"), "record_id").select(*leaving.columns)
        ended = materialise(leaving.unionByName(expired).distinct())
    return _Records(batches, leaving, ended)


def _images(warehouse: Warehouse, asked: _Asked, records: _Records) -> _Images:
    """Which images these records, and the targets themselves, lead to, and what there is of each of them."""
    touched = materialise(_touched(warehouse, asked, records.batches, records.ended))
    told = touched.agg(F.count("*"), F.count_if("linked"), F.count_if(~F.col("linked") & ~F.col("named"))).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    count, by_links, by_faces = told
    near = _near(warehouse, touched, asked, count)
    bare = materialise(_bare(touched, near)) if by_faces else None
    return _Images(touched, count, by_links, near, bare)


def _fates(warehouse: Warehouse, asked: _Asked, records: _Records, images: _Images) -> _Fates:
    """Which of the images go whole and which stay for others; whom they show; which bytes do not come back."""
    touched, near, leaving = images.touched, images.near, records.leaving
    lost = RECORD in asked.counts
    whole = materialise(_whole(touched, near, leaving, records.ended, images.bare, lost=lost))
    shown = _shown(near, leaving, images.bare)
    # A pass bars no bytes: of what expired others may have the same, and are permitted, also where they are missing.
    contents = _contents(asked, touched, near, shown)
    barred = contents.select("request_id", "content_sha256").unionByName(asked.of(LINK, "content_sha256"))
    # Of images that have the very bytes still the links stay: the next sweep takes them with their image.
    loose = materialise(_loose_links(warehouse, barred, images.count + asked.counts.get(LINK, 0)))
    shared = touched.join(whole.select("image_id"), "image_id", "left_anti")
    return _Fates(whole, shared, shown, contents, loose)


def _what_goes(warehouse: Warehouse, asked: _Asked, records: _Records, images: _Images, fates: _Fates) -> DataFrame:
    """The items of all that goes, with what of it a legal hold keeps, or a doubt about whose it is: see `find`."""
    near, leaving = images.near, records.leaving
    rows = [
        _items(leaving, RECORD, F.col("record_id"), None),
        _items(fates.whole, IMAGE, F.col("image_id"), "image_id"),
        _items(fates.contents, CONTENT, F.col("content_sha256"), "image_id"),
        _items(fates.loose, LINK, F.col("content_sha256"), None),
        _items(fates.shared, SHARED, F.col("image_id"), "image_id"),
        _somebody_leaves(fates.shown, fates.whole),
        _faces(warehouse, asked, near, fates.whole, records.ended),
        _written_down(warehouse, asked, leaving),
        *_faces_of_loose(warehouse, fates.loose),
    ]
    waits = []
    if images.bare is not None:
        alone = materialise(fates.shared.where(~_of_pass()).join(images.bare, "image_id", "left_semi"))
        rows += _by_faces_alone(alone, near)
        waits.append(_unlinked(alone, near).select("request_id"))
    found = reduce(DataFrame.unionByName, rows).distinct()
    doubtful, by_links = None, images.by_links
    # Where a record was found, and a link of it, both tables are there.
    if (RECORD in asked.counts or not by_links) and _is_lost(warehouse):
        found = materialise(found)
        doubtful = materialise(_still_there(warehouse, found))
        named = found.where(F.col("kind") == IMAGE).withColumn("image_id", F.col("value"))
        waits.append(named.join(doubtful, "image_id", "left_semi").select("request_id"))
        waits.append(asked.targets.where(F.col("kind") == SUBJECT).select("request_id"))
    elif asked.counts.keys() & {IMAGE, BATCH}:
        doubtful = _of_lost_records(images.touched, near, leaving)
    return materialise(_marked(found, kept_on_hold(warehouse), _in_doubt(doubtful, near, leaving, waits)))


def _leaving(warehouse: Warehouse, asked: _Asked, batches: DataFrame) -> DataFrame:
    """Records (request_id, record_id) that go: of people, of ``batches`` (`_assessed_again`), and by their ids."""
    records = []
    if SUBJECT in asked.counts:
        basis = warehouse.read(PROCESSING_BASIS).select("record_id", "pii_principal_id")
        by_person = basis.join(asked.of(SUBJECT, "pii_principal_id"), "pii_principal_id")
        since = _given_since(warehouse, asked.targets)
        records.append(by_person.join(since, ["request_id", "record_id"], "left_anti"))
    if BATCH in asked.counts:
        records.append(_of_batches(warehouse, batches))
    if RECORD in asked.counts:
        # Those that are lost, too: `lost_records`.
        records.append(asked.of(RECORD, "record_id"))
    return _union(warehouse, records, "request_id string, record_id string").distinct()


def _touched(warehouse: Warehouse, asked: _Asked, batches: DataFrame, ended: DataFrame) -> DataFrame:
    """Images (request_id, image_id) of the ``ended`` records, and those that are asked for by name or batch (`named`).

    By links (`linked`), and by faces, which tell of a picture where its link is lost: also by those that an earlier
    pass has destroyed.
    """
    found = []
    count = ended.count()
    if count:
        records = looked_up(ended, count)
        links = warehouse.read(BASIS_LINKS).select("image_id", "record_id")
        under = faces_under_records(warehouse).select("image_id", "record_id")
        found += [_led(links.join(records, "record_id"), linked=True), _led(under.join(records, "record_id"))]
    if asked.counts.keys() & {SUBJECT, BATCH}:
        requests = asked.targets.where(~_of_pass()).select("request_id")
        before = warehouse.read(ERASURE_ITEMS).where(F.col("kind") == UNLINKED)
        found.append(_led(before.join(requests, "request_id", "left_semi")))
    if BATCH in asked.counts:
        images = warehouse.read(IMAGES).select("image_id", "source_batch_id", "ingested_at")
        of_batches = images.join(batches, "source_batch_id").where(_in_time("ingested_at"))
        found.append(_led(of_batches, named=True))
    if IMAGE in asked.counts:
        found.append(_led(_standing(warehouse, asked.of(IMAGE, "image_id")), named=True))
    every = _union(warehouse, found, "request_id string, image_id string, named boolean, linked boolean")
    return every.groupBy("request_id", "image_id").agg(*(F.max(name).alias(name) for name in ("named", "linked")))


def _led(images: DataFrame, *, named: bool = False, linked: bool = False) -> DataFrame:
    """``images`` with what led to them."""
    return images.withColumns({"named": F.lit(named), "linked": F.lit(linked)})


def _near(warehouse: Warehouse, touched: DataFrame, asked: _Asked, count: int) -> _Near:
    """What is around the ``count`` ``touched`` images, and those that have faces and no row."""
    around = _union(warehouse, [], _AROUND)
    records = _union(warehouse, [], "record_id string, pii_principal_id string")
    count += asked.counts.get(ORPHAN, 0)
    if count:
        ids = touched.select("image_id").unionByName(asked.of(ORPHAN, "image_id").select("image_id")).distinct()
        around = materialise(_around(warehouse, looked_up(ids, count)))
        named = looked_up(around.select("record_id").dropna().distinct())
        basis = warehouse.read(PROCESSING_BASIS).select(*records.columns)
        records = materialise(basis.join(named, "record_id", "left_semi").distinct())
    images, links, faces = (around.where(F.col("what") == what) for what in _WHAT)
    linked = ("image_id", "record_id", "content_sha256")
    unlinked = faces.join(records.select("record_id"), "record_id", "left_semi")
    return _Near(
        images.select("image_id", "content_sha256"),
        links.select(*linked).unionByName(unlinked.select(*linked)),
        links.select("image_id"),
        faces.select("image_id", "face_id", "record_id"),
        records,
    )


_WHAT: Final = ("image", "link", "face")
_AROUND: Final = "what string, image_id string, record_id string, content_sha256 string, face_id bigint"


def _around(warehouse: Warehouse, ids: DataFrame) -> DataFrame:
    """Rows, links and faces of the images ``ids``, in one frame, so that they are computed at once."""
    frames = (
        warehouse.read(IMAGES).select("image_id", "content_sha256"),
        warehouse.read(BASIS_LINKS).select("image_id", "record_id", "content_sha256"),
        known_faces(warehouse).select("image_id", "face_id", F.explode_outer("basis_record_ids").alias("record_id")),
    )
    missing = {"record_id": "string", "content_sha256": "string", "face_id": "bigint"}
    rows = []
    for what, frame in zip(_WHAT, frames, strict=True):
        nulls = {name: F.lit(None).cast(type_) for name, type_ in missing.items() if name not in frame.columns}
        rows.append(frame.join(ids, "image_id", "left_semi").withColumns({"what": F.lit(what), **nulls}))
    return _union(warehouse, rows, _AROUND)


def _bare(touched: DataFrame, near: _Near) -> DataFrame:
    """Images (image_id) to which somebody's faces lead, and no link of anybody."""
    by_faces = touched.where(~F.col("linked") & ~F.col("named")).select("image_id").distinct()
    return by_faces.join(near.linked, "image_id", "left_anti")


def _whole(
    touched: DataFrame, near: _Near, leaving: DataFrame, ended: DataFrame, bare: DataFrame | None, *, lost: bool
) -> DataFrame:
    """Images (request_id, image_id) that go: asked for by name, or in which nobody else is recorded.

    Beside an erasure others are those who are not erased, by a record that counts for the bytes that are there now;
    whose consent has lapsed is somebody, for it may be renewed, and so is who is lost. What only expires spares
    whatever else is linked; but what goes with records that were given up (``lost``: there may be some) no more than
    an erasure does. Of ``bare`` images nobody knows who is recorded.
    """
    counting, erased = _given(near).where("counts"), leaving.where(~_expires())
    sparing = near.links.join(ended, "record_id", "left_anti").select("image_id")
    if lost:
        given_up = near.links.join(leaving.where(_expires()), "record_id", "left_semi")
        sparing = sparing.join(given_up, "image_id", "left_anti").unionByName(
            counting.join(ended, "record_id", "left_anti").select("image_id")
        )
    beside = {False: counting.join(erased, "record_id", "left_anti"), True: sparing}
    others = [frame.select("image_id", F.lit(expires).alias("expires")) for expires, frame in beside.items()]
    alone = touched.where(~F.col("named")).withColumn("expires", _expires())
    alone = alone.join(reduce(DataFrame.unionByName, others).distinct(), ["image_id", "expires"], "left_anti")
    if bare is not None:
        alone = alone.join(bare, "image_id", "left_anti")
    both = touched.where("named").select("request_id", "image_id")
    return both.unionByName(alone.select(*both.columns)).distinct()


def _given(near: _Near) -> DataFrame:
    """For which bytes each record was given: image_id, record_id, `people`, `contents`, `now`, `counts`.

    `people`: whom it is about (null: it is lost); `contents`: the hashes that its links name; `now`: that of the image,
    null where its row is missing, or was not read. `counts`: by it somebody is in the picture as it is now. That is:
    given for these bytes, or for none yet. All count where nobody can tell: without `now`, or if the record is lost.
    """
    given = near.links.groupBy("image_id", "record_id").agg(F.collect_set("content_sha256").alias("contents"))
    people = near.records.groupBy("record_id").agg(F.collect_set("pii_principal_id").alias("people"))
    now = _read(near.images).withColumnRenamed("content_sha256", "now")
    given = given.join(now, "image_id", "left").join(people, "record_id", "left")
    of_others = (F.size("contents") > 0) & F.col("people").isNotNull()
    former = of_others & ~F.array_contains("contents", F.col("now"))
    return given.withColumn("counts", ~F.coalesce(former, F.lit(False)))


def _shown(near: _Near, leaving: DataFrame, bare: DataFrame | None) -> DataFrame:
    """Whom each picture shows by what is recorded, as it is now (`kind` LEFT) and by each of its hashes (LEFT_CONTENT).

    A row for each image_id, kind, value (its id, or a hash), record_id, `who`, and request_id by which that record goes
    (null: it stays). `now`: of the bytes that are there now, or may be. `several`: more than one person is in it;
    `stays`: this one does, by a record; `others`: somebody is in it who is not erased.
    """
    given = _given(near)
    if bare is not None:
        given = given.join(bare, "image_id", "left_anti")
    none = F.array().cast("array<string>")
    given = given.withColumn("every", F.flatten(F.collect_set("contents").over(Window.partitionBy("image_id"))))
    # Whoever is in the picture as it is now is in these bytes; who waits for any, where nobody knows them, in each.
    as_now = F.when(F.col("counts") & F.col("now").isNotNull(), F.array("now")).otherwise(none)
    as_any = F.when(F.col("now").isNull() & (F.size("contents") == 0), F.col("every")).otherwise(none)
    given = given.withColumn("hashes", F.array_distinct(F.concat("contents", as_now, as_any)))
    people = F.when(F.size("people") > 0, F.col("people")).otherwise(F.array("record_id"))
    given = given.withColumn("who", F.explode(people))
    record = ["image_id", "record_id", "who"]
    by_id = given.where("counts").select(
        *record, F.lit(LEFT).alias("kind"), F.col("image_id").alias("value"), F.lit(True).alias("now")
    )
    by_hash = given.select(*record, "now", F.explode("hashes").alias("value"))
    by_hash = by_hash.withColumns(
        {"kind": F.lit(LEFT_CONTENT), "now": F.coalesce(F.col("value") == F.col("now"), F.lit(True))}
    )
    going = leaving.withColumn("erased", F.max(~_expires()).over(Window.partitionBy("record_id")))
    shown = by_id.unionByName(by_hash).join(going, "record_id", "left")
    of_place, of_person = Window.partitionBy(*_PLACE), Window.partitionBy(*_PLACE, "who")
    return shown.withColumns(
        {
            "several": F.size(F.collect_set("who").over(of_place)) > 1,
            "stays": F.max(F.col("request_id").isNull()).over(of_person),
            "others": F.max(~F.coalesce("erased", F.lit(False))).over(of_place),
        }
    )


_PLACE: Final = ("image_id", "kind", "value")


def _contents(asked: _Asked, touched: DataFrame, near: _Near, shown: DataFrame) -> DataFrame:
    """The hashes (request_id, image_id, content_sha256) of what goes with a request, and does not come back.

    Of an image that is asked for, by name or by its batch, it is that of its row; else those that its own records were
    given for, whatever the image holds now, and of which nobody else is recorded under the same id.
    """
    own = shown.where((F.col("kind") == LEFT_CONTENT) & ~_of_pass() & ~F.col("others"))
    own = own.select("request_id", "image_id", F.col("value").alias("content_sha256"))
    if not asked.counts.keys() & {IMAGE, BATCH}:
        return own.distinct()
    named = touched.where(F.col("named") & ~_of_pass()).select("request_id", "image_id")
    by_name = _hashes(named, near)
    return own.join(named, named.columns, "left_anti").unionByName(by_name).distinct()


def _read(images: DataFrame) -> DataFrame:
    """Those of the ``images`` whose bytes could be read."""
    return images.where(~F.col("content_sha256").startswith(NOT_READ))


def _kept_by() -> Column:
    """By what an item is kept: itself; but the hash of a picture that stays by its picture, for it destroys nothing."""
    return F.when(F.col("kind") == LEFT_CONTENT, F.col("image_id")).otherwise(F.col("value"))


def _union(warehouse: Warehouse, frames: Sequence[DataFrame], columns: str) -> DataFrame:
    """These ``columns`` of all ``frames``, of which there may be none."""
    nothing = warehouse.spark.createDataFrame([], columns)
    return reduce(DataFrame.unionByName, [frame.select(*nothing.columns) for frame in frames] or [nothing])


def _of_batches(warehouse: Warehouse, batches: DataFrame) -> DataFrame:
    """Records (request_id, record_id) whose newest version names one of the ``batches``, and that came in time."""
    newest = F.max_by("source_batch_id", F.struct("recorded_at", "content_digest")).alias("source_batch_id")
    records = warehouse.read(PROCESSING_BASIS).groupBy("record_id").agg(newest, F.min("recorded_at").alias("came_at"))
    found = records.join(batches, "source_batch_id").where(_in_time("came_at"))
    return found.select("request_id", "record_id")


def _given_since(warehouse: Warehouse, targets: DataFrame) -> DataFrame:
    """Records (request_id, record_id) whose last event gives a consent, after their person last asked to be erased.

    The person came back by it: a request may be open for long, for a legal hold suspends it.
    """
    people = targets.where(F.col("kind") == SUBJECT)
    people = looked_up(people.select("request_id", F.col("value").alias("pii_principal_id"), "asked_at"))
    basis = warehouse.read(PROCESSING_BASIS).select("record_id", "pii_principal_id", "events")
    of_people = basis.join(people, "pii_principal_id").withColumn("event", F.explode("events"))
    # Of two at one instant the one that ends it.
    ends = ~F.coalesce(F.col("event.event_state").isin(*STATES_GIVEN), F.lit(False))
    last = F.max(F.struct(F.col("event.event_time").alias("time"), ends.alias("ends"))).alias("last_event")
    records = of_people.groupBy("request_id", "record_id", "asked_at").agg(last)
    given = (F.col("last_event.time") > F.col("asked_at")) & ~F.col("last_event.ends")
    return records.where(given).select("request_id", "record_id")


def _assessed_again(warehouse: Warehouse, batches: DataFrame) -> DataFrame:
    """``batches`` (request_id, source_batch_id, asked_at) that are to go, with `again_at`: see `assessed_since`.

    What came in after that is of a batch that is in force again; null: nobody has assessed it since.
    """
    erased = batches.toDF("request_id", "row_key", "erased_at")
    later = assessed_since(warehouse, erased).groupBy("request_id", F.col("row_key").alias("source_batch_id"))
    again = later.agg(F.min("again_at").alias("again_at"))
    return batches.join(again, ["request_id", "source_batch_id"], "left")


def _in_time(came_at: str) -> Column:
    """Whether something came before its batch was in force again: `_assessed_again`."""
    return F.col("again_at").isNull() | (F.col(came_at) <= F.col("again_at"))


def _items(rows: DataFrame, kind: str, value: Any, image: str | None) -> DataFrame:
    image_id = F.col(image) if image else F.lit(None).cast("string")
    return rows.select("request_id", F.lit(kind).alias("kind"), value.alias("value"), image_id.alias("image_id"))


def _hashes(named: DataFrame, near: _Near) -> DataFrame:
    """The ``named`` images (request_id, image_id) with the content_sha256 of their rows.

    Where that of one is missing, or was not read, its links have the hash of the bytes that they hold for.
    """
    own, linked = _read(near.images), near.links.select("image_id", "content_sha256").dropna()
    known = own.withColumn("own", F.lit(True)).unionByName(linked.withColumn("own", F.lit(False)))
    found = known.distinct().join(named, "image_id")
    best = F.max("own").over(Window.partitionBy("image_id"))
    return found.withColumn("best", best).where("own = best").select(*named.columns, "content_sha256")


def _somebody_leaves(shown: DataFrame, whole: DataFrame) -> DataFrame:
    """Pictures of several people of whom somebody goes without a trace, by their ids and by their bytes.

    Those that stay, for other people; and whole ones, for what expired may come back without all of its links. (A
    record that has ended and stays tells by its own link that its person is in the picture.)
    """
    item = ("request_id", *_PLACE)
    several = shown.where("several")
    parted = several.where(F.col("request_id").isNotNull() & ~F.col("stays"))
    # What came back, and goes again, has its own tombstone.
    may_return = whole.where(~_sweeps())
    may_return = may_return.join(several.where(F.col("now")).select(*_PLACE), "image_id")
    return parted.select(*item).unionByName(may_return.select(*item)).select(*_ITEM)


def _unlinked(alone: DataFrame, near: _Near) -> DataFrame:
    """Those of the images to which faces led ``alone`` (request_id, image_id) that are there: they wait for links."""
    return alone.select("request_id", "image_id").join(near.images.select("image_id"), "image_id", "left_semi")


def _by_faces_alone(alone: DataFrame, near: _Near) -> list[DataFrame]:
    """Items of images to which a person's faces led ``alone``: these go, and without a box nobody tells whose more are.

    Without the links nobody knows whether others are in it, so the picture stays.
    """
    left = alone.select("request_id", "image_id")
    return [
        _items(_unlinked(alone, near), UNLINKED, F.col("image_id"), "image_id"),
        _items(left, LEFT, F.col("image_id"), "image_id"),
        _items(_hashes(left, near), LEFT_CONTENT, F.col("content_sha256"), "image_id"),
    ]


def _is_lost(warehouse: Warehouse) -> bool:
    """Whether there are images, and no record or no link at all: nobody can tell whose they are, or what is on hold."""
    leading = (warehouse.read(spec).isEmpty() for spec in (BASIS_LINKS, PROCESSING_BASIS))
    return any(leading) and not warehouse.read(IMAGES).isEmpty()


def _still_there(warehouse: Warehouse, found: DataFrame) -> DataFrame:
    """Images (image_id, content_sha256) that are to go, and are there."""
    going = looked_up(found.where(F.col("kind") == IMAGE).select(F.col("value").alias("image_id")).distinct())
    return warehouse.read(IMAGES).select("image_id", "content_sha256").join(going, "image_id", "left_semi")


def _of_lost_records(touched: DataFrame, near: _Near, leaving: DataFrame) -> DataFrame:
    """Images (image_id, content_sha256) that somebody asks for by name or batch, and that a lost record is linked to.

    A hold may be on that one; unless it was given up, and is among those that go (``leaving``).
    """
    named = touched.where(F.col("named") & ~_of_pass()).select("image_id")
    known = near.records.select("record_id").unionByName(leaving.select("record_id"))
    lost = near.links.join(known, "record_id", "left_anti").select("image_id")
    return near.images.join(named, "image_id", "left_semi").join(lost, "image_id", "left_semi")


def _in_doubt(
    doubtful: DataFrame | None, near: _Near, leaving: DataFrame, waits: Sequence[DataFrame]
) -> DataFrame | None:
    """What stays, as (kind, kept_by), because nobody can tell whose it is, or whether a hold is on it; None: nothing.

    ``doubtful`` images, with their bytes and faces; and the records of requests that wait (request_id): by these, when
    all are ingested again, their pictures are found.
    """
    parts = []
    if doubtful is not None:
        faces = near.faces.join(doubtful, "image_id", "left_semi").select(
            F.col("face_id").cast("string").alias("value")
        )
        ids, hashes = (doubtful.select(F.col(name).alias("value")) for name in ("image_id", "content_sha256"))
        parts += [(IMAGE, ids), (CONTENT, hashes), (FACE, faces)]
    for requests in waits:
        kept = leaving.join(requests, "request_id", "left_semi")
        parts.append((RECORD, kept.select(F.col("record_id").alias("value"))))
    marks = [frame.select(F.lit(kind).alias("kind"), F.col("value").alias("kept_by")) for kind, frame in parts]
    return reduce(DataFrame.unionByName, marks) if marks else None


def _marked(found: DataFrame, on_hold: DataFrame | None, doubt: DataFrame | None) -> DataFrame:
    """``found`` with what is on hold, and what of it is unknown: see `find`. Of both a hold is what is said."""
    marks = [(on_hold, False), (doubt, True)]
    known = [frame.withColumn("unknown", F.lit(unknown)) for frame, unknown in marks if frame is not None]
    waits = F.col("kind") == UNLINKED
    if not known:
        return found.withColumns({"on_hold": F.lit(False), "unknown": waits})
    by = reduce(DataFrame.unionByName, known).groupBy("kind", "kept_by").agg(F.bool_and("unknown").alias("unknown"))
    marked = found.withColumn("kept_by", _kept_by()).join(by, ["kind", "kept_by"], "left")
    is_on_hold = F.col("unknown").isNotNull().alias("on_hold")
    return marked.select(*_ITEM, is_on_hold, F.coalesce("unknown", waits).alias("unknown"))


def _written_down(warehouse: Warehouse, asked: _Asked, leaving: DataFrame) -> DataFrame:
    """What earlier passes found for these requests: a hold may be on it by now, or have ended.

    Without the records that are there and not among those that go now (``leaving``): they came in again under the same
    id, with a consent given since, in a batch that was assessed since, or as somebody else's. And without the faces
    that stand under these and under none that goes.
    """
    requests = asked.targets.select("request_id").distinct()
    # Whether an image waits for links still is asked anew: `_touched`.
    items = warehouse.read(ERASURE_ITEMS).where(~_of_pass() & (F.col("kind") != UNLINKED))
    items = items.join(requests, "request_id", "left_semi").select(*_ITEM)
    if not {SUBJECT, BATCH} & asked.counts.keys():
        return items
    item, on = ["request_id", "kind", "value"], ["request_id", "record_id"]
    records = items.where(F.col("kind") == RECORD).select("request_id", F.col("value").alias("record_id"))
    records = materialise(records.distinct())
    count = records.count()
    if not count:
        return items
    again = warehouse.read(PROCESSING_BASIS).select("record_id").join(looked_up(records, count), "record_id")
    again = materialise(again.select(*on).distinct().join(leaving, on, "left_anti"))
    if again.isEmpty():
        return items
    going = records.join(again, on, "left_anti").withColumn("going", F.lit(True))
    whole = items.where(F.col("kind") == IMAGE).select("request_id", F.col("value").alias("image_id")).distinct()
    faces = items.where(F.col("kind") == FACE).select("request_id", F.col("value").cast("bigint").alias("face_id"))
    under = warehouse.read(EMBEDDINGS).select("face_id", "image_id", F.explode("basis_record_ids").alias("record_id"))
    under = under.join(faces.distinct(), "face_id").join(whole, ["request_id", "image_id"], "left_anti")
    goes = F.max(F.coalesce("going", F.lit(False))).alias("goes")
    back = under.join(going, on, "left").groupBy("request_id", "face_id").agg(goes).where("NOT goes")
    spared = [
        again.select("request_id", F.lit(RECORD).alias("kind"), F.col("record_id").alias("value")),
        back.select("request_id", F.lit(FACE).alias("kind"), F.col("face_id").cast("string").alias("value")),
    ]
    return items.join(reduce(DataFrame.unionByName, spared), item, "left_anti").select(*_ITEM)


def _standing(warehouse: Warehouse, named: DataFrame) -> DataFrame:
    """Those of the ``named`` images (request_id, image_id) that stand in any table, their own or another."""
    places = (IMAGES, EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS, BASIS_LINKS)
    found = [named.join(warehouse.read(spec).select("image_id"), "image_id", "left_semi") for spec in places]
    return reduce(DataFrame.unionByName, found).select("request_id", "image_id").distinct()


def _faces(warehouse: Warehouse, asked: _Asked, near: _Near, whole: DataFrame, records: DataFrame) -> DataFrame:
    of_images = near.faces.join(whole.unionByName(asked.of(ORPHAN, "image_id")), "image_id")
    found = [of_images, near.faces.join(records, "record_id")]
    if FACE in asked.counts:
        named = asked.of(FACE, "named").select("request_id", F.col("named").cast("bigint").alias("face_id"))
        found.append(known_faces(warehouse).join(looked_up(named, asked.counts[FACE]), "face_id"))
    every = _union(warehouse, found, "request_id string, face_id bigint, image_id string").distinct()
    return _items(every, FACE, F.col("face_id").cast("string"), "image_id")


def _faces_of_loose(warehouse: Warehouse, loose: DataFrame) -> list[DataFrame]:
    """Items of faces that erased bytes left in images that hold others now: by ``loose`` links (`_loose_links`).

    Those under a record that is for none of the bytes that are there now. Without its link nothing would tell any more
    what such a face was computed from, until a night deletes its row, and whose the picture is.
    """
    if not (count := loose.count()):
        return []
    pair = ["image_id", "record_id"]
    pairs = loose.select("request_id", *pair).distinct()
    links = warehouse.read(BASIS_LINKS).join(looked_up(pairs.select(*pair), count), pair, "left_semi")
    images = warehouse.read(IMAGES).select("image_id", "content_sha256")
    images = images.join(looked_up(pairs.select("image_id"), count), "image_id", "left_semi")
    now = links.join(images, images.columns)
    former = pairs.join(now.select(*pair), pair, "left_anti")
    under = faces_under_records(warehouse)
    return [_items(under.join(looked_up(former, count), pair), FACE, F.col("face_id").cast("string"), "image_id")]


def held_records(warehouse: Warehouse) -> DataFrame:
    """Records (record_id) on which a legal hold is recorded."""
    return current_records(warehouse.read(PROCESSING_BASIS)).where("legal_hold_ref IS NOT NULL").select("record_id")


def images_on_hold(warehouse: Warehouse, given: DataFrame | None = None) -> DataFrame:
    """Images (image_id) that a legal hold on one of their records keeps as they are.

    ``given``: also what is about to be linked (image_id, record_id), as where links were lost and come in again.
    """
    records = held_records(warehouse)
    on_hold = _images_under(warehouse, records)
    if given is None:
        return on_hold
    return on_hold.unionByName(given.join(records, "record_id", "left_semi").select("image_id")).distinct()


def _images_under(warehouse: Warehouse, records: DataFrame) -> DataFrame:
    """Images (image_id) of ``records``: by links, and by faces, which tell of one where its link is lost."""
    return _leading_to(warehouse).join(records, "record_id", "left_semi").select("image_id").distinct()


def _leading_to(warehouse: Warehouse) -> DataFrame:
    """What leads from records to images (image_id, record_id): links and faces."""
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id")
    return links.unionByName(faces_under_records(warehouse).select("image_id", "record_id"))


def _kept_records(warehouse: Warehouse, records: DataFrame, images: DataFrame) -> DataFrame:
    """Records (record_id) that stay while ``records`` and their ``images`` are on hold.

    Also those that name an image on hold, whoever they are about: without them nobody could tell, when the hold ends,
    what an erasure that waited was about.
    """
    of_images = _leading_to(warehouse).join(images, "image_id", "left_semi").select("record_id")
    return records.unionByName(of_images).distinct()


def kept_on_hold(warehouse: Warehouse) -> DataFrame | None:
    """What a legal hold keeps as it is, as (kind, kept_by): images, their content, all their records.

    See `_kept_by`. None: there is no hold.
    """
    under_hold = materialise(held_records(warehouse))
    if under_hold.isEmpty():
        return None
    images = materialise(_images_under(warehouse, under_hold))
    records = _kept_records(warehouse, under_hold, images)
    content = _read(warehouse.read(IMAGES).select("image_id", "content_sha256")).join(images, "image_id")
    links = warehouse.read(BASIS_LINKS).select("image_id", "content_sha256").dropna().join(images, "image_id")
    # As `_hashes`: of one whose row is missing, or was not read.
    content = content.unionByName(links.join(content.select("image_id"), "image_id", "left_anti"))
    faces = known_faces(warehouse).join(images, "image_id")
    parts = [
        records.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("kept_by")),
        *(
            images.select(F.lit(kind).alias("kind"), F.col("image_id").alias("kept_by"))
            for kind in (IMAGE, SHARED, LEFT, LEFT_CONTENT)
        ),
        content.select(F.lit(CONTENT).alias("kind"), F.col("content_sha256").alias("kept_by")),
        links.select(F.lit(LINK).alias("kind"), F.col("content_sha256").alias("kept_by")),
        faces.select(F.lit(FACE).alias("kind"), F.col("face_id").cast("string").alias("kept_by")),
    ]
    return reduce(DataFrame.unionByName, parts).distinct()


def write_down(
    warehouse: Warehouse, targets: DataFrame, found: DataFrame, ring: KeyRing, *, now: datetime
) -> DataFrame:
    """Add what was found, and its tombstones, to the ledger; returns all items of ``targets`` that may go.

    Before anything is destroyed (Guarantee 12): afterwards nothing else could tell what has to be gone. What is on hold
    is found again by its records, which stay; but for the hash of an image that goes now, or that somebody leaves,
    while another of the very bytes is on hold. The tombstones of a pass are written when it begins: what was due may be
    taken back until then, and tombstones may not.
    """
    wanted = found.where(~F.col("on_hold")).select(*_ITEM)
    fresh = materialise(_unnoted(warehouse, found))
    _bar(warehouse, wanted.where(~_of_pass()), ring, now=now)
    if not fresh.isEmpty():
        warehouse.append(fresh, ERASURE_ITEMS)
    return materialise(_going(warehouse, targets, found))


def _unnoted(warehouse: Warehouse, found: DataFrame) -> DataFrame:
    """Items of what was ``found`` that are to be written down, and were not yet: see `write_down`."""
    wanted = found.where(~F.col("on_hold")).select(*_ITEM)
    known = warehouse.read(ERASURE_ITEMS)
    place = F.coalesce("image_id", F.lit("")).alias("place")
    item = ["request_id", "kind", "value", "place"]
    going = wanted.where(F.col("kind").isin(IMAGE, SHARED)).select("image_id")
    hashes = found.where(F.col("on_hold") & (F.col("kind") == CONTENT)).select(*_ITEM)
    noted = wanted.unionByName(hashes.join(going, "image_id", "left_semi").select(*_ITEM))
    noted = noted.select(*_ITEM, place)
    return noted.join(known.select(*item[:3], place), item, "left_anti").drop("place")


def _going(warehouse: Warehouse, targets: DataFrame, found: DataFrame) -> DataFrame:
    """All items of ``targets`` that may go, there or not any more."""
    # Of a pass that was cut off it may have destroyed all by which it can be found; of others that is among ``found``.
    requests = targets.select("request_id").distinct()
    passes = warehouse.read(ERASURE_ITEMS).where(_of_pass()).join(requests, "request_id", "left_semi")
    every = found.select(*_ITEM).unionByName(passes.select(*_ITEM))
    every = every.groupBy("request_id", "kind", "value").agg(F.max("image_id").alias("image_id"))
    kept = found.where("on_hold").select("kind", "value").distinct()
    return every.join(kept, ["kind", "value"], "left_anti")


def _bar(warehouse: Warehouse, wanted: DataFrame, ring: KeyRing, *, now: datetime) -> None:
    """Write the tombstones of what goes (request_id, kind, value)."""
    left = F.col("kind").isin(LEFT, LEFT_CONTENT)
    # What came back has its tombstone, or (a face whose picture is gone) was never erased.
    wanted = wanted.where(left | ~_sweeps())
    columns = {kind: kind for kind in (IMAGE, CONTENT, FACE, EXPIRED, LEFT, LEFT_CONTENT)}
    pivoted = wanted.where(left | F.col("kind").isin(IMAGE, CONTENT, FACE)).select(
        "request_id",
        *(F.when(F.col("kind") == kind, F.col("value")).alias(kind) for kind in (LEFT, LEFT_CONTENT)),
        *(F.when(~_expires() & (F.col("kind") == kind), F.col("value")).alias(kind) for kind in (IMAGE, CONTENT, FACE)),
        F.when(_expires() & (F.col("kind") == IMAGE), F.col("value")).alias(EXPIRED),
    )
    keyed = digests(pivoted, columns, "request_id", ring, [ring.current]).where("digest IS NOT NULL")
    # One of an expiry is written each time: it bars what was permitted until then.
    there = warehouse.read(TOMBSTONES).where(F.col("kind") != EXPIRED).select("kind", "key_id", "digest")
    rows = keyed.join(there, ["kind", "key_id", "digest"], "left_anti").withColumnRenamed("row_key", "request_id")
    stones = materialise(rows.withColumn("recorded_at", F.lit(now).cast("timestamp")))
    if not stones.isEmpty():
        warehouse.append(stones, TOMBSTONES)


def destroy_rows(warehouse: Warehouse, items: DataFrame) -> dict[str, dict[str, int]]:
    """Delete the rows of ``items`` from every table, and look for them again; by table, in rows.

    Raises:
        NotProvenError: something is left, or more or less went than was to go.
    """
    kinds = _by_kind(items)

    def destroy(spec: TableSpec) -> Store:
        before, erased = warehouse.read(spec).count(), 0
        ways = _ways(warehouse, spec, items, kinds)
        if not ways:
            return Store(before, 0, before, 0)
        for keys in ways:
            erased += warehouse.delete_matching(spec, keys, keys.columns)
        return Store(before, erased, warehouse.read(spec).count(), _matching(warehouse.read(spec), ways))

    done = [store for specs in (_PICTURES, _LEADING) for store in warehouse.side_by_side(destroy, specs)]
    stores = dict(zip([spec.name for spec in TABLES], done, strict=True))
    for name, store in stores.items():
        if store.left or store.before != store.after + store.erased:
            raise NotProvenError(
                f"Erasure: {name} had {store.before} rows, {store.erased} were erased, {store.after} are there and "
                f"{store.left} of those that were to go.",
                hint="run the same command again; if it stays so, another program writes this table.",
            )
    return {name: asdict(store) for name, store in stores.items()}


def _stand(warehouse: Warehouse, items: DataFrame) -> bool:
    """Whether a row of ``items`` is in any table: `destroy_rows` would delete it."""
    items = materialise(items)
    kinds = _by_kind(items)

    def stands(spec: TableSpec) -> bool:
        ways = _ways(warehouse, spec, items, kinds)
        return bool(ways) and _matching(warehouse.read(spec), ways) > 0

    return any(warehouse.side_by_side(stands, TABLES))


def _by_kind(items: DataFrame) -> dict[str, int]:
    return {row["kind"]: row["count"] for row in items.groupBy("kind").count().collect()}


def _ways(warehouse: Warehouse, spec: TableSpec, items: DataFrame, kinds: Mapping[str, int]) -> list[DataFrame]:
    """Keys of the rows of one table that go with ``items``, by each set of columns; ``kinds``: how many of each."""
    ways = [_keys(items, kind, *column) for table, kind, *column in _STORES if table is spec and kind in kinds]
    if spec is BASIS_LINKS and LINK in kinds:
        # Asked when they go: an image may have got its former bytes again since they were found.
        hashes = _keys(items, LINK, "content_sha256", "string")
        loose = _loose_links(warehouse, hashes, kinds[LINK])
        ways.append(materialise(loose.select("image_id", "content_sha256").distinct()))
    return ways


def _keys(items: DataFrame, kind: str, column: str, type_: str) -> DataFrame:
    return items.where(F.col("kind") == kind).select(F.col("value").cast(type_).alias(column)).distinct()


def _loose_links(warehouse: Warehouse, erased: DataFrame, count: int) -> DataFrame:
    """Links (image_id, record_id, content_sha256, …) to ``erased`` bytes, but of images that hold these now.

    ``erased``: content_sha256, perhaps with more; about ``count``. Neither all links nor all images are shuffled.
    """
    pair = ["image_id", "content_sha256"]
    if not count:
        return erased.withColumns(dict.fromkeys(("image_id", "record_id"), F.lit(None).cast("string"))).limit(0)
    links, images = warehouse.read(BASIS_LINKS).select(*pair, "record_id"), warehouse.read(IMAGES).select(*pair)
    holding = images.join(looked_up(erased.select("content_sha256"), count), "content_sha256", "left_semi")
    return links.join(looked_up(erased, count), "content_sha256").join(holding, pair, "left_anti")


def _matching(rows: DataFrame, ways: Sequence[DataFrame]) -> int:
    """How many ``rows`` are there that have the keys of one of these ``ways``."""
    flags = []
    rows = rows.select(*{column for keys in ways for column in keys.columns})
    for number, keys in enumerate(ways):
        rows = rows.join(keys.withColumn(f"_hit{number}", F.lit(True)), keys.columns, "left")
        flags.append(f"_hit{number}")
    return rows.where(F.coalesce(*flags, F.lit(False))).count()


def covered_as_before(warehouse: Warehouse, gated: Gated, shared: DataFrame, leaving: DataFrame) -> DataFrame:
    """Faces of ``shared`` pictures (image_id) that were computed from what covers them still, and from nobody else.

    Columns: face_id, image_id, model_fingerprint, and `fresh`, the picture's input_digest now. A face's own digest must
    be that of the coverage now, or of it and the ``leaving`` records (record_id) as they are until they go: of anything
    else that changed (another's box, a person who came since, other bytes) it is not known whose the face is now.
    """
    covering = gated.accepted.join(shared, "image_id", "left_semi").select(
        "image_id", "content_sha256", "covered", F.col("input_digest").alias("fresh")
    )
    went = current_records(warehouse.read(PROCESSING_BASIS)).join(leaving, "record_id", "left_semi")
    went = went.select(
        "record_id", F.struct("record_id", F.col("pii_principal_id").alias("principal"), F.col("face_box").alias("box"))
    ).toDF("record_id", "record")
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id").distinct().join(shared, "image_id", "left_semi")
    of_images = links.join(went, "record_id").groupBy("image_id").agg(F.collect_list("record").alias("went"))
    covering = covering.join(of_images, "image_id", "left")
    every = F.concat("covered", F.coalesce("went", F.array().cast(f"array<{RECORD_STRUCT}>")))
    covering = covering.select(
        "image_id",
        "fresh",
        F.transform("covered", lambda record: record["record_id"]).alias("records"),
        input_digest(F.array_sort(F.array_distinct(every))).alias("before"),
    )
    columns = ("face_id", "image_id", "model_fingerprint", "input_digest", "basis_record_ids")
    known = warehouse.read(EMBEDDINGS).select(*columns).join(covering, "image_id")
    own = F.size(F.array_except("basis_record_ids", "records")) == 0
    staying = known.where(own & F.col("input_digest").isin(F.col("fresh"), F.col("before")))
    return staying.select("face_id", "image_id", "model_fingerprint", "fresh")


def leaving_records(targets: DataFrame, found: DataFrame) -> DataFrame:
    """The records (record_id) whose faces go: of whom is erased, and those that have ended."""
    ended = targets.where(F.col("kind") == EXPIRED).select("value")
    gone = found.where(F.col("kind") == RECORD).select("value")
    return ended.unionByName(gone).select(F.col("value").alias("record_id")).distinct()


def staying_faces(
    warehouse: Warehouse, settings: Settings, items: DataFrame, leaving: DataFrame, *, now: datetime
) -> DataFrame | None:
    """`covered_as_before` of all shared pictures of ``items``, asked before the records go; None: there are none."""
    shared = shared_in(items)
    if shared.isEmpty():
        return None
    gated = gate_warehouse(warehouse, settings, now=now, only=shared, to_destroy=True)
    return materialise(covered_as_before(warehouse, gated, shared, leaving))


def settle_shared(warehouse: Warehouse, items: DataFrame, staying: DataFrame | None) -> int:
    """Let the faces that stay in shared pictures stand under the coverage that is left; returns how many pictures.

    An embedding belongs to its image's coverage (`input_digest`), of which a record goes now: without this the other
    people's faces would count as unpermitted, and be computed again. They are decided anew by this, so that what a
    running night has left out of its collection comes back (`add_small`). Before the records go: whoever is cut off in
    between could not tell any more what the faces were computed from.
    """
    if staying is None:
        return 0
    on = ("image_id", "model_fingerprint")
    stay = staying.groupBy(*on, "fresh").agg(F.count("*").alias("stay"))
    rest = warehouse.read(EMBEDDINGS).join(_keys(items, FACE, "face_id", "bigint"), "face_id", "left_anti")
    rest = rest.groupBy(*on).agg(F.count("*").alias("faces"))
    settled = materialise(stay.join(rest, list(on)).where("stay = faces"))
    faces = materialise(staying.join(settled.select(*on), list(on), "left_semi"))
    status = {"input_digest": "k.fresh", "faces": "CAST(k.stay AS INT)", "decided_at": "current_timestamp()"}
    warehouse.update_matching(IMAGE_STATUS, settled, on, status)
    warehouse.update_matching(EMBEDDINGS, faces, (*on, "face_id"), {"input_digest": "k.fresh"})
    return settled.count()


def shared_in(items: DataFrame) -> DataFrame:
    """The pictures (image_id) of which one person's faces go and others' stay."""
    return items.where(F.col("kind") == SHARED).select(F.col("value").alias("image_id")).distinct()


def forget_removed(warehouse: Warehouse, until: datetime) -> None:
    """Delete what was written down of faces removed by ``until``.

    For a pass that has begun, and so goes on to purge the files of them: no collection holds their keys any more, and
    until it began their rows told it, and `retention.due`, of what there is to purge. Not of a face under a record that
    no link of its picture names.
    """
    rows = warehouse.read(REMOVED_FACES).where(F.col("recorded_at") <= F.lit(until).cast("timestamp"))
    if rows.isEmpty():
        return
    under = rows.select("face_id", "image_id", F.explode_outer("basis_record_ids").alias("record_id"))
    under = materialise(under.distinct())
    ids = looked_up(under.select("image_id").distinct())
    there = warehouse.read(IMAGES).select("image_id").join(ids, "image_id", "left_semi")
    # Where a link is lost nothing else tells whose the picture may be.
    lonely = without_link(warehouse, under.dropna(), ids).join(there, "image_id", "left_semi")
    gone = under.select("face_id").join(lonely, "face_id", "left_anti")
    warehouse.delete_matching(REMOVED_FACES, materialise(gone), ["face_id"])


def close(
    warehouse: Warehouse,
    targets: DataFrame,
    found: DataFrame,
    items: DataFrame,
    ring: KeyRing,
    *,
    blind: bool,
    run_id: str,
    now: datetime,
    pass_did: dict[str, Any] | None = None,
) -> Closed:
    """Mark the requests of ``targets`` complete, but those of which something is on hold, not known, or came meanwhile.

    With what was found and how that ends it: once the items are gone, or a key has left the ring, nobody could tell.
    With how often it was asked for as this pass saw it, for `ask_again`; and with ``pass_did``, what the pass did:
    receipts need it, and the table of runs' steps may be removed.

    Not known is what to do for a person while images are linked to records that are not there: see `_unknown`. Or while
    none is linked to any (``blind``): see `is_blind`. Or for whatever is `unknown` of what was found.

    Those of a pass are complete with what is not on hold: what is will be due again, or here again, when the hold ends.
    """
    # What was asked for is an item, too, there or not; an image that was found has its image_id.
    kind, was_found = F.col("kind"), F.col("image_id").isNotNull()
    counts = items.groupBy("request_id").agg(
        F.count(F.when((kind == IMAGE) & was_found, 1)).alias("images"),
        *(F.count(F.when(kind == name, 1)).alias(f"{name}s") for name in (FACE, RECORD)),
        F.count(F.when(kind == SHARED, 1)).alias("shared_images"),
    )
    waiting = {**_waiting(warehouse, targets, found, blind=blind), "again": _asked_since(warehouse, targets)}
    # How often one was asked for stands beside each of its targets.
    requests = targets.select("request_id", "asked").distinct().join(counts, "request_id", "left").fillna(0)
    requests, done = _that_wait(requests, waiting)
    nothing = ~_something(F.struct(*_COUNTED))
    numbers = [F.count_if(done), *(F.count_if(reason) for reason in waiting), F.count_if(done & nothing)]
    told = requests.agg(*numbers).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    closed, of_nothing = Closed(*told[:-1]), told[-1]
    if closed.completed:
        rows = requests.where(done).withColumn("outcome", F.when(~nothing, ERASED))
        if of_nothing:
            before = _erased_before(warehouse, targets.join(rows.where(nothing), "request_id", "left_semi"), ring)
            rows = rows.join(before.withColumn("before", F.lit(ERASED_BEFORE)), "request_id", "left")
            rows = rows.withColumn("outcome", F.coalesce("outcome", "before", F.lit(NOT_FOUND)))
        rows = rows.select(
            "request_id",
            F.lit(COMPLETE).alias("step"),
            F.lit(run_id).alias("run_id"),
            F.to_json(F.struct(*_COUNTED, "outcome", "asked")).alias("result"),
            F.lit(now).cast("timestamp").alias("recorded_at"),
        )
        if pass_did is not None:
            at, did = F.lit(now).cast("timestamp"), F.lit(json.dumps(pass_did))
            row = warehouse.spark.range(1).select(
                F.lit(None).cast("string"), F.lit(CARRIED_OUT), F.lit(run_id), did, at
            )
            rows = rows.unionByName(row.toDF(*rows.columns))
        warehouse.append(rows, ERASURE_STEPS)
    return closed


def _waiting(warehouse: Warehouse, targets: DataFrame, found: DataFrame, *, blind: bool) -> dict[str, DataFrame]:
    """Requests (request_id) that stay open, by what they wait for: see `close`."""
    unknown = found.where(F.col("unknown") & ~_of_pass()).select("request_id")
    return {
        "suspended": found.where(F.col("on_hold") & ~F.col("unknown") & ~_of_pass()).select("request_id"),
        "unknown": _unknown(warehouse, targets, blind=blind).select("request_id").unionByName(unknown),
    }


def _that_wait(requests: DataFrame, waiting: Mapping[str, DataFrame]) -> tuple[DataFrame, Column]:
    """``requests``, each with whether it is among those ``waiting`` for a reason; and whether it is among none."""
    for reason, of_requests in waiting.items():
        marked = of_requests.select("request_id").distinct().withColumn(reason, F.lit(True))
        requests = requests.join(marked, "request_id", "left")
    return materialise(requests.fillna(False)), ~reduce(Column.__or__, [F.col(reason) for reason in waiting])


def idle(warehouse: Warehouse, targets: DataFrame) -> Closed | None:
    """How many requests would wait where a pass over ``targets`` could do nothing; None: it could.

    That is: complete one of them, write something down, or destroy a row. Only looks, in the order of what costs least.
    Not of requests of a pass, which none leaves open.
    """
    if not targets.where(_of_pass()).isEmpty():
        return None
    blind, found = _is_lost(warehouse), find(warehouse, targets)
    waiting = _waiting(warehouse, targets, found, blind=blind)
    requests, done = _that_wait(targets.select("request_id").distinct(), waiting)
    told = requests.agg(F.count_if(done), *(F.count_if(reason) for reason in waiting)).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    done_now, suspended, unknown = told
    closed = Closed(done_now, suspended, unknown, again=0)
    if closed.completed or not _unnoted(warehouse, found).isEmpty():
        return None
    return None if _stand(warehouse, _going(warehouse, targets, found)) else closed


def _something(counts: Column) -> Column:
    return F.greatest(F.lit(0), *(counts[name] for name in _COUNTED)) > 0


def found_something() -> Column:
    """Whether anything was found of a request, by the `result` of its step COMPLETE."""
    return _something(F.from_json("result", _COUNTS))


def _erased_before(warehouse: Warehouse, targets: DataFrame, ring: KeyRing) -> DataFrame:
    """Requests (request_id) of ``targets`` that name what a request that is complete has erased, under whatever key.

    Told by tombstones: that request's own target is keyed with the key of its time, and may be another pseudonym.
    """
    kinds = {kind: kind for kind in (SUBJECT, IMAGE, BATCH)}
    named = targets.where(F.col("kind").isin(*kinds) & ~_of_pass())
    named = named.select("request_id", *(F.when(F.col("kind") == kind, F.col("value")).alias(kind) for kind in kinds))
    keyed = digests(named, kinds, "request_id", ring, list(ring.keys)).where("digest IS NOT NULL")
    done = warehouse.read(ERASURE_STEPS).where((F.col("step") == COMPLETE) & found_something())
    stones = warehouse.read(TOMBSTONES).select("kind", "key_id", "digest", "request_id")
    erased = stones.join(done.select("request_id"), "request_id", "left_semi")
    found = keyed.join(erased, ["kind", "key_id", "digest"], "left_semi")
    return found.select(F.col("row_key").alias("request_id")).distinct()


def _asked_since(warehouse: Warehouse, targets: DataFrame) -> DataFrame:
    """Requests (request_id) that were asked for again, or by more names, since ``targets`` was read.

    That needs no lease, and what their people have consented to in between was not looked for. (An image is barred for
    good, and nobody adds to the request of a pass.)
    """
    asked = ["request_id", "kind", "value", "asked"]
    return pending(warehouse).where(~_of_pass()).join(targets, asked, "left_anti")


def ask_again(warehouse: Warehouse, over: DataFrame, count: int, *, run_id: str, now: datetime) -> int:
    """Ask anew for what was asked for once more just before its request was closed; returns how many.

    ``over``: as `unsettled` has it, with ``count`` that have been asked for. `close` looks for that before it closes,
    and `request` looks whether it is still open: in between, neither sees the other. So each looks once more behind
    what it has written; here there are more tombstones then than the pass saw. They go with the new request, under the
    time that they count from, and so do all names. Repeating it is harmless: behind a pass that was cut off the next
    one looks at what is not settled, and the names stay until then.
    """
    closed = looked_up(over.where("asked IS NOT NULL").select("request_id", "asked"), count)
    names = F.col("kind").isin(SUBJECT, BATCH)
    stones = warehouse.read(TOMBSTONES).where(names).join(closed, "request_id")
    more = stones.groupBy("request_id", "asked").count().where("count > asked")
    # Without a name it was cleaned up before it was asked for: then `request` saw that it was closed.
    named = warehouse.read(ERASURE_ITEMS).where(names).select("request_id")
    again = materialise(more.join(named, "request_id", "left_semi").select("request_id"))
    if not (asked := again.count()):
        return 0
    new = {"request_id": F.concat("request_id", F.lit("-again"))}
    of_request = {"run_id": F.lit(run_id), "requested_at": F.lit(now).cast("timestamp")}
    # In the order of `request`.
    for spec, key, values in (
        (ERASURE_REQUESTS, ["request_id"], new | of_request),
        (TOMBSTONES, ["request_id", "kind", "key_id", "digest", "recorded_at"], new),
        (ERASURE_ITEMS, ["request_id", "kind", "value"], new),
    ):
        rows = warehouse.read(spec).where(names).join(looked_up(again, asked), "request_id").withColumns(values)
        warehouse.append(materialise(rows.join(warehouse.read(spec).select(*key), key, "left_anti")), spec)
    return asked


def is_blind(tables: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether there were images, and no records or no links, when a pass destroyed its rows: `destroy_rows` told.

    As where a folder was removed: nothing led to anybody's pictures. Asked of before, for those of the last person go.
    """
    images, records, links = (tables[spec.name]["before"] for spec in (IMAGES, PROCESSING_BASIS, BASIS_LINKS))
    return bool(images) and not (records and links)


def _unknown(warehouse: Warehouse, targets: DataFrame, *, blind: bool) -> DataFrame:
    """Requests (request_id) for people of whom there may be more than was found: links name records that are not there.

    Each may be one of theirs, whatever else was found of them, if it was there when they asked last. Without it nothing
    would lead to its pictures, ever, for its record is barred.
    """
    people = targets.where(F.col("kind") == SUBJECT).select("request_id", "asked_at")
    if blind or people.isEmpty():
        return people
    at = F.coalesce("recorded_at", F.lit(_EPOCH).cast("timestamp"))
    first = _links_of_lost(warehouse).agg(F.min(at).alias("first"))
    return people.crossJoin(first).where("first <= coalesce(asked_at, first)")


def _links_of_lost(warehouse: Warehouse) -> DataFrame:
    """Links whose record is not there, as where its table was restored or removed."""
    records = warehouse.read(PROCESSING_BASIS).select("record_id")
    return warehouse.read(BASIS_LINKS).join(records, "record_id", "left_anti")


def lost_records(warehouse: Warehouse) -> DataFrame:
    """Records that are not there and that links name, as (kind, value); and images for whose links requests wait."""
    lost = _links_of_lost(warehouse).select("record_id").distinct()
    waiting = warehouse.read(ERASURE_ITEMS).where(F.col("kind") == UNLINKED).select(F.col("value").alias("image_id"))
    for spec, how in ((IMAGES, "left_semi"), (BASIS_LINKS, "left_anti")):
        waiting = waiting.join(warehouse.read(spec).select("image_id"), "image_id", how)
    parts = [lost.select(F.lit(RECORD).alias("kind"), F.col("record_id").alias("value"))]
    parts.append(waiting.distinct().select(F.lit(IMAGE).alias("kind"), F.col("image_id").alias("value")))
    return reduce(DataFrame.unionByName, parts)


def unsettled(warehouse: Warehouse) -> DataFrame:
    """Requests that are over, and have not been cleaned up behind: request_id, step, run_id, recorded_at, asked.

    ``asked``: how often a person or a batch was asked for by one that is complete, as the pass saw it that closed it.
    """
    steps = warehouse.read(ERASURE_STEPS)
    settled = steps.where(F.col("step") == SETTLED).select("request_id")
    over = steps.where(F.col("step").isin(COMPLETE, VOID)).join(settled, "request_id", "left_anti")
    asked = F.expr("nullif(CAST(get_json_object(result, '$.asked') AS BIGINT), 0)").alias("asked")
    return over.select("request_id", "step", "run_id", "recorded_at", asked)


def forget_items(warehouse: Warehouse) -> bool:
    """Delete the items of requests that are over, for what they name is gone, and of none. Whether there were any."""
    # Before the requests: one is written before its items, so what has none then never had one.
    items = warehouse.read(ERASURE_ITEMS).select("request_id").distinct()
    nobodys = items.join(warehouse.read(ERASURE_REQUESTS).select("request_id"), "request_id", "left_anti")
    over = warehouse.read(ERASURE_STEPS).where(F.col("step").isin(COMPLETE, VOID)).select("request_id")
    leftover = materialise(items.join(over, "request_id", "left_semi").unionByName(nobodys))
    if leftover.isEmpty():
        return False
    warehouse.delete_matching(ERASURE_ITEMS, leftover, ["request_id"])
    return True


def settle(warehouse: Warehouse, over: DataFrame, *, run_id: str, now: datetime) -> None:
    """Mark requests that are ``over`` as settled."""
    _note(warehouse, over, SETTLED, run_id=run_id, now=now)
