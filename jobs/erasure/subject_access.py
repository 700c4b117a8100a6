"""Access of a person to what is stored about them (GDPR articles 15 and 20): a list, and a portable copy."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.find import find
from jobs.erasure.kinds import RECORD, SHARED, TARGETS, Target
from jobs.errors import SettingsError
from jobs.governance.records import current_records
from jobs.governance.tombstones import FACE, IMAGE
from jobs.private import new_file
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGES, PROCESSING_BASIS
from jobs.tables.links import by_record
from jobs.tables.store import Warehouse, materialise, utc_text

#: Details that one answer lists; the counts are always whole.
_LISTED = 1_000


def stored_about(warehouse: Warehouse, targets: Sequence[Target]) -> dict[str, Any]:
    """What an erasure of ``targets`` would destroy: counts by kind, what a legal hold keeps, and names of it all.

    `unknown`: the targets of which there is nothing.
    """
    found = _found(warehouse, targets)
    names = {"image": "images", "face": "faces", "record": "records", "shared": "pictures shared with others"}
    kinds = F.col("kind").isin(*names)
    rows = found.where(kinds).groupBy("kind").agg(F.count_distinct("value").alias("n")).collect()
    on_hold = found.where(kinds & F.col("on_hold") & ~F.col("unknown")).select("kind", "value").distinct().count()
    listed = found.where(kinds).select("kind", "value").distinct().orderBy("kind", "value").limit(_LISTED).collect()
    details: dict[str, list[str]] = {}
    for row in listed:
        details.setdefault(names[row["kind"]], []).append(row["value"])
    known = {row["request_id"] for row in found.select("request_id").distinct().collect()}
    unknown = [target for number, target in enumerate(targets) if str(number) not in known]
    return {"counts": {names[row["kind"]]: row["n"] for row in rows}, "on_hold": on_hold, "unknown": unknown, **details}


def export(warehouse: Warehouse, targets: Sequence[Target], path: str, kind_of: Callable[[bytes], str | None]) -> None:
    """Write one person's copy: records, faces and the stored pictures, as a zip of JSON and image files.

    What may be another person's too is listed or counted and not copied (GDPR article 15(4)): a picture that anybody
    else's record is for, or that holds other bytes than this person's records are for, a face that does not stand under
    these alone, a version of a record that names another. ``kind_of`` tells the suffix that the person's computer opens
    a picture by, from its bytes. Files have numbers for names: an image's id may be anything, a path that leads out of
    the folder it is unpacked in included.

    Raises:
        SettingsError: not one person; or ``path`` is there already, or cannot be written.
    """
    if len(targets) != 1 or targets[0].kind != "subject":
        raise SettingsError(
            "--export writes the copy of one person.", hint="give one --subject, or a file of one line."
        )
    found = _found(warehouse, targets)

    def rows(spec: Any, kind: str, column: str, type_: str = "string") -> DataFrame:
        wanted = found.where(F.col("kind") == kind).select(F.col("value").cast(type_).alias(column)).distinct()
        return warehouse.read(spec).join(F.broadcast(wanted), column, "left_semi")

    versions, own_id = rows(PROCESSING_BASIS, RECORD, "record_id"), F.col("pii_principal_id").isin(*targets[0].values)
    own = materialise(current_records(versions).where(own_id & ~F.col("contested")).select("record_id", "face_box"))
    images = found.where(F.col("kind").isin(IMAGE, SHARED)).select(F.col("value").alias("image_id"))
    shared = materialise(_not_ones_own(warehouse, images.distinct(), own))
    faces = rows(EMBEDDINGS, FACE, "face_id", "bigint")
    own_faces = materialise(_own_faces(faces, own, shared))
    with new_file(path, "--export") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        stored = rows(IMAGES, IMAGE, "image_id").drop("part").join(shared, "image_id", "left_anti")
        pictures = list(_copied(archive, stored, kind_of))
        about = {
            "records": _as_json(versions.where(own_id)),
            "faces": _as_json(faces.join(own_faces, "face_id", "left_semi")),
            "images": pictures,
            "pictures_shared_with_others": sorted(row["image_id"] for row in shared.collect()),
            "faces_that_may_be_others": faces.count() - own_faces.count(),
        }
        archive.writestr("about_you.json", json.dumps(about, indent=2, sort_keys=True, default=str))


def _copied(
    archive: zipfile.ZipFile, stored: DataFrame, kind_of: Callable[[bytes], str | None]
) -> Iterator[dict[str, Any]]:
    """Put pictures into the archive one by one; yields what is said of each."""
    said = stored.withColumn("ingested_at", utc_text("ingested_at"))
    for number, row in enumerate(said.toLocalIterator(), start=1):
        name = f"images/{number:06d}"
        if row["content"] is not None:
            content = bytes(row["content"])
            kind = kind_of(content)
            name += f".{kind}" if kind else ""
            archive.writestr(name, content)
        original = None if row["content"] is not None else row["uri"]
        yield {"image_id": row["image_id"], "file": name if original is None else None, "uri": original,
               "ingested_at": row["ingested_at"]}  # fmt: skip


def _not_ones_own(warehouse: Warehouse, images: DataFrame, own: DataFrame) -> DataFrame:
    """Those of ``images`` (image_id) that may be another's, or another's too.

    A record was given for it which is not among one's ``own``; or none was for the bytes that it holds now (a link is,
    that names these or the first ones), for somebody may have brought them without a record.
    """
    wanted = F.broadcast(images)
    now = warehouse.read(IMAGES).select("image_id", F.col("content_sha256").alias("now"))
    given = by_record(warehouse.read(BASIS_LINKS).join(wanted, "image_id", "left_semi"))
    given = given.join(own.select("record_id", F.lit(True).alias("own")), "record_id", "left")
    given = given.join(now.join(wanted, "image_id", "left_semi"), "image_id", "left")
    # Of a picture whose row is missing there is nothing to copy.
    first = (F.size("contents") == 0) & ~F.col("awaits")
    for_now = first | F.coalesce(F.array_contains("contents", F.col("now")), F.lit(True))
    alone = F.bool_and(F.coalesce("own", F.lit(False))) & F.bool_or(for_now)
    ones_own = given.groupBy("image_id").agg(alone.alias("alone")).where("alone")
    return images.join(ones_own, "image_id", "left_anti")


def _own_faces(faces: DataFrame, own: DataFrame, shared: DataFrame) -> DataFrame:
    """Faces (face_id) that can be nobody else's: under own records alone, and by a box where a picture is shared."""
    under = faces.select("face_id", "image_id", F.explode("basis_record_ids").alias("record_id"))
    marked = under.join(own.withColumn("own", F.lit(True)), "record_id", "left")
    marked = marked.join(shared.withColumn("shared", F.lit(True)), "image_id", "left")
    alone = F.bool_and(F.coalesce("own", F.lit(False)))
    told_apart = F.bool_or(F.col("face_box").isNotNull() | F.col("shared").isNull())
    return marked.groupBy("face_id").agg((alone & told_apart).alias("mine")).where("mine").select("face_id")


def _as_json(rows: DataFrame) -> list[Any]:
    return [json.loads(row["text"]) for row in rows.select(F.to_json(F.struct("*")).alias("text")).collect()]


def _found(warehouse: Warehouse, targets: Sequence[Target]) -> DataFrame:
    rows = [
        (str(number), target.kind, value, 0, None) for number, target in enumerate(targets) for value in target.values
    ]
    return find(warehouse, warehouse.spark.createDataFrame(rows, TARGETS))
