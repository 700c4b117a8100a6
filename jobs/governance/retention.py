"""What has reached its end and must be destroyed (Guarantee 7): from the gate's own decisions, by image and by record.

An image of which everybody's record has ended, for a reason that no later time undoes, is due; so is every image of a
revoked batch (Guarantee 6). Of an image that stays, whatever the gate says of it, the faces that stand under a record
that has ended are due, and their record with them until they are gone: then nothing is left to destroy. What a legal
hold covers, or may, is not.
"""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.governance.barred import barred_in
from jobs.governance.decide import Reason
from jobs.governance.gate import Gated, policy_of
from jobs.governance.holds import images_under
from jobs.governance.records import record_decisions
from jobs.governance.tombstones import EXPIRED, IMAGE
from jobs.schemas import BASIS_LINKS, IMAGES, PROCESSING_BASIS
from jobs.settings import Settings
from jobs.tables.faces import faces_under_records
from jobs.tables.links import without_link
from jobs.tables.store import Warehouse, looked_up, materialise


def due(warehouse: Warehouse, settings: Settings, gated: Gated, *, now: datetime) -> DataFrame:
    """What is due as (kind, value): kind `image`, or `expired` for a record under which a face stands elsewhere.

    Nothing is while there is no record, or no link, at all, as where a folder was removed: a hold may have been there.
    Where a link alone is lost a face tells of it (`_with_nobody_else`), and beside one under a record on hold, or that
    may be, nothing is.
    """
    # Not where a record of it is lost: a hold may have been in it.
    lost = F.exists("reasons", lambda reason: F.coalesce(reason == Reason.BASIS_NOT_FOUND.value, F.lit(False)))
    revoked = F.col("reason").isin(Reason.BATCH_REVOKED.value, Reason.ERASED.value) & ~lost
    decided = gated.decisions.where(~F.col("on_hold")).select(
        "image_id", "over", F.coalesce(revoked, F.lit(False)).alias("revoked")
    )
    basis = warehouse.read(PROCESSING_BASIS)
    barred = barred_in(warehouse, settings, warehouse.read(IMAGES).limit(0), basis)
    records = record_decisions(basis, policy=policy_of(settings), now=now, barred=barred)
    faces = faces_under_records(warehouse).select("image_id", "record_id")
    under = faces.join(records.where("ended").select("record_id"), "record_id")
    # Also one whose newest line could not be read: a hold may be in that.
    held = records.where(F.col("on_hold") | (F.col("reason") == Reason.QUARANTINED.value)).select("record_id")
    beside_hold = images_under(warehouse, materialise(held))
    over = decided.where("over AND NOT revoked").select("image_id")
    whole = (
        decided.where("revoked")
        .select("image_id")
        .unionByName(_with_nobody_else(warehouse, over, faces, records.where("NOT ended")))
    )
    staying = under.join(decided.select("image_id"), "image_id", "left_semi")
    staying = staying.join(whole, "image_id", "left_anti")
    staying, whole = (some.join(beside_hold, "image_id", "left_anti") for some in (staying, whole))
    images = whole.select(F.lit(IMAGE).alias("kind"), F.col("image_id").alias("value"))
    partly = staying.select(F.lit(EXPIRED).alias("kind"), F.col("record_id").alias("value"))
    rows = materialise(images.unionByName(partly).distinct())
    # Asked where it matters: nearly always nothing is due.
    if not rows.isEmpty() and (basis.isEmpty() or warehouse.read(BASIS_LINKS).isEmpty()):
        return rows.limit(0)
    return rows


def _with_nobody_else(warehouse: Warehouse, over: DataFrame, faces: DataFrame, standing: DataFrame) -> DataFrame:
    """Those of the images (image_id) that are ``over`` by what is linked, and of which no face tells of a lost link.

    That is one under a ``standing`` record (record_id), which is linked to them for no bytes: somebody else is in it.
    """
    over = materialise(over)
    if not (count := over.count()):
        return over
    wanted = looked_up(over, count)
    lonely = without_link(warehouse, faces.join(wanted, "image_id", "left_semi"), wanted)
    return over.join(lonely.join(standing, "record_id", "left_semi"), "image_id", "left_anti")
