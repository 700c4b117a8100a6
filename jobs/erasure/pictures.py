"""The pictures that a pass touches: what there is of each, whom it shows, and whether it goes or stays for others."""

from __future__ import annotations

from functools import reduce
from typing import Final, NamedTuple

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.erasure.holds import that_were_read
from jobs.erasure.kinds import (
    ITEM_COLUMNS,
    ORPHAN,
    UNLINKED,
    Targets,
    is_of_expiry,
    is_of_pass,
    is_of_sweep,
    items_of,
    union_of,
)
from jobs.governance.tombstones import BATCH, FACE, IMAGE, LEFT, LEFT_CONTENT
from jobs.schemas import BASIS_LINKS, IMAGES, PROCESSING_BASIS
from jobs.tables.faces import faces_under_records, known_faces
from jobs.tables.links import by_record, content_of_link
from jobs.tables.store import Warehouse, looked_up, materialise


class Near(NamedTuple):
    """What there is of the images that a pass touches, under their image_id: few rows, computed once.

    ``images``: content_sha256, and ``at``: when these bytes came in. ``links``: record_id, content_sha256, ``at``: when
    it was recorded; also of faces, whose link may be lost; ``linked``: without these. ``faces``: face_id, record_id
    (null: under none). ``records``: record_id, pii_principal_id, of those that are there.
    """

    images: DataFrame
    links: DataFrame
    linked: DataFrame
    faces: DataFrame
    records: DataFrame


def near_to(warehouse: Warehouse, touched: DataFrame, asked: Targets, count: int) -> Near:
    """What is around the ``count`` ``touched`` images, and those that have faces and no row."""
    around = union_of(warehouse, [], _AROUND)
    records = union_of(warehouse, [], "record_id string, pii_principal_id string")
    count += asked.counts.get(ORPHAN, 0)
    if count:
        ids = touched.select("image_id").unionByName(asked.of(ORPHAN, "image_id").select("image_id")).distinct()
        around = materialise(_around(warehouse, looked_up(ids, count)))
        named = looked_up(around.select("record_id").dropna().distinct())
        basis = warehouse.read(PROCESSING_BASIS).select(*records.columns)
        records = materialise(basis.join(named, "record_id", "left_semi").distinct())
    images, links, faces = (around.where(F.col("what") == what) for what in _WHAT)
    linked = ("image_id", "record_id", "content_sha256", "at")
    unlinked = faces.join(records.select("record_id"), "record_id", "left_semi")
    return Near(
        images.select("image_id", "content_sha256", "at"),
        links.select(*linked).unionByName(unlinked.select(*linked)),
        links.select("image_id"),
        faces.select("image_id", "face_id", "record_id"),
        records,
    )


_WHAT: Final = ("image", "link", "face")
_AROUND: Final = "what string, image_id string, record_id string, content_sha256 string, at timestamp, face_id bigint"


def _around(warehouse: Warehouse, ids: DataFrame) -> DataFrame:
    """Rows, links and faces of the images ``ids``, in one frame, so that they are computed at once."""
    frames = (
        warehouse.read(IMAGES).select("image_id", "content_sha256", F.col("ingested_at").alias("at")),
        warehouse.read(BASIS_LINKS).select("image_id", "record_id", "content_sha256", F.col("recorded_at").alias("at")),
        known_faces(warehouse).select("image_id", "face_id", F.explode_outer("basis_record_ids").alias("record_id")),
    )
    missing = {"record_id": "string", "content_sha256": "string", "at": "timestamp", "face_id": "bigint"}
    rows = []
    for what, frame in zip(_WHAT, frames, strict=True):
        nulls = {name: F.lit(None).cast(type_) for name, type_ in missing.items() if name not in frame.columns}
        rows.append(frame.join(ids, "image_id", "left_semi").withColumns({"what": F.lit(what), **nulls}))
    return union_of(warehouse, rows, _AROUND)


def bare_images(touched: DataFrame, near: Near) -> DataFrame:
    """Images (image_id) to which somebody's faces lead, and no link of anybody."""
    by_faces = touched.where(~F.col("linked") & ~F.col("named")).select("image_id").distinct()
    return by_faces.join(near.linked, "image_id", "left_anti")


def whole_images(
    touched: DataFrame, near: Near, leaving: DataFrame, ended: DataFrame, bare: DataFrame | None, *, lost: bool
) -> DataFrame:
    """Images (request_id, image_id) that go: asked for by name, or in which nobody else is recorded.

    Beside an erasure others are those who are not erased, by a record that counts for the bytes that are there now;
    whose consent has lapsed is somebody, for it may be renewed, and so is who is lost. What only expires spares
    whatever else is linked; but what goes with records that were given up (``lost``: there may be some) no more than
    an erasure does. Of ``bare`` images nobody knows who is recorded.
    """
    counting, erased = _given(near).where("counts"), leaving.where(~is_of_expiry())
    sparing = near.links.join(ended, "record_id", "left_anti").select("image_id")
    if lost:
        given_up = near.links.join(leaving.where(is_of_expiry()), "record_id", "left_semi")
        sparing = sparing.join(given_up, "image_id", "left_anti").unionByName(
            counting.join(ended, "record_id", "left_anti").select("image_id")
        )
    beside = {False: counting.join(erased, "record_id", "left_anti"), True: sparing}
    others = [frame.select("image_id", F.lit(expires).alias("expires")) for expires, frame in beside.items()]
    alone = touched.where(~F.col("named")).withColumn("expires", is_of_expiry())
    alone = alone.join(reduce(DataFrame.unionByName, others).distinct(), ["image_id", "expires"], "left_anti")
    if bare is not None:
        alone = alone.join(bare, "image_id", "left_anti")
    both = touched.where("named").select("request_id", "image_id")
    return both.unionByName(alone.select(*both.columns)).distinct()


def _given(near: Near) -> DataFrame:
    """For which bytes each record was given: image_id, record_id, `people`, `contents`, `awaits`, `now`, `counts`.

    `people`: whom it is about (null: it is lost); `contents`: the hashes that its links name; `now`: that of the image,
    null where its row is missing, or was not read. `counts`: by it somebody is in the picture as it is now. That is:
    given for these bytes, or for the first ones; not what `awaits` what an ingestion brings, if none has brought
    anything since. All count where nobody can tell: without `now`, or if the record is lost.
    """
    people = near.records.groupBy("record_id").agg(F.collect_set("pii_principal_id").alias("people"))
    now = that_were_read(near.images).withColumnsRenamed({"content_sha256": "now", "at": "came_at"})
    given = by_record(near.links, F.max("at").alias("given_at")).join(now, "image_id", "left")
    given = given.join(people, "record_id", "left")
    for_others = ~F.array_contains("contents", F.col("now")) & (F.size("contents") > 0)
    to_come = F.col("awaits") & ~F.coalesce(F.col("came_at") > F.col("given_at"), F.lit(False))
    former = F.col("people").isNotNull() & F.col("now").isNotNull() & (for_others | to_come)
    return given.withColumn("counts", ~F.coalesce(former, F.lit(False))).drop("came_at", "given_at")


def people_shown(near: Near, leaving: DataFrame, bare: DataFrame | None) -> DataFrame:
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
    going = leaving.withColumn("erased", F.max(~is_of_expiry()).over(Window.partitionBy("record_id")))
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


def barred_contents(asked: Targets, touched: DataFrame, near: Near, shown: DataFrame) -> DataFrame:
    """The hashes (request_id, image_id, content_sha256) of what goes with a request, and does not come back.

    Of an image that is asked for, by name or by its batch, it is that of its row; else those that its own records were
    given for, whatever the image holds now, and of which nobody else is recorded under the same id.
    """
    own = shown.where((F.col("kind") == LEFT_CONTENT) & ~is_of_pass() & ~F.col("others"))
    own = own.select("request_id", "image_id", F.col("value").alias("content_sha256"))
    if not asked.counts.keys() & {IMAGE, BATCH}:
        return own.distinct()
    named = touched.where(F.col("named") & ~is_of_pass()).select("request_id", "image_id")
    by_name = _hashes(named, near)
    return own.join(named, named.columns, "left_anti").unionByName(by_name).distinct()


def _hashes(named: DataFrame, near: Near) -> DataFrame:
    """The ``named`` images (request_id, image_id) with the content_sha256 of their rows.

    Where that of one is missing, or was not read, its links have the hash of the bytes that they hold for.
    """
    own = that_were_read(near.images).select("image_id", "content_sha256")
    linked = near.links.select("image_id", content_of_link()).dropna()
    known = own.withColumn("own", F.lit(True)).unionByName(linked.withColumn("own", F.lit(False)))
    found = known.distinct().join(named, "image_id")
    best = F.max("own").over(Window.partitionBy("image_id"))
    return found.withColumn("best", best).where("own = best").select(*named.columns, "content_sha256")


def somebody_leaves(shown: DataFrame, whole: DataFrame) -> DataFrame:
    """Pictures of several people of whom somebody goes without a trace, by their ids and by their bytes.

    Those that stay, for other people; and whole ones, for what expired may come back without all of its links. (A
    record that has ended and stays tells by its own link that its person is in the picture.)
    """
    item = ("request_id", *_PLACE)
    several = shown.where("several")
    parted = several.where(F.col("request_id").isNotNull() & ~F.col("stays"))
    # What came back, and goes again, has its own tombstone.
    may_return = whole.where(~is_of_sweep())
    may_return = may_return.join(several.where(F.col("now")).select(*_PLACE), "image_id")
    return parted.select(*item).unionByName(may_return.select(*item)).select(*ITEM_COLUMNS)


def unlinked(alone: DataFrame, near: Near) -> DataFrame:
    """Those of the images to which faces led ``alone`` (request_id, image_id) that are there: they wait for links."""
    return alone.select("request_id", "image_id").join(near.images.select("image_id"), "image_id", "left_semi")


def by_faces_alone(alone: DataFrame, near: Near) -> list[DataFrame]:
    """Items of images to which a person's faces led ``alone``: these go, and without a box nobody tells whose more are.

    Without the links nobody knows whether others are in it, so the picture stays.
    """
    left = alone.select("request_id", "image_id")
    return [
        items_of(unlinked(alone, near), UNLINKED, F.col("image_id"), "image_id"),
        items_of(left, LEFT, F.col("image_id"), "image_id"),
        items_of(_hashes(left, near), LEFT_CONTENT, F.col("content_sha256"), "image_id"),
    ]


def faces_of_loose_links(warehouse: Warehouse, loose: DataFrame) -> list[DataFrame]:
    """Items of faces that erased bytes left in images that hold others now: by ``loose`` links (`loose_links`).

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
    return [items_of(under.join(looked_up(former, count), pair), FACE, F.col("face_id").cast("string"), "image_id")]
