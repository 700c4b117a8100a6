"""The gate: which images may be embedded, on whose record, and until when.

The rule of `decide.py` as Spark expressions. It reads metadata only: no column of image bytes is an input, so a
refused image is never decoded (Guarantee 2) and no byte of it is shuffled. Cost: one shuffle of the links by
record and one by image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.errors import GovernanceError
from jobs.governance.blanks import FILLED
from jobs.governance.decide import (
    BASIS_IN_FORCE,
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
    JurisdictionRule,
    Policy,
    Reason,
)
from jobs.governance.jurisdictions import load_rules
from jobs.governance.tombstones import BATCH, CONTENT, IMAGE, LEFT, LEFT_CONTENT, SUBJECT, Stones, key_ring
from jobs.schemas import (
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
    with_batch = _flagged(with_batch, barred.images, "image_id", "erased")
    with_batch = _flagged(with_batch, barred.shared, "image_id", "somebody_left")
    judged = with_batch.join(linked, "image_id", "left").withColumn("judged", _judge_links())
    return Gated(_decisions(judged.withColumn("judged", _judge_together())))


@dataclass(frozen=True)
class Barred:
    """What must not come back: erased images (row_key), persons and batches (row_key, erased_at), unread records.

    ``shared``: images (row_key) that somebody was erased from; without a box no face of them has an owner.
    """

    images: DataFrame | None = None
    shared: DataFrame | None = None
    principals: DataFrame | None = None
    batches: DataFrame | None = None
    records: DataFrame | None = None


def _flagged(frame: DataFrame, keys: DataFrame | None, key: str, flag: str) -> DataFrame:
    """``frame`` with a boolean: whether its ``key`` is among ``keys`` (row_key)."""
    if keys is None:
        return frame.withColumn(flag, F.lit(False))
    marked = keys.select(F.col("row_key").alias(key), F.lit(True).alias(flag))
    return frame.join(marked, key, "left").withColumn(flag, F.coalesce(flag, F.lit(False)))


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


def current_batches(batches: DataFrame, erased: DataFrame | None = None) -> DataFrame:
    """The state of each batch: source_batch_id, batch_state, batch_collection. Few rows; ``erased``: `with_void_until`.

    It is the last recorded one. Of several at one instant nobody can say which was the last: a revocation wins, else
    none of them is in force. What was revoked stays so, until an assessment of later is recorded.
    """
    at_last = F.rank().over(Window.partitionBy("source_batch_id").orderBy(F.col("recorded_at").desc()))
    said = F.struct("state", "collection_method")
    one = F.count_distinct(F.to_json(said)) == 1
    # An assessment without its date is no later one.
    later = F.col("void_until").isNull() | F.coalesce(F.col("assessed_at") > F.col("void_until"), F.lit(False))
    revoked = (F.col("state") == BATCH_REVOKED) | ((F.col("state") == BATCH_ASSESSED) & ~later)
    return (
        with_void_until(batches, erased)
        .withColumn("_rank", at_last)
        .where("_rank = 1")
        .groupBy("source_batch_id")
        .agg(
            F.when(F.max(revoked), F.lit(BATCH_REVOKED)).when(one, F.max("state")).alias("batch_state"),
            F.when(one, F.max("collection_method")).alias("batch_collection"),
        )
        .withColumn("batch_found", F.lit(True))
    )


def with_void_until(batches: DataFrame, erased: DataFrame | None = None) -> DataFrame:
    """``batches`` with `void_until`: up to when an assessment of this batch counts no more (null: never revoked).

    That is the last revocation, or the date of an assessment that stood by then: its clock may have been ahead. Or, of
    an ``erased`` one (row_key, erased_at), the erasure, which is also known where this table was lost.
    """
    of_batch = Window.partitionBy("source_batch_id")
    revoked_at = F.max(F.when(F.col("state") == BATCH_REVOKED, F.col("recorded_at"))).over(of_batch)
    dated_by_then = F.max(F.when(F.col("recorded_at") <= F.col("_revoked_at"), F.col("assessed_at"))).over(of_batch)
    marked = batches.withColumn("_revoked_at", revoked_at)
    marked = marked.withColumn("void_until", F.greatest("_revoked_at", dated_by_then)).drop("_revoked_at")
    if erased is None:
        return marked
    erasures = F.broadcast(erased.select(F.col("row_key").alias("source_batch_id"), "erased_at"))
    marked = marked.join(erasures, "source_batch_id", "left")
    return marked.withColumn("void_until", F.greatest("void_until", "erased_at")).drop("erased_at")


def assessed_since(warehouse: Warehouse, erased: DataFrame) -> DataFrame:
    """``erased`` batches (row_key, erased_at) by each assessment that counts, with when it was recorded (again_at).

    As `with_void_until` has it, so that it is in force again by one of these, or not at all: dated later than the
    erasure, and than the last revocation.
    """
    assessed = with_void_until(warehouse.read(SOURCE_BATCHES)).where(F.col("state") == BATCH_ASSESSED)
    assessed = assessed.select(
        F.col("source_batch_id").alias("row_key"), "assessed_at", "void_until", F.col("recorded_at").alias("again_at")
    )
    since = erased.join(assessed, "row_key").where("assessed_at > greatest(erased_at, void_until)")
    return since.drop("assessed_at", "void_until")


def not_assessed_since(warehouse: Warehouse, erased: DataFrame) -> DataFrame:
    """Those of the ``erased`` batches (row_key, erased_at) that nobody has assessed since: row_key."""
    return erased.select("row_key").join(assessed_since(warehouse, erased), "row_key", "left_anti")


def current_records(basis: DataFrame) -> DataFrame:
    """One row a record: the last recorded version's fields, with the events of *all* versions.

    Events are never lost: a later version that omits a withdrawal does not undo it. `contested`: two contents were
    recorded at its latest instant, so that nobody can say which one is the last; a hold in either of them holds.
    """
    latest = F.col("recorded_at").desc()
    every_version = Window.partitionBy("record_id")
    newest_first = every_version.orderBy(latest, F.col("content_digest").desc())
    # By time alone: from the newest row this looks at all that were recorded at its instant, and at nothing else.
    at_its_instant = every_version.orderBy(latest)
    return (
        basis.withColumn("events", F.flatten(F.collect_list("events").over(every_version)))
        .withColumn("_rank", F.row_number().over(newest_first))
        .withColumn("contested", F.size(F.collect_set("content_digest").over(at_its_instant)) > 1)
        .withColumn("legal_hold_ref", F.max("legal_hold_ref").over(at_its_instant))
        .where("_rank = 1")
    )


def record_decisions(basis: DataFrame, *, policy: Policy, now: datetime, barred: Barred | None = None) -> DataFrame:
    """Decide every record: record_id, reason (null: in force and granting), principal, box, valid_until, ended, …

    `ended` is `decide.has_ended`: over for good, whatever the reason is that is named first.
    """
    records = current_records(basis).select("*", _current_event().alias("event"))
    barred = barred or Barred()
    records = _flagged(records, barred.records, "record_id", "quarantined")
    if barred.principals is None:
        records = records.withColumn("erased_at", F.lit(None).cast("timestamp"))
    else:
        erased = barred.principals.withColumnRenamed("row_key", "pii_principal_id")
        records = records.join(erased, "pii_principal_id", "left")
    moment = F.lit(now).cast("timestamp")
    rules = [
        (F.col("quarantined") | F.col("contested"), Reason.QUARANTINED),
        *_malformed(),
        *_unlawful(policy.rules),
        *_not_in_force(moment, policy.rules),
        *_purpose(policy.purposes, policy.allowed_purposes),
        (F.lit(policy.box_required) & F.col("face_box").isNull(), Reason.BOX_REQUIRED),
    ]
    until = F.least(
        _end(F.col("event.event_time"), F.col("event.validity_duration")),
        _end(F.col("event.event_time"), F.col("processing.retention_period")),
        *_recorded_ends(policy.rules),
    )
    return records.select(
        "record_id",
        F.lit(True).alias("found"),
        _first_reason(rules).alias("reason"),
        F.col("pii_principal_id").alias("principal"),
        F.col("face_box").alias("box"),
        until.alias("valid_until"),
        _ended(until, moment).alias("ended"),
        F.col("source_batch_id").alias("record_batch"),
        F.col("processing.collection_method").alias("record_collection"),
        F.col("processing.lawful_basis").alias("lawful_basis"),
        F.col("legal_hold_ref").isNotNull().alias("on_hold"),
    )


def _current_event() -> Column:
    """The latest event; at one instant the most restrictive; null where any event lacks its time or type."""
    states = F.array(*(F.lit(state) for state in STATE_ORDER))

    def ordered(event: Column) -> Column:
        start, duration, state = event["event_time"], event["validity_duration"], event["event_state"]
        known = F.nullif(F.array_position(states, F.coalesce(state, F.lit(""))), F.lit(0))
        length = F.unix_micros(_end(start, duration)) - F.unix_micros(start)
        return F.struct(
            start.alias("event_time"),
            F.coalesce(known, F.lit(len(STATE_ORDER) + 1)),
            # The shortest wins, and what is no duration before all of them.
            -F.coalesce(length, F.lit(-1)),
            duration.alias("validity_duration"),
            state.alias("event_state"),
        )

    def incomplete(event: Column) -> Column:
        return event["event_time"].isNull() | _missing(F.coalesce(event["event_type"], F.lit("")))

    complete = (F.size("events") > 0) & ~F.exists("events", incomplete)
    return F.when(complete, F.array_max(F.transform("events", ordered)))


def _first_reason(rules: Sequence[tuple[Column, Reason]]) -> Column:
    """The first rule that holds. A rule that evaluates to null holds as well: what is unknown is refused."""
    return F.coalesce(*(F.when(F.coalesce(rule, F.lit(True)), F.lit(reason.value)) for rule, reason in rules))


def _missing(column: Column) -> Column:
    return ~column.cast("string").rlike(FILLED)


def _malformed() -> list[tuple[Column, Reason]]:
    lists = [F.col(f"processing.{name}") for name in ("purposes", "pii_controllers")]
    no_list = [(F.size(values) <= 0) | F.exists(values, lambda value: F.coalesce(_missing(value), F.lit(True)))
               for values in lists]  # fmt: skip
    blanks = [_missing(F.col(name)) for name in ("source_batch_id", *(f"processing.{n}" for n in REQUIRED_FIELDS))]
    some_missing = reduce(Column.__or__, [*no_list, *blanks])
    box = F.col("face_box")
    left, top, right, bottom = (F.get(box, F.lit(place)) for place in range(4))
    infinity = F.lit(float("inf"))
    box_ok = (
        (F.size(box) == 4)
        & (left >= 0)
        & (left < right)
        & (right < infinity)
        & (top >= 0)
        & (top < bottom)
        & (bottom < infinity)
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
        (box.isNotNull() & ~box_ok, Reason.BOX_INVALID),
        (~_is_duration(F.col("processing.retention_period")), Reason.DURATION_INVALID),
    ]


def _applies(rule: JurisdictionRule) -> Column:
    return F.col("processing.jurisdiction").isin(*rule.jurisdictions)


def _any(conditions: Sequence[Column]) -> Column:
    return reduce(Column.__or__, conditions, F.lit(False))


def _unlawful(rules: Sequence[JurisdictionRule]) -> list[tuple[Column, Reason]]:
    lawful = [
        _applies(rule)
        & F.col("processing.lawful_basis").isin(*rule.lawful_bases)
        & F.col("processing.special_category_condition").isin(*rule.special_category_conditions)
        for rule in rules
    ]
    lacking = [_applies(rule) & _any([_missing(F.col(field)) for field in rule.required]) for rule in rules]
    return [
        (~_any([_applies(rule) for rule in rules]), Reason.JURISDICTION_UNKNOWN),
        (~_any(lawful), Reason.NOT_LAWFUL_THERE),
        (_any(lacking), Reason.REQUIREMENT_MISSING),
    ]


def _from(start: str, rules: Sequence[tuple[JurisdictionRule, str | None]]) -> list[Column]:
    """``start`` plus each rule's duration, where the rule applies; null elsewhere."""
    return [F.when(_applies(rule), _plus(F.col(start), duration)) for rule, duration in rules if duration]


def _plus(start: Column, duration: str) -> Column:
    match = re.fullmatch(DURATION_PATTERN, duration)
    assert match is not None  # noqa: S101 - rules are checked when they are read
    return start + F.make_interval(*(F.lit(int(group or 0)) for group in match.groups()))


def _recorded_ends(rules: Sequence[JurisdictionRule]) -> list[Column]:
    after = [(rule, rule.keep_after_last_interaction) for rule in rules]
    return [F.col("expires_at"), *_from("last_interaction_at", after)]


def _not_in_force(now: Column, rules: Sequence[JurisdictionRule]) -> list[tuple[Column, Reason]]:
    state = F.coalesce("event.event_state", F.lit(""))
    waits = _from("authority_disclosed_at", [(rule, rule.wait_after_disclosure) for rule in rules])
    no_consent = (state == BASIS_IN_FORCE) & F.col("processing.lawful_basis").isin(*CONSENT_BASES)
    return [
        (F.col("event").isNull(), Reason.EVENT_MISSING),
        (F.coalesce(F.col("event.event_time") <= F.col("erased_at"), F.lit(False)), Reason.ERASED),
        (state.isin(*STATES_NOT_GIVEN), Reason.CONSENT_NOT_GIVEN),
        (state.isin(*STATES_ENDED), Reason.CONSENT_ENDED),
        (~state.isin(*STATES_GIVEN), Reason.STATE_UNKNOWN),
        (no_consent, Reason.CONSENT_NOT_GIVEN),
        (~_is_duration(F.col("event.validity_duration")), Reason.DURATION_INVALID),
        (F.col("event.event_time") > now, Reason.NOT_YET_VALID),
        (_any([F.coalesce(wait > now, F.lit(False)) for wait in waits]), Reason.DISCLOSURE_TOO_RECENT),
        (_end(F.col("event.event_time"), F.col("event.validity_duration")) <= now, Reason.VALIDITY_EXPIRED),
        (_end(F.col("event.event_time"), F.col("processing.retention_period")) <= now, Reason.RETENTION_EXPIRED),
        (_any([F.coalesce(end <= now, F.lit(False)) for end in _recorded_ends(rules)]), Reason.RETENTION_EXPIRED),
        (F.col("legal_hold_ref").isNotNull(), Reason.LEGAL_HOLD),
    ]


def _ended(until: Column, now: Column) -> Column:
    """Whether a record is over for good, of those that can be read and are not on hold: `decide.has_ended`."""
    kept = F.col("quarantined") | F.col("contested") | F.col("legal_hold_ref").isNotNull()
    begun, state = F.col("event.event_time"), F.col("event.event_state")
    over = (until <= now) & (begun.isNull() | (begun <= now))
    ended = state.isin(*STATES_ENDED) | (begun <= F.col("erased_at")) | over
    # What is unknown destroys nothing.
    return F.coalesce(F.col("schema_version").isin(*SCHEMA_VERSIONS) & ~kept & ended, F.lit(False))


def _purpose(purposes: Sequence[str], allowed_purposes: Sequence[str]) -> list[tuple[Column, Reason]]:
    asked = F.array(*(F.lit(p) for p in purposes)).cast("array<string>")
    granted = (F.size(asked) > 0) & (F.size(F.array_except(asked, "processing.purposes")) == 0)
    inside = set(purposes) <= set(allowed_purposes)
    return [(~granted, Reason.PURPOSE_NOT_GRANTED), (F.lit(not inside), Reason.PURPOSE_NOT_ALLOWED)]


def _is_duration(column: Column) -> Column:
    return column.rlike(DURATION_PATTERN.replace("$", r"\z"))


def _end(start: Column, duration: Column) -> Column:
    """``start`` + an ISO 8601 duration; null where the duration is malformed."""
    parts = [
        F.coalesce(F.nullif(F.regexp_extract(duration, DURATION_PATTERN, group), F.lit("")).cast("int"), F.lit(0))
        for group in range(1, 5)
    ]
    years, months, weeks, days = parts
    return F.when(_is_duration(duration), start + F.make_interval(years, months, weeks, days))


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
    named = F.coalesce(F.array_contains(contents, F.col("content_sha256")), F.lit(False))
    return F.when(F.size(contents) > 0, named).otherwise(F.col("changed_at").isNull())


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
    to_destroy: bool = False,
) -> Gated:
    """Gate the images that were there at ``ingested_by`` (else at ``now``), by the records that are there now.

    ``only``: no other images than these (image_id; few). ``to_destroy``: without any basis record every image is
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
    return gate(
        images,
        warehouse.read(BASIS_LINKS),
        basis,
        warehouse.read(SOURCE_BATCHES),
        policy=policy_of(settings),
        now=now,
        barred=barred_in(warehouse, settings, images, basis),
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


def barred_in(warehouse: Warehouse, settings: Settings, images: DataFrame, basis: DataFrame) -> Barred:
    """What tombstones and the quarantine bar of these images and records (Guarantee 13)."""
    stones = Stones.read(warehouse.read(TOMBSTONES), key_ring(settings))
    keys = images.select("image_id", "content_sha256")
    principals = basis.select("pii_principal_id").dropna().distinct()
    batches = warehouse.read(SOURCE_BATCHES).select("source_batch_id").dropna().distinct()
    return Barred(
        images=stones.barring(keys, {IMAGE: "image_id", CONTENT: "content_sha256"}, "image_id"),
        shared=stones.barring(keys, {LEFT: "image_id", LEFT_CONTENT: "content_sha256"}, "image_id"),
        principals=stones.barring(principals, {SUBJECT: "pii_principal_id"}, "pii_principal_id"),
        batches=stones.barring(batches, {BATCH: "source_batch_id"}, "source_batch_id"),
        records=quarantined(warehouse, basis),
    )


def quarantined(warehouse: Warehouse, basis: DataFrame) -> DataFrame | None:
    """Records of which a later version could not be read: what it said is unknown, and so it permits nothing."""
    unread = warehouse.read(BASIS_QUARANTINE).where(F.col("record_id").isNotNull())
    if unread.isEmpty():
        return None
    newest = basis.groupBy("record_id").agg(F.max("recorded_at").alias("readable_at"))
    last = unread.groupBy("record_id").agg(F.max("recorded_at").alias("unread_at")).join(newest, "record_id")
    return last.where("readable_at <= unread_at").select(F.col("record_id").alias("row_key"))


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
