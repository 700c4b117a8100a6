"""What has reached its end and must be destroyed (Guarantee 7): from the gate's own decisions, by image and by record.

An image whose every record has ended, for a reason that no later time undoes, is due; so is every image of a revoked
batch (Guarantee 6). Where another record still permits the image, or would if it had a box, only the ended record's
faces are due. What a legal hold covers is not.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.governance.decide import Reason
from jobs.governance.gate import Gated, barred_in, policy_of, record_decisions
from jobs.schemas import BASIS_LINKS, IMAGES, PROCESSING_BASIS
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise

#: Reasons that stay: what ended by them is destroyed, and does not only wait.
ENDED: Final = (Reason.CONSENT_ENDED, Reason.VALIDITY_EXPIRED, Reason.RETENTION_EXPIRED, Reason.ERASED)


def due(warehouse: Warehouse, settings: Settings, gated: Gated, *, now: datetime) -> DataFrame:
    """What is due as (kind, value): kind `image`, or `expired` for a record of whose images some stay."""
    ended = [reason.value for reason in ENDED]
    over = F.forall("reasons", lambda reason: F.coalesce(reason.isin(*ended), F.lit(False)))
    revoked = F.col("reason").isin(Reason.BATCH_REVOKED.value, Reason.ERASED.value)
    refused = gated.refused.where(~F.col("held"))
    images = refused.where(revoked | ((F.size("reasons") > 0) & over)).select("image_id")
    basis = warehouse.read(PROCESSING_BASIS)
    barred = barred_in(warehouse, settings, warehouse.read(IMAGES).limit(0), basis)
    records = record_decisions(basis, policy=policy_of(settings), now=now, barred=barred)
    past = records.where(F.col("reason").isin(*ended) & ~F.col("held")).select("record_id")
    waiting = refused.where(F.col("reason") == Reason.OTHERS_REFUSED.value)
    staying = gated.accepted.select("image_id").unionByName(waiting.select("image_id"))
    links = warehouse.read(BASIS_LINKS).select("image_id", "record_id").distinct()
    partly = links.join(past, "record_id", "left_semi").join(staying, "image_id", "left_semi").select("record_id")
    rows = images.select(F.lit("image").alias("kind"), F.col("image_id").alias("value")).unionByName(
        partly.select(F.lit("expired").alias("kind"), F.col("record_id").alias("value"))
    )
    return materialise(rows.distinct())
