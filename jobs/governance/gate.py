"""The gate: which images may be embedded, on whose record, and until when.

The rule of `decide.py` as Spark expressions. It reads metadata only: no column of image bytes is an input, so a
refused image is never decoded (Guarantee 2) and no byte of it is shuffled. Cost: one shuffle of the links by
record and one by image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.errors import GovernanceError
from jobs.governance.barred import Barred, barred_in, flagged
from jobs.governance.batches import current_batches
from jobs.governance.decide import (
    BATCH_ASSESSED,
    BATCH_REVOKED,
    COLLECTION_METHODS,
    CONSENT_BASES,
    PUBLIC_WEB,
    REASON_ORDER,
    Policy,
    Reason,
)
from jobs.governance.jurisdictions import load_rules
from jobs.governance.records import record_decisions
from jobs.schemas import (
    AWAITED,
    BASIS_LINKS,
    BASIS_QUARANTINE,
    IMAGES,
    PROCESSING_BASIS,
    RECORD_STRUCT,
    SOURCE_BATCHES,
    TOMBSTONES,
)
from jobs.settings import Settings
from jobs.tables.links import NOT_READ
from jobs.tables.store import Warehouse, materialise

_INPUTS = (IMAGES, PROCESSING_BASIS, BASIS_LINKS, SOURCE_BATCHES, TOMBSTONES, BASIS_QUARANTINE)


@dataclass(frozen=True)
class Gated:
    """Decisions on every image: `accepted` and `refused` are disjoint, and together they are all images.

    Columns of ``decisions``: image_id, part, content_sha256, reason (null: accepted), covered (array of record_id,
    principal, box), valid_until, input_digest (hash of the content and of whom the records cover: what an
    embedding was computed from), on_hold (a legal hold is recorded: neither served nor destroyed), over (it has reached
    its end by its records: `decide.is_over`), reasons (of each linked record; null: it permits).
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

    def computed(self) -> Gated:
        """The same, computed now and once: what follows reads it several times."""
        return Gated(materialise(self.decisions))

    def is_same_answer_as(self, other: Gated | None) -> bool:
        """Whether the gate was not asked anew in between, for nothing that it goes by had changed (`RunGate`)."""
        return other is not None and self.decisions is other.decisions


def gate(
    images: DataFrame,
    links: DataFrame,
    basis: DataFrame,
    batches: DataFrame,
    *,
    policy: Policy,
    now: datetime,
    barred: Barred | None = None,
) -> Gated:
    """Decide every image.

    Args:
        images: image_id, part, content_sha256, source_batch_id, changed_at (other columns are not read).
        links: image_id, record_id, content_sha256.
        basis: versions of basis records, append-only.
        batches: versions of source batches, append-only.
        policy: what the run asks for, what the controller allows, and the rules of jurisdictions.
        now: the instant that the decision is for.
        barred: what was erased or quarantined; None: nothing.
    """
    barred = barred or Barred()
    records = record_decisions(basis, policy=policy, now=now, barred=barred)
    linked = (
        links.groupBy("image_id", "record_id")
        .agg(F.collect_set("content_sha256").alias("contents"))
        .join(records, "record_id", "left")
        .groupBy("image_id")
        .agg(F.collect_list(F.struct(*_LINK_FIELDS)).alias("links"))
    )
    wanted = images.select("image_id", "part", "content_sha256", "source_batch_id", "changed_at")
    current = current_batches(batches, barred.batches)
    with_batch = wanted.join(F.broadcast(current), "source_batch_id", "left")
    with_batch = flagged(with_batch, barred.images, "image_id", "erased")
    with_batch = flagged(with_batch, barred.shared, "image_id", "somebody_left")
    judged = with_batch.join(linked, "image_id", "left").withColumn("judged", _judge_links())
    return Gated(_decisions(judged.withColumn("judged", _judge_together())))


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
    "on_hold",
    "ended",
    "contents",
)


def _judge_links() -> Column:
    """Add to each link what depends on the image's own batch and content."""
    was_read = ~F.col("content_sha256").startswith(NOT_READ)

    def judged(link: Column) -> Column:
        given_for = _given_for(link["contents"])
        return F.struct(
            link["record_id"].alias("record_id"),
            link["principal"].alias("principal"),
            link["box"].alias("box"),
            link["valid_until"].alias("valid_until"),
            link["on_hold"].alias("on_hold"),
            F.coalesce(link["ended"], F.lit(False)).alias("ended"),
            (given_for & was_read).alias("of_now"),
            F.coalesce(
                F.when(~F.coalesce(link["found"], F.lit(False)), F.lit(Reason.BASIS_NOT_FOUND.value)),
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
                F.when(~given_for, F.lit(Reason.CONTENT_CHANGED.value)),
                F.when(was_read & (link["contents"] == F.array(F.lit(AWAITED))), F.lit(Reason.CONTENT_AWAITED.value)),
            ).alias("reason"),
        )

    return F.transform(F.coalesce("links", F.array().cast("array<struct<" + _LINK_TYPES + ">>")), judged)


def _judge_together() -> Column:
    """Refuse links without a box where somebody is in the picture whom nothing permits, or who was erased from it."""
    permitting = F.transform(F.filter("judged", lambda link: link["reason"].isNull()), lambda link: link["principal"])

    def is_refused(link: Column) -> Column:
        permitted = F.coalesce(F.array_contains(permitting, link["principal"]), F.lit(False))
        return link["reason"].isNotNull() & ~permitted

    others = F.col("somebody_left") | F.exists("judged", is_refused)
    refused = F.when(others, F.lit(Reason.OTHERS_REFUSED.value))

    def together(link: Column) -> Column:
        return link.withField("reason", F.coalesce(link["reason"], F.when(link["box"].isNull(), refused)))

    return F.transform("judged", together)


def _given_for(contents: Column) -> Column:
    """A permission holds for the picture that it was given for, and not for what later stands in its place."""
    hashes = F.array_remove(contents, AWAITED)
    named = F.coalesce(F.array_contains(hashes, F.col("content_sha256")), F.lit(False))
    return F.when(F.size(hashes) > 0, named).otherwise(F.col("changed_at").isNull())


_LINK_TYPES = (
    "record_id: string, found: boolean, reason: string, principal: string, box: array<float>, "
    "valid_until: timestamp, record_batch: string, record_collection: string, lawful_basis: string, on_hold: boolean, "
    "ended: boolean, contents: array<string>"
)


def _over() -> Column:
    """Whether an image has reached its end by its records: `decide.is_over`."""
    former = F.lit(Reason.CONTENT_CHANGED.value)
    nobody_else = F.forall("judged", lambda link: link["ended"] | link["reason"].eqNullSafe(former))
    all_ended = F.forall("judged", lambda link: link["ended"])
    of_now = F.exists("judged", lambda link: link["ended"] & link["of_now"])
    return (F.size("judged") > 0) & nobody_else & (all_ended | of_now)


def _batch_reason() -> Column:
    known = F.col("batch_collection").isin(*COLLECTION_METHODS)
    assessed = F.col("batch_state") == BATCH_ASSESSED
    return F.coalesce(
        F.when(F.col("erased"), F.lit(Reason.ERASED.value)),
        F.when(~F.coalesce("batch_found", F.lit(False)), F.lit(Reason.BATCH_UNKNOWN.value)),
        F.when(F.col("batch_state") == BATCH_REVOKED, F.lit(Reason.BATCH_REVOKED.value)),
        F.when(~F.coalesce(assessed & known, F.lit(False)), F.lit(Reason.BATCH_NOT_ASSESSED.value)),
    )


def _decisions(judged: DataFrame) -> DataFrame:
    order = F.array(*(F.lit(r.value) for r in REASON_ORDER))
    permitted = F.filter("judged", lambda link: link["reason"].isNull())
    furthest = F.array_max(F.transform("judged", lambda link: F.array_position(order, link["reason"])))
    on_hold = F.exists("judged", lambda link: F.coalesce(link["on_hold"], F.lit(False)))
    reason = F.coalesce(
        _batch_reason(),
        F.when(F.size("judged") == 0, F.lit(Reason.NO_BASIS.value)),
        F.when(on_hold, F.lit(Reason.LEGAL_HOLD.value)),
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
            on_hold.alias("on_hold"),
            _over().alias("over"),
            F.transform("judged", lambda link: link["reason"]).alias("reasons"),
        )
        .withColumn("covered", F.when(F.col("reason").isNull(), F.col("covered")).otherwise(nobody))
        .withColumn("input_digest", input_digest(F.col("covered")))
    )


def input_digest(covered: Column) -> Column:
    """The hash of an image's content and of whom its records cover: what its faces are computed from."""
    return F.sha2(F.concat_ws("|", "content_sha256", F.to_json(covered)), 256)


def gate_warehouse(
    warehouse: Warehouse,
    settings: Settings,
    *,
    now: datetime,
    ingested_by: datetime | None = None,
    only: DataFrame | None = None,
    left: DataFrame | None = None,
    to_destroy: bool = False,
) -> Gated:
    """Gate the images that were there at ``ingested_by`` (else at ``now``), by the records that are there now.

    ``only``: no other images than these (image_id; few). ``left``: images (image_id) that somebody is about to leave,
    of which no tombstone tells yet. ``to_destroy``: without any basis record every image is
    refused, as it should be where the job takes out what is not permitted; a job that indexes stops.

    Raises:
        GovernanceError: no purpose is asked for, or there is no basis record at all (Guarantee 1).
    """
    governance = settings.governance
    if not governance.purposes:
        raise GovernanceError(
            "governance.purposes is empty: an index without a purpose is not permitted.",
            hint="name the purpose in the settings, and in governance.allowed_purposes.",
        )
    if not to_destroy:
        _need_records(warehouse)
    basis = warehouse.read(PROCESSING_BASIS)
    images = warehouse.read(IMAGES).where(F.col("ingested_at") <= F.lit(ingested_by or now).cast("timestamp"))
    if only is not None:
        images = images.join(F.broadcast(only.select("image_id").distinct()), "image_id")
    barred = barred_in(warehouse, settings, images, basis)
    if left is not None:
        shared = left.select(F.col("image_id").alias("row_key"))
        if barred.shared is not None:
            shared = shared.unionByName(barred.shared.select("row_key"))
        barred = replace(barred, shared=shared.distinct())
    return gate(
        images,
        warehouse.read(BASIS_LINKS),
        basis,
        warehouse.read(SOURCE_BATCHES),
        policy=policy_of(settings),
        now=now,
        barred=barred,
    )


def _need_records(warehouse: Warehouse) -> None:
    if warehouse.read(PROCESSING_BASIS).isEmpty():
        raise GovernanceError(
            "There is no basis record, so every image is refused and nothing was read.",
            hint="write a template with `ingest --source … --batch … --basis-template FILE`, complete it, "
            "and run `ingest --basis FILE`.",
        )


def policy_of(settings: Settings) -> Policy:
    """What the settings ask for and allow, and the rules of jurisdictions."""
    governance = settings.governance
    rules, box_required = load_rules(governance.jurisdictions), governance.coverage == "box"
    return Policy(governance.purposes, governance.allowed_purposes, rules, box_required)


@dataclass(frozen=True)
class _Answer:
    """A decision, the versions of the tables that it read, and when the first of its permissions ends.

    ``records``: whether it is known that there is a basis record.
    """

    gated: Gated
    versions: dict[str, int]
    ends: float | None
    records: bool

    def is_over(self, now: datetime) -> bool:
        return self.ends is not None and self.ends <= now.timestamp()


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
        self._last: _Answer | None = None

    def decide(self, *, to_destroy: bool = False) -> Gated:
        """Decisions that hold at this instant; computed once, read several times. ``to_destroy``: `gate_warehouse`."""
        # The versions first: what is committed in between is read too, and looks like a change the next time.
        versions, now = self._warehouse.versions(_INPUTS), self._clock()
        if self._last is None or self._last.is_over(now) or versions != self._last.versions:
            decided = gate_warehouse(
                self._warehouse, self._settings, now=now, ingested_by=self._ingested_by, to_destroy=to_destroy
            )
            gated = decided.computed()
            first_end = gated.accepted.agg(F.unix_micros(F.min("valid_until")).alias("at")).first()
            ends = first_end["at"] / 1e6 if first_end and first_end["at"] is not None else None
            self._last = _Answer(gated, versions, ends, records=not to_destroy)
        elif not (to_destroy or self._last.records):
            _need_records(self._warehouse)
            self._last = replace(self._last, records=True)
        return self._last.gated

    def invalidate(self) -> None:
        """Forget the last answer: what it was read from may be gone from the disk, whatever the versions say."""
        self._last = None

    def of_all_images(self, gated: Gated) -> Gated:
        """``gated``; where a run is resumed and images have come since, with those: it must not take their faces."""
        later = self._warehouse.read(IMAGES).where(F.col("ingested_at") > F.lit(self._ingested_by).cast("timestamp"))
        if later.isEmpty():
            return gated
        return gate_warehouse(self._warehouse, self._settings, now=self._clock()).computed()
