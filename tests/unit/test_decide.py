"""The pure rule, case by case; `tests/spark/test_gate.py` holds the Spark expression equal to it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.governance.decide import (
    STATES_ENDED,
    STATES_GIVEN,
    STATES_NOT_GIVEN,
    Batch,
    Event,
    Policy,
    Reason,
    Record,
    add_duration,
    decide_image,
    decide_record,
)
from jobs.governance.jurisdictions import load_rules

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
OPTIONAL = {"face_box", "expires_at", "legal_hold_ref", "quarantined", "erased_at", "last_interaction_at",
            "written_release_ref", "authority_disclosure_ref", "authority_disclosed_at"}  # fmt: skip
RULES = load_rules()
POLICY = Policy(("p",), ("p", "q"), RULES)


def reason(record: Record, purposes: tuple[str, ...] = ("p",)) -> Reason | None:
    return decide_record(record, policy=replace(POLICY, purposes=purposes), now=NOW).reason


def test_a_complete_record_in_force_is_allowed_until_its_first_end() -> None:
    decision = decide_record(GOOD, policy=POLICY, now=NOW)
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
    basis = "eu-gdpr:A6-1-c" if state == "BasisInForce" else "eu-gdpr:A6-1-a"
    assert reason(replace(GOOD, lawful_basis=basis, events=(replace(GIVEN, event_state=state),))) is None


def test_guarantee_4_another_basis_in_force_is_no_consent() -> None:
    events = (replace(GIVEN, event_state="BasisInForce"),)
    assert reason(replace(GOOD, events=events)) == Reason.CONSENT_NOT_GIVEN


@given(st.permutations(["ConsentGiven", "ConsentWithdrawn", "RenewedConsentGiven"]))
def test_guarantee_4_at_one_instant_the_ending_wins_in_any_order(states: list[str]) -> None:
    events = tuple(replace(GIVEN, event_state=state) for state in states)
    assert reason(replace(GOOD, events=events)) == Reason.CONSENT_ENDED


@given(st.integers(-400, 400))
def test_guarantee_4_validity_is_half_open(days: int) -> None:
    start = NOW - timedelta(days=days)
    found = reason(replace(GOOD, events=(replace(GIVEN, event_time=start, validity_duration="P100D"),)))
    assert (found is None) == (0 <= days < 100)


# What each of DPV's ten consent states (and the two of other bases) says within its validity; written out once more
# here, so that a change of the rule's own table does not pass unseen.
MEANING = {
    "ConsentUnknown": Reason.CONSENT_NOT_GIVEN,
    "ConsentRequested": Reason.CONSENT_NOT_GIVEN,
    "ConsentRequestDeferred": Reason.CONSENT_NOT_GIVEN,
    "ConsentRefused": Reason.CONSENT_NOT_GIVEN,
    "ConsentGiven": None,
    "RenewedConsentGiven": None,
    "ConsentExpired": Reason.CONSENT_ENDED,
    "ConsentInvalidated": Reason.CONSENT_ENDED,
    "ConsentRevoked": Reason.CONSENT_ENDED,
    "ConsentWithdrawn": Reason.CONSENT_ENDED,
    "BasisInForce": Reason.CONSENT_NOT_GIVEN,
    "BasisEnded": Reason.CONSENT_ENDED,
    "Nonsense": Reason.STATE_UNKNOWN,
}
TIMES = st.integers(1_577_836_800, 1_893_456_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
BEFORE, WITHIN, AFTER = (timedelta(days=d) for d in (-1, 30, 400))
PURPOSES = {("p",): None, ("q",): Reason.PURPOSE_NOT_GRANTED, ("p", "r"): Reason.PURPOSE_NOT_ALLOWED}
# jurisdiction: what it asks for, and what comes of it without.
ELSEWHERE: dict[str, tuple[dict[str, object], Reason | None]] = {
    "EU": ({}, None),
    "CA": ({}, None),
    "CA-QC": ({"authority_disclosure_ref": "d", "authority_disclosed_at": NOW - timedelta(days=61)},
              Reason.REQUIREMENT_MISSING),
    "US-IL": ({"written_release_ref": "w", "last_interaction_at": NOW - timedelta(days=9)}, Reason.REQUIREMENT_MISSING),
    "XX": ({}, Reason.JURISDICTION_UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize("given_what_it_asks", [True, False])
@pytest.mark.parametrize("jurisdiction", ELSEWHERE)
def test_guarantee_4_the_whole_table_of_states_times_purposes_and_jurisdictions(
    jurisdiction: str, given_what_it_asks: bool
) -> None:
    asked, without = ELSEWHERE[jurisdiction]
    for state, age, purposes in product(MEANING, (BEFORE, WITHIN, AFTER), PURPOSES):
        event = Event(NOW - age, "P1Y", "t", state)
        record = replace(GOOD, jurisdiction=jurisdiction, events=(event,), purposes=("p", "r"),
                         **(asked if given_what_it_asks else {}))  # type: ignore[arg-type]  # fmt: skip
        in_time = {BEFORE: Reason.NOT_YET_VALID, WITHIN: None, AFTER: Reason.VALIDITY_EXPIRED}[age]
        unlawful = without if without and (jurisdiction == "XX" or not given_what_it_asks) else None
        expected = unlawful or MEANING[state] or in_time or PURPOSES[purposes]
        assert reason(record, purposes) == expected, (state, age, purposes)


@pytest.mark.parametrize(("days", "expected"), [(59, Reason.DISCLOSURE_TOO_RECENT), (60, None), (61, None)])
def test_quebec_waits_sixty_days_after_the_disclosure(days: int, expected: Reason | None) -> None:
    disclosed = {"authority_disclosure_ref": "d", "authority_disclosed_at": NOW - timedelta(days=days)}
    assert reason(replace(GOOD, jurisdiction="CA-QC", **disclosed)) == expected  # type: ignore[arg-type]


def test_illinois_ends_three_years_after_the_last_interaction() -> None:
    there = replace(GOOD, jurisdiction="US-IL", written_release_ref="w", retention_period="P9Y")
    long_ago = datetime(2023, 6, 1, 12, tzinfo=UTC)
    assert reason(replace(there, last_interaction_at=long_ago)) == Reason.RETENTION_EXPIRED
    decision = decide_record(replace(there, last_interaction_at=long_ago + timedelta(days=1)), policy=POLICY, now=NOW)
    assert decision.valid_until == datetime(2026, 6, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize("jurisdiction", ["CA", "CA-QC", "US-IL"])
def test_where_only_consent_counts_another_basis_does_not(jurisdiction: str) -> None:
    record = replace(GOOD, jurisdiction=jurisdiction, lawful_basis="eu-gdpr:A6-1-f")
    assert reason(record) == Reason.NOT_LAWFUL_THERE


def test_guarantee_13_a_record_of_an_erased_person_counts_only_if_given_since() -> None:
    assert reason(replace(GOOD, erased_at=NOW - timedelta(days=30))) == Reason.ERASED
    assert reason(replace(GOOD, erased_at=NOW - timedelta(days=31))) is None


def test_a_record_whose_later_version_could_not_be_read_permits_nothing() -> None:
    assert reason(replace(GOOD, quarantined=True)) == Reason.QUARANTINED


@given(
    st.sampled_from([*MEANING]),
    TIMES,
    st.sampled_from(["P1D", "P1M", "P1Y", "P2Y"]),
    st.sampled_from(["P1D", "P6M", "P3Y"]),
    st.none() | TIMES,
)
def test_guarantee_7_nothing_is_allowed_at_or_after_its_end(
    state: str, at: datetime, validity: str, retention: str, expires: datetime | None
) -> None:
    """What a decision says of its own end is the very instant at which the next decision refuses."""
    event = Event(at, validity, "t", state)
    record = replace(GOOD, events=(event,), retention_period=retention, expires_at=expires)
    decision = decide_record(record, policy=POLICY, now=NOW)
    if decision.allowed:
        assert decision.valid_until is not None
        assert decision.valid_until > NOW
        last = decide_record(record, policy=POLICY, now=decision.valid_until - timedelta(microseconds=1))
        assert last.allowed
        assert not decide_record(record, policy=POLICY, now=decision.valid_until).allowed


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
    decision = decide_image(Batch("assessed", "public_web"), "b", [record], policy=POLICY, now=NOW)
    assert decision.reason == Reason.PUBLIC_WEB_WITHOUT_CONSENT


def test_of_several_records_the_one_that_got_furthest_names_the_reason() -> None:
    records = [None, replace(GOOD, schema_version=None), replace(GOOD, legal_hold_ref="h")]
    decision = decide_image(Batch("assessed", "uploaded_by_subject"), "b", records, policy=POLICY, now=NOW)
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
