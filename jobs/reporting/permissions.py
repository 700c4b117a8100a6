"""Where permissions stand now: lawful bases of the records in force, and when they end. Counts only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pyspark.sql import functions as F

from jobs.governance.barred import Barred, quarantined
from jobs.governance.gate import policy_of
from jobs.governance.records import record_decisions
from jobs.schemas import BASIS_LINKS, PROCESSING_BASIS
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise

MONTHS: Final = 12


@dataclass(frozen=True)
class Permissions:
    """Records that an image is linked to and that are in force at ``at``."""

    at: datetime
    bases: tuple[tuple[str, int], ...]
    within_30_days: int
    months: tuple[int, ...]  # records that end within the first, second, … month from now
    later: int
    not_in_force: int

    @property
    def in_force(self) -> int:
        """All of them."""
        return sum(count for _, count in self.bases)


def permissions(warehouse: Warehouse, settings: Settings, now: datetime) -> Permissions:
    """Count the linked records by lawful basis and by the month in which their permission ends.

    The rule is the gate's. Erased persons are not looked up, which would take the tombstones' keys: an erasure destroys
    their records. Values come from the rule's own lists, for a record in force can hold no others: no text that a
    person typed is shown.
    """
    basis = warehouse.read(PROCESSING_BASIS)
    barred = Barred(records=quarantined(warehouse, basis))
    linked = warehouse.read(BASIS_LINKS).select("record_id").distinct()
    records = record_decisions(basis, policy=policy_of(settings), now=now, barred=barred)
    moment = F.lit(now).cast("timestamp")
    soon = F.col("valid_until") <= moment + F.expr("INTERVAL 30 DAYS")
    # A permission without an end counts as one that ends later: `least` passes over null.
    month = F.least(F.floor(F.months_between("valid_until", moment)), F.lit(MONTHS)).cast("int")
    counted = materialise(
        records.join(linked, "record_id", "left_semi")
        .select(
            F.when(F.col("reason").isNull(), F.col("lawful_basis")).alias("basis"),
            month.alias("month"),
            soon.alias("soon"),
        )
        .groupBy("basis", "month", "soon")
        .count()
    )
    # At most one row for each of a few bases, thirteen months and both values of `soon`.
    rows = counted.where("basis IS NOT NULL").collect()
    refused = counted.where("basis IS NULL").agg(F.coalesce(F.sum("count"), F.lit(0)).alias("count")).first()
    bases: dict[str, int] = {}
    months = [0] * (MONTHS + 1)
    for row in rows:
        bases[row["basis"]] = bases.get(row["basis"], 0) + row["count"]
        months[row["month"]] += row["count"]
    return Permissions(
        at=now,
        bases=tuple(sorted(bases.items(), key=lambda item: -item[1])),
        within_30_days=sum(row["count"] for row in rows if row["soon"]),
        months=tuple(months[:MONTHS]),
        later=months[MONTHS],
        not_in_force=int(refused["count"]) if refused else 0,
    )
