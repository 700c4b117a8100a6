"""Pictures of several people of whom one goes: the others' faces stay, under the coverage that is left."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.kinds import RECORD, SHARED, is_of_pass
from jobs.erasure.rows import keys_of
from jobs.governance.gate import Gated, gate_warehouse, input_digest
from jobs.governance.records import current_records
from jobs.governance.tombstones import EXPIRED, FACE, LEFT, LEFT_CONTENT
from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, RECORD_STRUCT
from jobs.tables.store import Warehouse, looked_up, materialise

if TYPE_CHECKING:
    from jobs.settings import Settings


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
    warehouse: Warehouse,
    settings: Settings,
    items: DataFrame,
    leaving: DataFrame,
    left: DataFrame | None,
    *,
    now: datetime,
) -> DataFrame | None:
    """`covered_as_before` of all shared pictures of ``items``, asked before the records go; None: there are none.

    ``left``: `left_by_pass`.
    """
    shared = shared_in(items)
    if shared.isEmpty():
        return None
    gated = gate_warehouse(warehouse, settings, now=now, only=shared, left=left, to_destroy=True)
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
    rest = warehouse.read(EMBEDDINGS).join(keys_of(items, FACE, "face_id", "bigint"), "face_id", "left_anti")
    rest = rest.groupBy(*on).agg(F.count("*").alias("faces"))
    settled = materialise(stay.join(rest, list(on)).where("stay = faces"))
    faces = materialise(staying.join(settled.select(*on), list(on), "left_semi"))
    status = {"input_digest": "k.fresh", "faces": "CAST(k.stay AS INT)", "decided_at": "current_timestamp()"}
    warehouse.update_matching(IMAGE_STATUS, settled, on, status)
    warehouse.update_matching(EMBEDDINGS, faces, (*on, "face_id"), {"input_digest": "k.fresh"})
    return settled.count()


def left_by_pass(warehouse: Warehouse, found: DataFrame) -> DataFrame | None:
    """Images (image_id) that somebody leaves by a pass, as they are named or by their bytes; None: there are none.

    Their tombstones are written when it has begun, which is behind the look at the collections.
    """
    leave = is_of_pass() & ~F.col("on_hold") & F.col("kind").isin(LEFT, LEFT_CONTENT)
    left = materialise(found.where(leave).select("kind", "value").distinct())
    if not (count := left.count()):
        return None
    images = warehouse.read(IMAGES).select("image_id", "content_sha256")
    parts = []
    for kind, column in ((LEFT, "image_id"), (LEFT_CONTENT, "content_sha256")):
        named = left.where(F.col("kind") == kind).select(F.col("value").alias(column))
        parts.append(images.join(looked_up(named, count), column, "left_semi").select("image_id"))
    return materialise(parts[0].unionByName(parts[1]).distinct())


def shared_in(items: DataFrame) -> DataFrame:
    """The pictures (image_id) of which one person's faces go and others' stay."""
    return items.where(F.col("kind") == SHARED).select(F.col("value").alias("image_id")).distinct()
