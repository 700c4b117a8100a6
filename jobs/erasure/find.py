"""What an erasure has to destroy, found in the tables.

All requests of a pass are found together: ten thousand of them read each table once.

A person's erasure takes the records of that person, the faces that were embedded under them, and every image that no
other recorded person shares. Of a shared picture exactly that person's faces go (Guarantee 16): the picture stays for
the others, and the receipt counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.erasure.holds import kept_on_hold
from jobs.erasure.kinds import (
    ITEM_COLUMNS,
    LINK,
    ORPHAN,
    RECORD,
    SHARED,
    UNLINKED,
    Targets,
    is_of_pass,
    items_of,
    union_of,
)
from jobs.erasure.pictures import (
    Near,
    bare_images,
    barred_contents,
    by_faces_alone,
    faces_of_loose_links,
    near_to,
    people_shown,
    somebody_leaves,
    unlinked,
    whole_images,
)
from jobs.erasure.rows import loose_links
from jobs.governance.batches import assessed_since
from jobs.governance.decide import STATES_GIVEN
from jobs.governance.tombstones import BATCH, CONTENT, EXPIRED, FACE, IMAGE, LEFT_CONTENT, SUBJECT
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, ERASURE_ITEMS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, REMOVED_FACES
from jobs.tables.faces import faces_under_records, known_faces
from jobs.tables.store import Warehouse, looked_up, materialise


def find(warehouse: Warehouse, targets: DataFrame) -> DataFrame:
    """Everything that ``targets`` (as TARGETS has them) ask for: rows of `erasure_items`, marked.

    `on_hold`: it stays; `unknown`: not for a legal hold, but because nobody can tell whose it is, or what a hold keeps
    (a record is lost, or its newest line could not be read).

    Also what an earlier pass wrote down. Reads keys and hashes; no image byte and no vector. What no target is of is
    not looked for: each kind costs scans of its tables, and no table is shuffled for a few people.
    """
    asked = Targets(targets, {row["kind"]: row["count"] for row in targets.groupBy("kind").count().collect()})
    records = _records(warehouse, asked)
    images = _images(warehouse, asked, records)
    return _what_goes(warehouse, asked, records, images, _fates(warehouse, asked, records, images))


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
    near: Near
    bare: DataFrame | None


@dataclass(frozen=True)
class _Fates:
    """What becomes of the images, each with its request_id.

    ``whole`` (image_id) go, ``shared`` ones stay for others. ``shown``: `people_shown`. ``contents`` (image_id,
    content_sha256) do not come back. ``loose``: links to erased bytes, of images that hold others now.
    """

    whole: DataFrame
    shared: DataFrame
    shown: DataFrame
    contents: DataFrame
    loose: DataFrame


def _records(warehouse: Warehouse, asked: Targets) -> _Records:
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


def _images(warehouse: Warehouse, asked: Targets, records: _Records) -> _Images:
    """Which images these records, and the targets themselves, lead to, and what there is of each of them."""
    touched = materialise(_touched(warehouse, asked, records.batches, records.ended))
    told = touched.agg(F.count("*"), F.count_if("linked"), F.count_if(~F.col("linked") & ~F.col("named"))).first()
    assert told is not None  # noqa: S101 - an aggregate without groups always has its one row
    count, by_links, by_faces = told
    near = near_to(warehouse, touched, asked, count)
    bare = materialise(bare_images(touched, near)) if by_faces else None
    return _Images(touched, count, by_links, near, bare)


def _fates(warehouse: Warehouse, asked: Targets, records: _Records, images: _Images) -> _Fates:
    """Which of the images go whole and which stay for others; whom they show; which bytes do not come back."""
    touched, near, leaving = images.touched, images.near, records.leaving
    lost = RECORD in asked.counts
    whole = materialise(whole_images(touched, near, leaving, records.ended, images.bare, lost=lost))
    shown = people_shown(near, leaving, images.bare)
    # A pass bars no bytes: of what expired others may have the same, and are permitted, also where they are missing.
    contents = barred_contents(asked, touched, near, shown)
    barred = contents.select("request_id", "content_sha256").unionByName(asked.of(LINK, "content_sha256"))
    # Of images that have the very bytes still the links stay: the next sweep takes them with their image.
    loose = materialise(loose_links(warehouse, barred, images.count + asked.counts.get(LINK, 0)))
    shared = touched.join(whole.select("image_id"), "image_id", "left_anti")
    return _Fates(whole, shared, shown, contents, loose)


def _what_goes(warehouse: Warehouse, asked: Targets, records: _Records, images: _Images, fates: _Fates) -> DataFrame:
    """The items of all that goes, with what of it a legal hold keeps, or a doubt about whose it is: see `find`."""
    near, leaving = images.near, records.leaving
    rows = [
        items_of(leaving, RECORD, F.col("record_id"), None),
        items_of(fates.whole, IMAGE, F.col("image_id"), "image_id"),
        items_of(fates.contents, CONTENT, F.col("content_sha256"), "image_id"),
        items_of(fates.loose, LINK, F.col("content_sha256"), None),
        items_of(fates.shared, SHARED, F.col("image_id"), "image_id"),
        somebody_leaves(fates.shown, fates.whole),
        _faces(warehouse, asked, near, fates.whole, records.ended),
        _written_down(warehouse, asked, leaving),
        *faces_of_loose_links(warehouse, fates.loose),
    ]
    waits = []
    if images.bare is not None:
        alone = materialise(fates.shared.where(~is_of_pass()).join(images.bare, "image_id", "left_semi"))
        rows += by_faces_alone(alone, near)
        waits.append(unlinked(alone, near).select("request_id"))
    found = reduce(DataFrame.unionByName, rows).distinct()
    doubtful, by_links = None, images.by_links
    # Where a record was found, and a link of it, both tables are there.
    if (RECORD in asked.counts or not by_links) and is_lost(warehouse):
        found = materialise(found)
        doubtful = materialise(_still_there(warehouse, found))
        named = found.where(F.col("kind") == IMAGE).withColumn("image_id", F.col("value"))
        waits.append(named.join(doubtful, "image_id", "left_semi").select("request_id"))
        waits.append(asked.targets.where(F.col("kind") == SUBJECT).select("request_id"))
    elif asked.counts.keys() & {IMAGE, BATCH}:
        doubtful = _of_lost_records(images.touched, near, leaving)
    return materialise(_marked(found, kept_on_hold(warehouse), _in_doubt(doubtful, near, leaving, waits)))


def _leaving(warehouse: Warehouse, asked: Targets, batches: DataFrame) -> DataFrame:
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
    return union_of(warehouse, records, "request_id string, record_id string").distinct()


def _touched(warehouse: Warehouse, asked: Targets, batches: DataFrame, ended: DataFrame) -> DataFrame:
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
        requests = asked.targets.where(~is_of_pass()).select("request_id")
        before = warehouse.read(ERASURE_ITEMS).where(F.col("kind") == UNLINKED)
        found.append(_led(before.join(requests, "request_id", "left_semi")))
    if BATCH in asked.counts:
        images = warehouse.read(IMAGES).select("image_id", "source_batch_id", "ingested_at")
        of_batches = images.join(batches, "source_batch_id").where(_in_time("ingested_at"))
        found.append(_led(of_batches, named=True))
    if IMAGE in asked.counts:
        found.append(_led(_standing(warehouse, asked.of(IMAGE, "image_id")), named=True))
    every = union_of(warehouse, found, "request_id string, image_id string, named boolean, linked boolean")
    return every.groupBy("request_id", "image_id").agg(*(F.max(name).alias(name) for name in ("named", "linked")))


def _led(images: DataFrame, *, named: bool = False, linked: bool = False) -> DataFrame:
    """``images`` with what led to them."""
    return images.withColumns({"named": F.lit(named), "linked": F.lit(linked)})


def _kept_by() -> Column:
    """By what an item is kept: itself; but the hash of a picture that stays by its picture, for it destroys nothing."""
    return F.when(F.col("kind") == LEFT_CONTENT, F.col("image_id")).otherwise(F.col("value"))


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


def is_lost(warehouse: Warehouse) -> bool:
    """Whether there are images, and no record or no link at all: nobody can tell whose they are, or what is on hold."""
    leading = (warehouse.read(spec).isEmpty() for spec in (BASIS_LINKS, PROCESSING_BASIS))
    return any(leading) and not warehouse.read(IMAGES).isEmpty()


def _still_there(warehouse: Warehouse, found: DataFrame) -> DataFrame:
    """Images (image_id, content_sha256) that are to go, and are there."""
    going = looked_up(found.where(F.col("kind") == IMAGE).select(F.col("value").alias("image_id")).distinct())
    return warehouse.read(IMAGES).select("image_id", "content_sha256").join(going, "image_id", "left_semi")


def _of_lost_records(touched: DataFrame, near: Near, leaving: DataFrame) -> DataFrame:
    """Images (image_id, content_sha256) that somebody asks for by name or batch, and that a lost record is linked to.

    A hold may be on that one; unless it was given up, and is among those that go (``leaving``).
    """
    named = touched.where(F.col("named") & ~is_of_pass()).select("image_id")
    known = near.records.select("record_id").unionByName(leaving.select("record_id"))
    lost = near.links.join(known, "record_id", "left_anti").select("image_id")
    images = near.images.select("image_id", "content_sha256")
    return images.join(named, "image_id", "left_semi").join(lost, "image_id", "left_semi")


def _in_doubt(
    doubtful: DataFrame | None, near: Near, leaving: DataFrame, waits: Sequence[DataFrame]
) -> DataFrame | None:
    """What stays, as `kept_on_hold`, because nobody can tell whose it is, or whether a hold is on it; None: nothing.

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
    unknown = F.lit(True).alias("unknown")
    marks = [frame.select(F.lit(kind).alias("kind"), F.col("value").alias("kept_by"), unknown) for kind, frame in parts]
    return reduce(DataFrame.unionByName, marks) if marks else None


def _marked(found: DataFrame, on_hold: DataFrame | None, doubt: DataFrame | None) -> DataFrame:
    """``found`` with what is on hold, and what of it is unknown: see `find`. Of both a hold is what is said."""
    waits = F.col("kind") == UNLINKED
    marks = [frame for frame in (on_hold, doubt) if frame is not None]
    if not marks:
        return found.withColumns({"on_hold": F.lit(False), "unknown": waits})
    by = reduce(DataFrame.unionByName, marks).groupBy("kind", "kept_by").agg(F.bool_and("unknown").alias("unknown"))
    marked = found.withColumn("kept_by", _kept_by()).join(by, ["kind", "kept_by"], "left")
    is_on_hold = F.col("unknown").isNotNull().alias("on_hold")
    return marked.select(*ITEM_COLUMNS, is_on_hold, F.coalesce("unknown", waits).alias("unknown"))


def _written_down(warehouse: Warehouse, asked: Targets, leaving: DataFrame) -> DataFrame:
    """What earlier passes found for these requests: a hold may be on it by now, or have ended.

    Without the records that are there and not among those that go now (``leaving``): they came in again under the same
    id, with a consent given since, in a batch that was assessed since, or as somebody else's. And without the faces
    that stand under these and under none that goes.
    """
    requests = asked.targets.select("request_id").distinct()
    # Whether an image waits for links still is asked anew: `_touched`.
    items = warehouse.read(ERASURE_ITEMS).where(~is_of_pass() & (F.col("kind") != UNLINKED))
    items = items.join(requests, "request_id", "left_semi").select(*ITEM_COLUMNS)
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
    return items.join(reduce(DataFrame.unionByName, spared), item, "left_anti").select(*ITEM_COLUMNS)


def _standing(warehouse: Warehouse, named: DataFrame) -> DataFrame:
    """Those of the ``named`` images (request_id, image_id) that stand in any table, their own or another."""
    places = (IMAGES, EMBEDDINGS, REMOVED_FACES, IMAGE_STATUS, BASIS_LINKS)
    found = [named.join(warehouse.read(spec).select("image_id"), "image_id", "left_semi") for spec in places]
    return reduce(DataFrame.unionByName, found).select("request_id", "image_id").distinct()


def _faces(warehouse: Warehouse, asked: Targets, near: Near, whole: DataFrame, records: DataFrame) -> DataFrame:
    of_images = near.faces.join(whole.unionByName(asked.of(ORPHAN, "image_id")), "image_id")
    found = [of_images, near.faces.join(records, "record_id")]
    if FACE in asked.counts:
        named = asked.of(FACE, "named").select("request_id", F.col("named").cast("bigint").alias("face_id"))
        found.append(known_faces(warehouse).join(looked_up(named, asked.counts[FACE]), "face_id"))
    every = union_of(warehouse, found, "request_id string, face_id bigint, image_id string").distinct()
    return items_of(every, FACE, F.col("face_id").cast("string"), "image_id")
