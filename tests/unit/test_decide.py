"""The pure rule, case by case; `tests/spark/test_gate.py` holds the Spark expression equal to it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.governance.decide import (
    STATES_ENDED,
    STATES_GIVEN,
    STATES_NOT_GIVEN,
    Batch,
    Event,
    Reason,
    Record,
    add_duration,
    decide_image,
    decide_record,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GIVEN = Event(NOW - timedelta(days=30), "P1Y", "explicit_consent", "ConsentGiven")
GOOD = Record(
    schema_version="1.0",
    pii_principal_id="hmac:" + "0" * 64,
    purposes=("p",),
    pii_controllers=("c",),
    lawful_basis="eu-gdpr:A6-1-a",
    special_category_condition="eu-gdpr:A9-2-a",
    collection_method="uploaded_by_subject",
    retention_period="P2Y",
    jurisdiction="EU",
    withdrawal_method="w",
    impact_assessment="i",
    privacy_notice="n",
    events=(GIVEN,),
    source_batch_id="b",
)
OPTIONAL = {"face_box", "expires_at", "legal_hold_ref"}


def reason(record: Record, purposes: tuple[str, ...] = ("p",)) -> Reason | None:
    return decide_record(record, purposes=purposes, allowed_purposes=("p", "q"), now=NOW).reason


def test_a_complete_record_in_force_is_allowed_until_its_first_end() -> None:
    decision = decide_record(GOOD, purposes=("p",), allowed_purposes=("p",), now=NOW)
    assert decision.allowed
    assert decision.valid_until == datetime(2027, 5, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize("field", sorted({f.name for f in fields(Record)} - OPTIONAL))
def test_guarantee_1_any_missing_field_is_refused(field: str) -> None:
    assert reason(replace(GOOD, **{field: None})) is not None


@pytest.mark.parametrize("state", [*STATES_NOT_GIVEN, *STATES_ENDED, None, "", "consentgiven", "Anything"])
def test_guarantee_4_only_given_or_renewed_consent_counts(state: str | None) -> None:
    assert reason(replace(GOOD, events=(replace(GIVEN, event_state=state),))) is not None


@pytest.mark.parametrize("state", STATES_GIVEN)
def test_guarantee_4_states_that_permit(state: str) -> None:
    assert reason(replace(GOOD, events=(replace(GIVEN, event_state=state),))) is None


@given(st.permutations(["ConsentGiven", "ConsentWithdrawn", "RenewedConsentGiven"]))
def test_guarantee_4_at_one_instant_the_ending_wins_in_any_order(states: list[str]) -> None:
    events = tuple(replace(GIVEN, event_state=state) for state in states)
    assert reason(replace(GOOD, events=events)) == Reason.CONSENT_ENDED


@given(st.integers(-400, 400))
def test_guarantee_4_validity_is_half_open(days: int) -> None:
    start = NOW - timedelta(days=days)
    found = reason(replace(GOOD, events=(replace(GIVEN, event_time=start, validity_duration="P100D"),)))
    assert (found is None) == (0 <= days < 100)


@pytest.mark.parametrize(
    ("purposes", "expected"),
    [((), Reason.PURPOSE_NOT_GRANTED), (("q",), Reason.PURPOSE_NOT_GRANTED), (("p", "q"), Reason.PURPOSE_NOT_GRANTED)],
)
def test_guarantee_5_only_what_was_granted(purposes: tuple[str, ...], expected: Reason) -> None:
    assert reason(GOOD, purposes) == expected


def test_a_legal_hold_suspends_serving() -> None:
    assert reason(replace(GOOD, legal_hold_ref="case-1")) == Reason.LEGAL_HOLD


def test_guarantee_6_public_web_needs_consent() -> None:
    record = replace(GOOD, lawful_basis="eu-gdpr:A6-1-f")
    decision = decide_image(
        Batch("assessed", "public_web"), "b", [record], purposes=("p",), allowed_purposes=("p",), now=NOW
    )
    assert decision.reason == Reason.PUBLIC_WEB_WITHOUT_CONSENT


def test_of_several_records_the_one_that_got_furthest_names_the_reason() -> None:
    records = [None, replace(GOOD, schema_version=None), replace(GOOD, legal_hold_ref="h")]
    decision = decide_image(
        Batch("assessed", "uploaded_by_subject"), "b", records, purposes=("p",), allowed_purposes=("p",), now=NOW
    )
    assert decision.reason == Reason.LEGAL_HOLD


@pytest.mark.parametrize(
    ("start", "duration", "end"),
    [
        ("2026-01-31", "P1M", "2026-02-28"),
        ("2024-02-29", "P1Y", "2025-02-28"),
        ("2026-12-31", "P2M", "2027-02-28"),
        ("2026-01-01", "P1Y2M3W4D", "2027-03-26"),
        ("2026-11-15", "P1M", "2026-12-15"),
    ],
)
def test_durations_follow_the_calendar(start: str, duration: str, end: str) -> None:
    at = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert add_duration(at, duration) == datetime.fromisoformat(end).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "P", "1Y", "PT5H", "P-1Y", "P1Y ", "P1.5Y"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        add_duration(NOW, text)
