"""The gate: which images may be embedded, on whose record, and until when.

The rule of `decide.py` as Spark expressions. It reads metadata only: no column of image bytes is an input, so a
refused image is never decoded (Guarantee 2) and no byte of it is shuffled. Cost: one shuffle of the links by
record and one by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.errors import GovernanceError
from jobs.governance.decide import (
    BATCH_ASSESSED,
    BATCH_REVOKED,
    COLLECTION_METHODS,
    CONSENT_BASES,
    DURATION_PATTERN,
    LAWFUL_BASES,
    PRINCIPAL_PATTERN,
    PUBLIC_WEB,
    REASON_ORDER,
    REQUIRED_FIELDS,
    SCHEMA_VERSIONS,
    SPECIAL_CATEGORY_CONDITIONS,
    STATE_ORDER,
    STATES_ENDED,
    STATES_GIVEN,
    STATES_NOT_GIVEN,
    Reason,
)
from jobs.schemas import BASIS_LINKS, IMAGES, PROCESSING_BASIS, RECORD_STRUCT, SOURCE_BATCHES
from jobs.settings import Settings
from jobs.tables.store import Warehouse, materialise

_INPUTS = (IMAGES, PROCESSING_BASIS, BASIS_LINKS, SOURCE_BATCHES)


@dataclass(frozen=True)
class Gated:
    """Decisions on every image: `accepted` and `refused` are disjoint, and together they are all images.

    Columns of ``decisions``: image_id, part, content_sha256, reason (null: accepted), covered (array of record_id,
    principal, box), valid_until, input_digest (hash of the content and of whom the records cover: what an
    embedding was computed from).
    """

    decisions: DataFrame

    @property
    def accepted(self) -> DataFrame:
        """Images that a recorded basis permits."""
        return self.decisions.where("reason IS NULL")

    @property
    def refused(self) -> DataFrame:
        """Images that nothing permits, with the reason."""
        return self.decisions.where("reason IS NOT NULL")


def gate(
    images: DataFrame,
    links: DataFrame,
    basis: DataFrame,
    batches: DataFrame,
    *,
    purposes: Sequence[str],
    allowed_purposes: Sequence[str],
    now: datetime,
) -> Gated:
    """Decide every image.

    Args:
        images: image_id, part, content_sha256, source_batch_id (other columns are not read).
        links: image_id, record_id.
        basis: versions of basis records, append-only.
        batches: versions of source batches, append-only.
        purposes: what the run asks for.
        allowed_purposes: the controller's allow-list.
        now: the instant that the decision is for.
    """
    records = record_decisions(basis, purposes=purposes, allowed_purposes=allowed_purposes, now=now)
    linked = (
        links.select("image_id", "record_id")
        .distinct()
        .join(records, "record_id", "left")
        .groupBy("image_id")
        .agg(F.collect_list(F.struct(*_LINK_FIELDS)).alias("links"))
    )
    wanted = images.select("image_id", "part", "content_sha256", "source_batch_id")
    with_batch = wanted.join(F.broadcast(current_batches(batches)), "source_batch_id", "left")
    judged = with_batch.join(linked, "image_id", "left").withColumn("judged", _judge_links())
    return Gated(_decisions(judged))


_LINK_FIELDS = (
    "record_id",
    "found",
    "reason",
    "principal",
    "box",
    "valid_until",
    "record_batch",
    "record_collection",
    "lawful_basis",
)


def current_batches(batches: DataFrame) -> DataFrame:
    """The last recorded state of each batch: source_batch_id, batch_state, batch_collection. Few rows."""
    newest = F.struct("recorded_at", "state", "collection_method")
    return (
        batches.groupBy("source_batch_id")
        .agg(F.max(newest).alias("newest"))
        .select(
            "source_batch_id",
            F.col("newest.state").alias("batch_state"),
            F.col("newest.collection_method").alias("batch_collection"),
            F.lit(True).alias("batch_found"),
        )
    )


def current_records(basis: DataFrame) -> DataFrame:
    """One row a record: the last recorded version's fields, with the events of *all* versions.

    Events are never lost: a later version that omits a withdrawal does not undo it.
    """
    newest_first = Window.partitionBy("record_id").orderBy(F.col("recorded_at").desc(), F.col("content_digest").desc())
    every_version = Window.partitionBy("record_id")
    return (
        basis.withColumn("events", F.flatten(F.collect_list("events").over(every_version)))
        .withColumn("_rank", F.row_number().over(newest_first))
        .where("_rank = 1")
        .drop("_rank")
    )


def record_decisions(
    basis: DataFrame, *, purposes: Sequence[str], allowed_purposes: Sequence[str], now: datetime
) -> DataFrame:
    """Decide every record: record_id, reason (null: in force and granting), principal, box, valid_until, …"""
    records = current_records(basis).select(
        "*",
        F.expr(_CURRENT_EVENT).alias("event"),
    )
    moment = F.lit(now).cast("timestamp")
    return records.select(
        "record_id",
        F.lit(True).alias("found"),
        _first_reason([*_malformed(), *_not_in_force(moment), *_purpose(purposes, allowed_purposes)]).alias("reason"),
        F.col("pii_principal_id").alias("principal"),
        F.col("face_box").alias("box"),
        F.least(
            _end("event.event_time", "event.validity_duration"),
            _end("event.event_time", "processing.retention_period"),
            "expires_at",
        ).alias("valid_until"),
        F.col("source_batch_id").alias("record_batch"),
        F.col("processing.collection_method").alias("record_collection"),
        F.col("processing.lawful_basis").alias("lawful_basis"),
    )


def _sql_list(values: Sequence[str]) -> str:
    return ", ".join(f"'{v}'" for v in values)


# The latest event; at one instant the most restrictive state; null where any event lacks its time or type.
_CURRENT_EVENT = f"""
    CASE WHEN size(events) > 0 AND NOT exists(events, e -> e IS NULL OR e.event_time IS NULL
                                                           OR coalesce(e.event_type, '') = '')
    THEN array_max(transform(events, e -> struct(
        e.event_time AS event_time,
        coalesce(nullif(array_position(array({_sql_list(STATE_ORDER)}), coalesce(e.event_state, '')), 0L),
                 {len(STATE_ORDER) + 1}L) AS rank,
        coalesce(e.validity_duration, '') AS validity_duration,
        e.event_state AS event_state)))
    END
"""


def _first_reason(rules: Sequence[tuple[Column, Reason]]) -> Column:
    """The first rule that holds. A rule that evaluates to null holds as well: what is unknown is refused."""
    return F.coalesce(*(F.when(F.coalesce(rule, F.lit(True)), F.lit(reason.value)) for rule, reason in rules))


def _missing(column: str) -> Column:
    return F.coalesce(F.trim(F.col(column)), F.lit("")) == ""


def _malformed() -> list[tuple[Column, Reason]]:
    processing = {name: f"processing.{name}" for name in REQUIRED_FIELDS}
    empty_lists = [F.coalesce(F.size(f"processing.{n}"), F.lit(0)) <= 0 for n in ("purposes", "pii_controllers")]
    blanks = [_missing(column) for column in processing.values()]
    some_missing = reduce(Column.__or__, [*empty_lists, *blanks, F.coalesce("source_batch_id", F.lit("")) == ""])
    box = F.col("face_box")
    infinity = F.lit(float("inf"))
    box_ok = (
        (F.size(box) == 4)
        & (box[0] >= 0)
        & (box[0] < box[2])
        & (box[2] < infinity)
        & (box[1] >= 0)
        & (box[1] < box[3])
        & (box[3] < infinity)
    )
    return [
        (~F.col("schema_version").isin(*SCHEMA_VERSIONS), Reason.SCHEMA_UNKNOWN),
        (~F.col("pii_principal_id").rlike(PRINCIPAL_PATTERN.replace("$", r"\z")), Reason.PRINCIPAL_MISSING),
        (some_missing, Reason.FIELD_MISSING),
        (~F.col("processing.lawful_basis").isin(*LAWFUL_BASES), Reason.LAWFUL_BASIS_UNKNOWN),
        (
            ~F.col("processing.special_category_condition").isin(*SPECIAL_CATEGORY_CONDITIONS),
            Reason.SPECIAL_CATEGORY_UNKNOWN,
        ),
        (~F.col("processing.collection_method").isin(*COLLECTION_METHODS), Reason.COLLECTION_UNKNOWN),
        (box.isNotNull() & ~F.coalesce(box_ok, F.lit(False)), Reason.BOX_INVALID),
        (~_is_duration("processing.retention_period"), Reason.DURATION_INVALID),
    ]


def _not_in_force(now: Column) -> list[tuple[Column, Reason]]:
    state = F.coalesce("event.event_state", F.lit(""))
    return [
        (F.col("event").isNull(), Reason.EVENT_MISSING),
        (state.isin(*STATES_NOT_GIVEN), Reason.CONSENT_NOT_GIVEN),
        (state.isin(*STATES_ENDED), Reason.CONSENT_ENDED),
        (~state.isin(*STATES_GIVEN), Reason.STATE_UNKNOWN),
        (~_is_duration("event.validity_duration"), Reason.DURATION_INVALID),
        (F.col("event.event_time") > now, Reason.NOT_YET_VALID),
        (_end("event.event_time", "event.validity_duration") <= now, Reason.VALIDITY_EXPIRED),
        (_end("event.event_time", "processing.retention_period") <= now, Reason.RETENTION_EXPIRED),
        (F.col("expires_at").isNotNull() & (F.col("expires_at") <= now), Reason.RETENTION_EXPIRED),
        (F.col("legal_hold_ref").isNotNull(), Reason.LEGAL_HOLD),
    ]


def _purpose(purposes: Sequence[str], allowed_purposes: Sequence[str]) -> list[tuple[Column, Reason]]:
    asked = F.array(*(F.lit(p) for p in purposes)).cast("array<string>")
    granted = (F.size(asked) > 0) & (F.size(F.array_except(asked, "processing.purposes")) == 0)
    inside = set(purposes) <= set(allowed_purposes)
    return [(~granted, Reason.PURPOSE_NOT_GRANTED), (F.lit(not inside), Reason.PURPOSE_NOT_ALLOWED)]


def _is_duration(column: str) -> Column:
    return F.coalesce(F.col(column), F.lit("")).rlike(DURATION_PATTERN.replace("$", r"\z"))


def _end(start: str, duration: str) -> Column:
    """``start`` + an ISO 8601 duration; null where the duration is malformed."""
    text = F.coalesce(F.col(duration), F.lit(""))
    parts = [
        F.coalesce(F.nullif(F.regexp_extract(text, DURATION_PATTERN, group), F.lit("")).cast("int"), F.lit(0))
        for group in range(1, 5)
    ]
    years, months, weeks, days = parts
    return F.when(_is_duration(duration), F.col(start) + F.make_interval(years, months, weeks, days))


def _judge_links() -> Column:
    """Add to each link what depends on the image's own batch."""
    return F.transform(
        F.coalesce("links", F.array().cast("array<struct<" + _LINK_TYPES + ">>")),
        lambda link: F.struct(
            link["record_id"].alias("record_id"),
            link["principal"].alias("principal"),
            link["box"].alias("box"),
            link["valid_until"].alias("valid_until"),
            F.coalesce(
                F.when(link["found"].isNull(), F.lit(Reason.BASIS_NOT_FOUND.value)),
                link["reason"],
                F.when(
                    ~F.coalesce(link["record_batch"] == F.col("source_batch_id"), F.lit(False)),
                    F.lit(Reason.BATCH_MISMATCH.value),
                ),
                F.when(
                    F.coalesce(
                        ((F.col("batch_collection") == PUBLIC_WEB) | (link["record_collection"] == PUBLIC_WEB))
                        & ~link["lawful_basis"].isin(*CONSENT_BASES),
                        F.lit(True),
                    ),
                    F.lit(Reason.PUBLIC_WEB_WITHOUT_CONSENT.value),
                ),
            ).alias("reason"),
        ),
    )


_LINK_TYPES = (
    "record_id: string, found: boolean, reason: string, principal: string, box: array<float>, "
    "valid_until: timestamp, record_batch: string, record_collection: string, lawful_basis: string"
)


def _batch_reason() -> Column:
    known = F.coalesce(F.col("batch_collection").isin(*COLLECTION_METHODS), F.lit(False))
    assessed = F.coalesce(F.col("batch_state") == BATCH_ASSESSED, F.lit(False))
    return F.coalesce(
        F.when(F.col("batch_found").isNull(), F.lit(Reason.BATCH_UNKNOWN.value)),
        F.when(F.col("batch_state") == BATCH_REVOKED, F.lit(Reason.BATCH_REVOKED.value)),
        F.when(~(assessed & known), F.lit(Reason.BATCH_NOT_ASSESSED.value)),
    )


def _decisions(judged: DataFrame) -> DataFrame:
    order = F.array(*(F.lit(r.value) for r in REASON_ORDER))
    permitted = F.filter("judged", lambda link: link["reason"].isNull())
    furthest = F.array_max(F.transform("judged", lambda link: F.array_position(order, link["reason"])))
    reason = F.coalesce(
        _batch_reason(),
        F.when(F.size("judged") == 0, F.lit(Reason.NO_BASIS.value)),
        F.when(F.size(permitted) == 0, F.element_at(order, furthest.cast("int"))),
    )
    covered = F.array_sort(
        F.transform(
            permitted,
            lambda link: F.struct(
                link["record_id"].alias("record_id"), link["principal"].alias("principal"), link["box"].alias("box")
            ),
        )
    )
    nobody = F.array().cast(f"array<{RECORD_STRUCT}>")
    return (
        judged.select(
            "image_id",
            "part",
            "content_sha256",
            "source_batch_id",
            reason.alias("reason"),
            covered.alias("covered"),
            F.array_min(F.transform(permitted, lambda link: link["valid_until"])).alias("valid_until"),
        )
        .withColumn("covered", F.when(F.col("reason").isNull(), F.col("covered")).otherwise(nobody))
        .withColumn("input_digest", F.sha2(F.concat_ws("|", "content_sha256", F.to_json("covered")), 256))
    )


def gate_warehouse(warehouse: Warehouse, settings: Settings, *, now: datetime, ingested_by: datetime) -> Gated:
    """Gate the images that were there at ``ingested_by``, by the records that are there now.

    Raises:
        GovernanceError: no purpose is asked for, or there is no basis record at all (Guarantee 1).
    """
    governance = settings.governance
    if not governance.purposes:
        raise GovernanceError(
            "governance.purposes is empty: an index without a purpose is not permitted.",
            hint="name the purpose in the settings, and in governance.allowed_purposes.",
        )
    basis = warehouse.read(PROCESSING_BASIS)
    if basis.isEmpty():
        raise GovernanceError(
            "There is no basis record, so every image is refused and nothing was read.",
            hint="write a template with `ingest --source … --batch … --basis-template FILE`, complete it, "
            "and run `ingest --basis FILE`.",
        )
    images = warehouse.read(IMAGES).where(F.col("ingested_at") <= F.lit(ingested_by).cast("timestamp"))
    return gate(
        images,
        warehouse.read(BASIS_LINKS),
        basis,
        warehouse.read(SOURCE_BATCHES),
        purposes=governance.purposes,
        allowed_purposes=governance.allowed_purposes,
        now=now,
    )


class RunGate:
    """The gate of one run, asked before embedding, staging, the proof and the switch (Guarantee 8).

    A decision follows from four tables and the time. While the tables stand at the versions that the last decision
    read, and no permission has ended since, that decision is the answer: a night with nothing withdrawn decides its
    images once and not four times. (A permission that begins meanwhile waits for the next run.)
    """

    def __init__(
        self, warehouse: Warehouse, settings: Settings, *, clock: Callable[[], datetime], ingested_by: datetime
    ) -> None:
        self._warehouse = warehouse
        self._settings = settings
        self._clock = clock
        self._ingested_by = ingested_by
        self._versions: dict[str, int] = {}
        self._ends: float | None = None
        self._last: Gated | None = None

    def decide(self) -> Gated:
        """Decisions that hold at this instant; computed once, read several times."""
        # The versions first: what is committed in between is read too, and looks like a change the next time.
        versions, now = self._warehouse.versions(_INPUTS), self._clock()
        over = self._ends is not None and self._ends <= now.timestamp()
        if self._last is None or over or versions != self._versions:
            gated = gate_warehouse(self._warehouse, self._settings, now=now, ingested_by=self._ingested_by)
            self._last = Gated(materialise(gated.decisions))
            first_end = self._last.accepted.agg(F.unix_micros(F.min("valid_until")).alias("at")).first()
            self._ends = first_end["at"] / 1e6 if first_end and first_end["at"] is not None else None
            self._versions = versions
        return self._last
