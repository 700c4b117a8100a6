"""What each basis record permits: the rule of `decide.py` for one record, as Spark expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.governance.barred import Barred, flagged
from jobs.governance.blanks import FILLED
from jobs.governance.decide import (
    BASIS_IN_FORCE,
    COLLECTION_METHODS,
    CONSENT_BASES,
    DURATION_PATTERN,
    LAWFUL_BASES,
    PRINCIPAL_PATTERN,
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
    records = flagged(records, barred.records, "record_id", "quarantined")
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
