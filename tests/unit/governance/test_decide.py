"""The pure rule, case by case; `tests/spark/governance/test_gate.py` holds the Spark expression equal to it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.governance.decide import (
    STATES_ENDED,
    STATES_GIVEN,
    STATES_NOT_GIVEN,
    Batch,
    Content,
    Decision,
    Event,
    Policy,
    Reason,
    Record,
    add_duration,
    decide_image,
    decide_record,
    decide_records,
    has_ended,
    is_over,
    valid_until,
)
from jobs.governance.jurisdictions import load_rules
from jobs.schemas import AWAITED
from tests.unit.governance.cases import BOXES, FIELDS, GIVEN, GOOD, NOW, TIES

pytestmark = pytest.mark.unit

OPTIONAL = {"face_box", "expires_at", "legal_hold_ref", "quarantined", "erased_at", "contents", "last_interaction_at",
            "written_release_ref", "authority_disclosure_ref", "authority_disclosed_at"}  # fmt: skip
RULES = load_rules()
POLICY = Policy(("p",), ("p", "q"), RULES)


ASSESSED = Batch("assessed", "uploaded_by_subject")
END = datetime(2027, 5, 2, 12, tzinfo=UTC)


def reason(record: Record, purposes: tuple[str, ...] = ("p",), *, now: datetime = NOW, **policy: Any) -> Reason | None:
    decision = decide_record(record, policy=replace(POLICY, purposes=purposes, **policy), now=now)
    assert decision.allowed is (decision.reason is None)
    assert decision.allowed is (decision.valid_until is not None)
    return decision.reason


def test_a_complete_record_in_force_is_allowed_until_its_first_end() -> None:
    assert decide_record(GOOD, policy=POLICY, now=NOW) == Decision(allowed=True, valid_until=END)
    sooner = END - timedelta(days=1)
    assert decide_record(replace(GOOD, expires_at=sooner), policy=POLICY, now=NOW).valid_until == sooner


@pytest.mark.parametrize("field", sorted({f.name for f in fields(Record)} - OPTIONAL))
def test_guarantee_1_any_missing_field_is_refused(field: str) -> None:
    missing: dict[str, Any] = {field: None}
    assert reason(replace(GOOD, **missing)) is not None


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


@pytest.mark.parametrize("durations", TIES)
def test_guarantee_4_of_two_givings_at_one_instant_the_shorter_counts(durations: tuple[str | None, ...]) -> None:
    def events(*found: str | None) -> tuple[Event, ...]:
        return tuple(replace(GIVEN, event_time=NOW - timedelta(days=5), validity_duration=d) for d in found)

    alone = decide_record(replace(GOOD, events=events(durations[0])), policy=POLICY, now=NOW)
    for order in permutations(durations):
        assert decide_record(replace(GOOD, events=events(*order)), policy=POLICY, now=NOW) == alone


def test_guarantee_7_a_corrected_validity_is_not_lengthened_by_the_version_that_it_corrects() -> None:
    """Events of all versions are kept, so both stand at the instant of the consent."""
    corrected = (replace(GIVEN, validity_duration="P5Y"), replace(GIVEN, validity_duration="P1Y"))
    decision = decide_record(replace(GOOD, retention_period="P9Y", events=corrected), policy=POLICY, now=NOW)
    assert decision.valid_until == END
    assert reason(replace(GOOD, retention_period="P9Y", events=corrected), now=END) == Reason.VALIDITY_EXPIRED


def test_an_event_at_the_end_of_the_calendar_lies_ahead() -> None:
    last = tuple(Event(datetime.max.replace(tzinfo=UTC), d, "t", "ConsentGiven") for d in ("P1Y", "P1D"))
    assert reason(replace(GOOD, events=last)) == Reason.NOT_YET_VALID
    assert add_duration(NOW, "P999Y").year == 3025
    assert add_duration(datetime(9999, 1, 1, tzinfo=UTC), "P1Y") == datetime.max.replace(tzinfo=UTC)


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
ELSEWHERE: dict[str, tuple[dict[str, Any], Reason | None]] = {
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
                         **(asked if given_what_it_asks else {}))  # fmt: skip
        in_time = {BEFORE: Reason.NOT_YET_VALID, WITHIN: None, AFTER: Reason.VALIDITY_EXPIRED}[age]
        unlawful = without if without and (jurisdiction == "XX" or not given_what_it_asks) else None
        expected = unlawful or MEANING[state] or in_time or PURPOSES[purposes]
        assert reason(record, purposes) == expected, (state, age, purposes)


@pytest.mark.parametrize(("days", "expected"), [(59, Reason.DISCLOSURE_TOO_RECENT), (60, None), (61, None)])
def test_quebec_waits_sixty_days_after_the_disclosure(days: int, expected: Reason | None) -> None:
    disclosed: dict[str, Any] = {"authority_disclosure_ref": "d", "authority_disclosed_at": NOW - timedelta(days=days)}
    assert reason(replace(GOOD, jurisdiction="CA-QC", **disclosed)) == expected


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


def test_guarantee_5_what_was_granted_and_is_on_the_allow_list_may_be_all_of_both() -> None:
    assert reason(GOOD, ("p",), allowed_purposes=("p",)) is None


@pytest.mark.parametrize(("box", "expected"), BOXES.items())
def test_guarantee_16_a_box_has_two_corners_in_order(box: tuple[float, ...], expected: Reason | None) -> None:
    assert reason(replace(GOOD, face_box=box)) == expected


BOX_ONLY = replace(POLICY, box_required=True)


def test_guarantee_16_where_a_box_is_required_a_record_without_covers_nobody() -> None:
    boxed = replace(GOOD, face_box=(0.0, 0.0, 9.0, 9.0))
    for record, expected in ((GOOD, Reason.BOX_REQUIRED), (boxed, None)):
        assert decide_record(record, policy=BOX_ONLY, now=NOW).reason == expected
        assert decide_record(record, policy=POLICY, now=NOW).reason is None
        found = decide_image(ASSESSED, "b", [record], policy=BOX_ONLY, now=NOW)
        assert (found.allowed, found.reason) == (expected is None, expected)
    both = decide_image(
        ASSESSED, "b", [replace(GOOD, expires_at=NOW + timedelta(days=1)), boxed], policy=BOX_ONLY, now=NOW
    )
    assert both == Decision(allowed=True, valid_until=END)


def test_guarantee_7_what_has_ended_says_so_with_a_box_or_without() -> None:
    """Only what ended is destroyed; a box that is missing must not hide it."""
    ended = replace(GOOD, events=(replace(GIVEN, event_state="ConsentWithdrawn"),))
    assert decide_record(ended, policy=BOX_ONLY, now=NOW).reason == Reason.CONSENT_ENDED
    elsewhere = replace(GOOD, purposes=("q",))
    assert decide_record(elsewhere, policy=BOX_ONLY, now=NOW).reason == Reason.PURPOSE_NOT_GRANTED


LATER = replace(GIVEN, event_time=NOW + timedelta(days=1))
GONE = (GIVEN, replace(GIVEN, event_time=NOW - timedelta(days=1), event_state="ConsentWithdrawn"))
LONG_AGO = NOW.replace(year=2023)
# What a record says, and whether it is over for good.
ENDS: dict[str, tuple[dict[str, Any], bool]] = {
    "in force": ({}, False),
    "not given yet": ({"events": (replace(GIVEN, event_state="ConsentRequested"),)}, False),
    "withdrawn": ({"events": GONE}, True),
    "withdrawn, dated ahead": ({"events": (replace(LATER, event_state="ConsentWithdrawn"),)}, True),
    "erased": ({"erased_at": GIVEN.event_time}, True),
    "erased, and given since": ({"erased_at": NOW - timedelta(days=31)}, False),
    "past its validity": ({"events": (replace(GIVEN, validity_duration="P30D"),)}, True),
    "past its validity, and not given": ({"events": (Event(GIVEN.event_time, "P1D", "t", "ConsentRequested"),)}, True),
    "past its retention": ({"retention_period": "P30D"}, True),
    "a day before": ({"retention_period": "P31D"}, False),
    "past its end": ({"expires_at": NOW}, True),
    "past its end, without an event": ({"events": (), "expires_at": NOW}, True),
    "without an event": ({"events": ()}, False),
    "past its end when it begins": ({"events": (replace(LATER, event_time=NOW),), "expires_at": NOW}, True),
    "before it begins": ({"events": (LATER,), "expires_at": NOW}, False),
    "past what its jurisdiction keeps": ({"jurisdiction": "US-IL", "last_interaction_at": LONG_AGO}, True),
    "past what another one keeps": ({"last_interaction_at": LONG_AGO}, False),
}  # fmt: skip
# What a record may lack, or be refused for: by its form, or by the law.
LACKING: tuple[dict[str, Any], ...] = (
    {}, {"pii_principal_id": "Jane"}, {"impact_assessment": None}, {"purposes": ()}, {"lawful_basis": "x"},
    {"special_category_condition": None}, {"collection_method": "x"}, {"face_box": (1.0,)}, {"source_batch_id": None},
)  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_guarantee_7_what_has_ended_has_so_whatever_a_field_or_the_law_lacks(case: str) -> None:
    changes, expected = ENDS[case]
    record = replace(GOOD, **changes)
    for lacking in LACKING:
        assert has_ended(replace(record, **lacking), policy=POLICY, now=NOW) is expected
    # A controller may leave a jurisdiction, or a rule get a field that it asks for.
    if record.jurisdiction == "EU":
        assert has_ended(record, policy=replace(POLICY, rules=()), now=NOW) is expected
    # What cannot be read destroys nothing, and a hold keeps it.
    for keeps in ({"quarantined": True}, {"schema_version": "1.1"}, {"schema_version": None}, {"legal_hold_ref": "h"}):
        assert not has_ended(replace(record, **keeps), policy=POLICY, now=NOW)


def test_guarantee_7_an_end_is_told_by_the_durations_that_can_be_read() -> None:
    for broken in ({"retention_period": "x"}, {"events": (replace(GIVEN, validity_duration=None),)}):
        record = replace(GOOD, **broken)
        until = valid_until(record, RULES[0])
        assert until is not None
        assert [has_ended(record, policy=POLICY, now=until - timedelta(days=days)) for days in (1, 0)] == [False, True]


FORMER, HERE, ANY = ("d",), ("c",), ()
# Links of one image, each by whether its record has ended, and what it was given for; and whether the image is over.
OVER: dict[str, tuple[list[tuple[bool, tuple[str, ...]]], bool]] = {
    "nobody": ([], False),
    "in force": ([(False, HERE)], False),
    "ended": ([(True, HERE)], True),
    "ended, for no bytes yet": ([(True, ANY)], True),
    "ended, of former bytes": ([(True, FORMER)], True),
    "both ended": ([(True, HERE), (True, FORMER)], True),
    "another is in force": ([(True, HERE), (False, HERE)], False),
    "another is in force, for no bytes yet": ([(True, HERE), (False, ANY)], False),
    "another is in force, for what is yet to come": ([(True, HERE), (False, (AWAITED,))], False),
    "one for what is to come has ended, others are for former bytes": ([(True, (AWAITED,)), (False, FORMER)], True),
    "another is in force for former bytes": ([(True, HERE), (False, FORMER)], True),
    "others are in force for former bytes": ([(True, HERE), (False, FORMER), (False, FORMER)], True),
    "nobody has ended": ([(False, FORMER), (False, FORMER)], False),
    "whose bytes these are nobody can tell": ([(True, FORMER), (False, FORMER)], False),
}  # fmt: skip


@pytest.mark.parametrize("case", OVER)
def test_guarantee_7_an_image_is_over_when_nobody_in_it_has_a_record_that_is_not(case: str) -> None:
    links, expected = OVER[case]
    records = [
        replace(GOOD, pii_principal_id=f"hmac:{n:064x}", events=GONE if ended else (GIVEN,), contents=contents)
        for n, (ended, contents) in enumerate(links)
    ]

    def over(*more: Record | None, read: bool = True) -> bool:
        shown = Content("c", read=read)
        return is_over(ASSESSED, "b", [*records, *more], policy=POLICY, now=NOW, content=shown)

    assert over() is expected
    # Of what could not be read, and of what others gave, nobody can tell.
    assert over(read=False) is (expected and all(ended for ended, _ in links))
    for other in (None, *(replace(GOOD, **changes, contents=FORMER) for changes in WAITING)):
        assert not over(other)


WAITING: tuple[dict[str, Any], ...] = (
    {"purposes": ("q",)}, {"quarantined": True}, {"source_batch_id": "x"}, {"events": (LATER,)},
    {"events": (replace(GIVEN, event_state="ConsentRequested"),)}, {"schema_version": "1.1"}, {"legal_hold_ref": "h"},
    {"impact_assessment": None},
)  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), FIELDS)
def test_guarantee_1_fields_one_by_one(changes: dict[str, Any], expected: Reason | None) -> None:
    assert reason(replace(GOOD, **changes)) == expected


def test_a_record_without_an_event_has_no_end() -> None:
    assert valid_until(replace(GOOD, events=()), None) is None


BOXED = replace(GOOD, face_box=(1.0, 2.0, 3.0, 4.0))
OTHER_BASIS = replace(GOOD, lawful_basis="eu-gdpr:A6-1-f")
IMAGES: dict[str, tuple[Batch | None, list[Record | None], bool, Reason | None]] = {
    "permitted": (ASSESSED, [GOOD], False, None),
    "permitted by one of two": (ASSESSED, [None, BOXED], False, None),
    "permitted on another basis": (ASSESSED, [OTHER_BASIS], False, None),
    "public web with consent": (Batch("assessed", "public_web"), [GOOD], False, None),
    "erased": (ASSESSED, [GOOD], True, Reason.ERASED),
    "erased, of an unknown batch": (None, [GOOD], True, Reason.ERASED),
    "unknown batch": (None, [GOOD], False, Reason.BATCH_UNKNOWN),
    "unassessed": (Batch("unassessed", "uploaded_by_subject"), [GOOD], False, Reason.BATCH_NOT_ASSESSED),
    "no state": (Batch(None, "uploaded_by_subject"), [GOOD], False, Reason.BATCH_NOT_ASSESSED),
    "no method": (Batch("assessed", None), [GOOD], False, Reason.BATCH_NOT_ASSESSED),
    "revoked": (Batch("revoked", "uploaded_by_subject"), [GOOD], False, Reason.BATCH_REVOKED),
    "nothing linked": (ASSESSED, [], False, Reason.NO_BASIS),
    "a link to nothing": (ASSESSED, [None], False, Reason.BASIS_NOT_FOUND),
    "of another batch": (ASSESSED, [replace(GOOD, source_batch_id="b2")], False, Reason.BATCH_MISMATCH),
    "public web": (Batch("assessed", "public_web"), [OTHER_BASIS], False, Reason.PUBLIC_WEB_WITHOUT_CONSENT),
    "a record of the public web": (ASSESSED, [replace(OTHER_BASIS, collection_method="public_web")], False,
                                   Reason.PUBLIC_WEB_WITHOUT_CONSENT),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
def test_guarantee_6_of_an_image_its_source_decides_first_then_its_records(case: str) -> None:
    batch, records, erased, expected = IMAGES[case]
    found = decide_image(batch, "b", records, policy=POLICY, now=NOW, erased=erased)
    assert found == Decision(allowed=expected is None, reason=expected, valid_until=None if expected else END)


CHANGED = Reason.CONTENT_CHANGED


@pytest.mark.parametrize(
    ("contents", "content", "refused"),
    [
        ((), Content("c"), None), ((), Content("c", changed=True), CHANGED), ((), Content(None), None),
        (("c",), Content("c"), None), (("c",), Content("c", changed=True), None), (("b", "c"), Content("c"), None),
        (("b",), Content("c"), CHANGED), (("b",), Content("c", changed=True), CHANGED),
        (("b",), Content(None), CHANGED),
        ((AWAITED,), Content("c"), Reason.CONTENT_AWAITED), ((AWAITED,), Content("c", changed=True), CHANGED),
        ((AWAITED,), Content("unread:EMPTY", read=False), None), ((AWAITED, "c"), Content("c"), None),
        ((AWAITED, "b"), Content("c"), CHANGED), ((AWAITED, "c"), Content("c", changed=True), None),
    ],
)  # fmt: skip
def test_guarantee_1_a_permission_holds_for_the_bytes_that_it_was_given_for(
    contents: tuple[str, ...], content: Content, refused: Reason | None
) -> None:
    record = replace(GOOD, contents=contents)
    found = decide_image(ASSESSED, "b", [record], policy=POLICY, now=NOW, content=content)
    assert found.reason == refused
    # One that was given since covers the picture, whatever the others were given for.
    both = decide_image(
        ASSESSED, "b", [record, replace(GOOD, contents=("c",))], policy=POLICY, now=NOW, content=Content("c")
    )
    assert both.allowed


OTHER = replace(GOOD, pii_principal_id="hmac:" + "1" * 64)
WITHDRAWN = (GIVEN, replace(GIVEN, event_time=NOW, event_state="ConsentWithdrawn"))
OTHER_WITHDRAWN, OWN_WITHDRAWN = replace(OTHER, events=WITHDRAWN), replace(GOOD, events=WITHDRAWN)
OTHER_BOXED = replace(OTHER_WITHDRAWN, face_box=BOXED.face_box)
NOBODY = replace(GOOD, pii_principal_id=None)
# Records of one image, and whether each of them covers somebody.
TOGETHER: dict[str, tuple[list[Record | None], list[bool]]] = {
    "both permit": ([GOOD, OTHER], [True, True]),
    "the other has withdrawn": ([GOOD, OTHER_WITHDRAWN], [False, False]),
    "the other, whose face is known, has withdrawn": ([GOOD, OTHER_BOXED], [False, False]),
    "the other has not granted the purpose": ([GOOD, replace(OTHER, purposes=("q",))], [False, False]),
    "the other's record cannot be read": ([GOOD, replace(OTHER, quarantined=True)], [False, False]),
    "the other's record is of another batch": ([replace(OTHER, source_batch_id="x"), GOOD], [False, False]),
    "the other's record has not come yet": ([GOOD, None], [False, False]),
    "the other is nobody knows who": ([GOOD, NOBODY], [False, False]),
    "with a box, whatever the other says": ([BOXED, OTHER_WITHDRAWN], [True, False]),
    "with a box and without, the other has withdrawn": ([BOXED, GOOD, OTHER_WITHDRAWN], [True, False, False]),
    "an earlier record of the same person": ([OWN_WITHDRAWN, GOOD], [False, True]),
    "an earlier record of the other, who permits": ([GOOD, OTHER_WITHDRAWN, OTHER], [True, False, True]),
    "a third has withdrawn": ([GOOD, OTHER, replace(OTHER_WITHDRAWN, pii_principal_id="hmac:" + "2" * 64)],
                              [False, False, False]),
}  # fmt: skip


@pytest.mark.parametrize("case", TOGETHER)
def test_guarantee_16_without_boxes_nobody_is_covered_where_somebody_else_is_refused(case: str) -> None:
    records, covering = TOGETHER[case]
    for order in permutations(range(len(records))):
        given = [records[n] for n in order]
        found = decide_records(ASSESSED, "b", given, policy=POLICY, now=NOW)
        assert [decision.allowed for decision in found] == [covering[n] for n in order]
        image = decide_image(ASSESSED, "b", given, policy=POLICY, now=NOW)
        assert image.reason == (None if any(covering) else Reason.OTHERS_REFUSED)


def test_guarantee_16_without_boxes_nobody_is_covered_where_somebody_was_erased() -> None:
    for records, allowed in (([GOOD], False), ([GOOD, OTHER], False), ([BOXED], True), ([GOOD, BOXED], True)):
        found = decide_image(ASSESSED, "b", records, policy=POLICY, now=NOW, left=True)
        assert found.reason == (None if allowed else Reason.OTHERS_REFUSED)
    # What else is refused says so.
    assert decide_image(ASSESSED, "b", [OWN_WITHDRAWN], policy=POLICY, now=NOW, left=True).reason == (
        Reason.CONSENT_ENDED
    )


def test_an_image_ends_with_the_first_of_its_records() -> None:
    sooner = replace(GOOD, expires_at=END - timedelta(days=1))
    found = decide_image(ASSESSED, "b", [GOOD, sooner], policy=POLICY, now=NOW)
    assert found.valid_until == sooner.expires_at


def test_guarantee_7_a_legal_hold_suspends_serving_of_the_whole_picture() -> None:
    held = replace(GOOD, legal_hold_ref="case-1")
    assert reason(held) == Reason.LEGAL_HOLD
    for records in ([held, GOOD], [GOOD, held], [GOOD, replace(held, schema_version=None)]):
        found = decide_image(ASSESSED, "b1", records, policy=POLICY, now=NOW)
        assert found == Decision(allowed=False, reason=Reason.LEGAL_HOLD)


def test_of_several_records_the_one_that_got_furthest_names_the_reason() -> None:
    records = [None, replace(GOOD, schema_version=None), replace(GOOD, legal_hold_ref="h")]
    found = decide_image(ASSESSED, "b", records, policy=POLICY, now=NOW)
    assert found == Decision(allowed=False, reason=Reason.LEGAL_HOLD)


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


@pytest.mark.parametrize("text", [None, "", "P", "1Y", "PT5H", "P-1Y", "P1Y ", "P1.5Y"])
def test_other_durations_are_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"^not an ISO 8601 duration of years, months, weeks and days$"):
        add_duration(NOW, text)
