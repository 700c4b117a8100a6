"""The rule of who may be indexed: pure Python, data in, data out.

`gate.py` holds the same rule as a Spark expression; tests hold the two equal. Field names are those of
ISO/IEC TS 27560 (consent record information structure), values those of the W3C Data Privacy Vocabulary.
Default deny (Guarantee 1): whatever is missing, null or unknown is refused with one stable reason.

This is not legal advice: the rule checks what was recorded, not whether it is true.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from jobs.governance.blanks import filled
from jobs.schemas import AWAITED


class Reason(StrEnum):
    """Why an image is refused. The order is the rule's: of several records, the one that got furthest names it."""

    NO_BASIS = "NO_BASIS"
    BASIS_NOT_FOUND = "BASIS_NOT_FOUND"
    BATCH_UNKNOWN = "BATCH_UNKNOWN"
    BATCH_NOT_ASSESSED = "BATCH_NOT_ASSESSED"
    BATCH_REVOKED = "BATCH_REVOKED"
    ERASED = "ERASED"
    QUARANTINED = "QUARANTINED"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    PRINCIPAL_MISSING = "PRINCIPAL_MISSING"
    FIELD_MISSING = "FIELD_MISSING"
    LAWFUL_BASIS_UNKNOWN = "LAWFUL_BASIS_UNKNOWN"
    SPECIAL_CATEGORY_UNKNOWN = "SPECIAL_CATEGORY_UNKNOWN"
    COLLECTION_UNKNOWN = "COLLECTION_UNKNOWN"
    BOX_INVALID = "BOX_INVALID"
    DURATION_INVALID = "DURATION_INVALID"
    JURISDICTION_UNKNOWN = "JURISDICTION_UNKNOWN"
    NOT_LAWFUL_THERE = "NOT_LAWFUL_THERE"
    REQUIREMENT_MISSING = "REQUIREMENT_MISSING"
    EVENT_MISSING = "EVENT_MISSING"
    STATE_UNKNOWN = "STATE_UNKNOWN"
    CONSENT_NOT_GIVEN = "CONSENT_NOT_GIVEN"
    CONSENT_ENDED = "CONSENT_ENDED"
    NOT_YET_VALID = "NOT_YET_VALID"
    DISCLOSURE_TOO_RECENT = "DISCLOSURE_TOO_RECENT"
    VALIDITY_EXPIRED = "VALIDITY_EXPIRED"
    RETENTION_EXPIRED = "RETENTION_EXPIRED"
    LEGAL_HOLD = "LEGAL_HOLD"
    BATCH_MISMATCH = "BATCH_MISMATCH"
    PUBLIC_WEB_WITHOUT_CONSENT = "PUBLIC_WEB_WITHOUT_CONSENT"
    CONTENT_CHANGED = "CONTENT_CHANGED"
    CONTENT_AWAITED = "CONTENT_AWAITED"
    PURPOSE_NOT_GRANTED = "PURPOSE_NOT_GRANTED"
    PURPOSE_NOT_ALLOWED = "PURPOSE_NOT_ALLOWED"
    BOX_REQUIRED = "BOX_REQUIRED"
    OTHERS_REFUSED = "OTHERS_REFUSED"


REASON_ORDER: Final = tuple(Reason)

SCHEMA_VERSIONS: Final = ("1.0",)
EXPRESS_CONSENT: Final = "dpv:ExplicitlyExpressedConsent"
CONSENT_BASES: Final = ("eu-gdpr:A6-1-a", EXPRESS_CONSENT)
LAWFUL_BASES: Final = (*CONSENT_BASES, *(f"eu-gdpr:A6-1-{letter}" for letter in "bcdef"))
SPECIAL_CATEGORY_CONDITIONS: Final = (EXPRESS_CONSENT, *(f"eu-gdpr:A9-2-{letter}" for letter in "abcdefghij"))
COLLECTION_METHODS: Final = ("uploaded_by_subject", "provided_by_controller", "partner_transfer", "public_web")
PUBLIC_WEB: Final = "public_web"
BATCH_ASSESSED: Final = "assessed"
BATCH_REVOKED: Final = "revoked"

# Guarantee 4. What each state of a record's current event means: DPV's ten consent states, and two for bases that are
# not consent (their BasisInForce stands for no consent). A state that is not here is unknown and refused.
STATES: Final[Mapping[str, Reason | None]] = {
    "ConsentGiven": None,
    "RenewedConsentGiven": None,
    "BasisInForce": None,
    "ConsentUnknown": Reason.CONSENT_NOT_GIVEN,
    "ConsentRequested": Reason.CONSENT_NOT_GIVEN,
    "ConsentRequestDeferred": Reason.CONSENT_NOT_GIVEN,
    "ConsentRefused": Reason.CONSENT_NOT_GIVEN,
    "ConsentExpired": Reason.CONSENT_ENDED,
    "ConsentInvalidated": Reason.CONSENT_ENDED,
    "ConsentRevoked": Reason.CONSENT_ENDED,
    "ConsentWithdrawn": Reason.CONSENT_ENDED,
    "BasisEnded": Reason.CONSENT_ENDED,
}
BASIS_IN_FORCE: Final = "BasisInForce"
STATES_GIVEN: Final = tuple(state for state, reason in STATES.items() if reason is None)
STATES_NOT_GIVEN: Final = tuple(state for state, reason in STATES.items() if reason is Reason.CONSENT_NOT_GIVEN)
STATES_ENDED: Final = tuple(state for state, reason in STATES.items() if reason is Reason.CONSENT_ENDED)
# At one and the same instant the later of this order wins, so that an ending beats a giving. Of two in one place of it,
# the one whose validity ends first.
STATE_ORDER: Final = tuple(STATES)

# `hmac:` or, of a later rule for names, `hmac2:` or `hmac3:` (pseudonyms.py).
PRINCIPAL_PATTERN: Final = r"^hmac[23]?:[0-9a-f]{64}$"
# Date part of an ISO 8601 duration; bounded digits keep every sum inside the calendar.
# Digits are named: Python's \d takes those of every script, Java's does not.
DURATION_PATTERN: Final = r"^P(?=[0-9])(?:([0-9]{1,3})Y)?(?:([0-9]{1,4})M)?(?:([0-9]{1,4})W)?(?:([0-9]{1,5})D)?$"
REQUIRED_FIELDS: Final = (
    "lawful_basis",
    "special_category_condition",
    "collection_method",
    "retention_period",
    "jurisdiction",
    "withdrawal_method",
    "impact_assessment",
    "privacy_notice",
)


@dataclass(frozen=True)
class Event:
    """One consent event; ``event_time`` is timezone-aware UTC."""

    event_time: datetime | None
    validity_duration: str | None
    event_type: str | None
    event_state: str | None


@dataclass(frozen=True)
class Record:
    """One basis record as the rule sees it. ``None`` stands for what was not recorded."""

    schema_version: str | None = None
    pii_principal_id: str | None = None
    purposes: Sequence[str] | None = None
    pii_controllers: Sequence[str] | None = None
    lawful_basis: str | None = None
    special_category_condition: str | None = None
    collection_method: str | None = None
    retention_period: str | None = None
    jurisdiction: str | None = None
    withdrawal_method: str | None = None
    impact_assessment: str | None = None
    privacy_notice: str | None = None
    events: Sequence[Event] | None = None
    source_batch_id: str | None = None
    face_box: Sequence[float] | None = None
    expires_at: datetime | None = None
    last_interaction_at: datetime | None = None
    written_release_ref: str | None = None
    authority_disclosure_ref: str | None = None
    authority_disclosed_at: datetime | None = None
    legal_hold_ref: str | None = None
    # Not of the record itself: a later version of it could not be read, or two contents were recorded at its latest
    # instant; its person was erased at that time; the contents (SHA-256) of the image that its link was given for,
    # none: the first that the image had; AWAITED alone: what the next ingestion of the image brings.
    quarantined: bool = False
    erased_at: datetime | None = None
    contents: Collection[str] = ()


@dataclass(frozen=True)
class JurisdictionRule:
    """What one jurisdiction asks for beyond the general rule (conf/jurisdictions.yaml)."""

    name: str
    jurisdictions: tuple[str, ...]
    lawful_bases: tuple[str, ...]
    special_category_conditions: tuple[str, ...]
    required: tuple[str, ...] = ()
    wait_after_disclosure: str | None = None
    keep_after_last_interaction: str | None = None


@dataclass(frozen=True)
class Batch:
    """One assessed source."""

    state: str | None
    collection_method: str | None


@dataclass(frozen=True)
class Content:
    """What an image shows now: its digest, whether other bytes came in place of its first ones, and were read."""

    sha256: str | None
    changed: bool = False
    read: bool = True


@dataclass(frozen=True)
class Decision:
    """The outcome for one record or image; ``reason`` is None exactly when it is allowed."""

    allowed: bool
    reason: Reason | None = None
    valid_until: datetime | None = None


def _refused(reason: Reason | None) -> Decision:
    return Decision(allowed=False, reason=reason)


def decide_batch(batch: Batch | None) -> Reason | None:
    """Guarantee 6: an unknown, unassessed or revoked source is refused, whatever the records say."""
    if batch is None:
        return Reason.BATCH_UNKNOWN
    if batch.state == BATCH_REVOKED:
        return Reason.BATCH_REVOKED
    if batch.state != BATCH_ASSESSED or batch.collection_method not in COLLECTION_METHODS:
        return Reason.BATCH_NOT_ASSESSED
    return None


@dataclass(frozen=True)
class Policy:
    """What a decision depends on besides the record: what is asked for, what the controller allows, where.

    ``box_required``: a record that does not say where in the picture its person is covers nobody.
    """

    purposes: tuple[str, ...]
    allowed_purposes: tuple[str, ...]
    rules: tuple[JurisdictionRule, ...]
    box_required: bool = False

    def rule(self, jurisdiction: str | None) -> JurisdictionRule | None:
        """The rule that names this jurisdiction."""
        return next((rule for rule in self.rules if jurisdiction in rule.jurisdictions), None)


def decide_record(record: Record, *, policy: Policy, now: datetime) -> Decision:
    """Decide one record: well-formed, lawful in its jurisdiction, in force at ``now``, granting what is asked for."""
    rule = policy.rule(record.jurisdiction)
    reason = (
        (Reason.QUARANTINED if record.quarantined else None)
        or _malformed(record)
        or _unlawful(record, rule)
        or _not_in_force(record, rule, now)
        or _purpose(record, policy.purposes, policy.allowed_purposes)
        # Last: what has ended must say so, or it would not be destroyed.
        or (Reason.BOX_REQUIRED if policy.box_required and record.face_box is None else None)
    )
    if reason:
        return _refused(reason)
    return Decision(allowed=True, valid_until=valid_until(record, rule))


def has_ended(record: Record, *, policy: Policy, now: datetime) -> bool:
    """Whether what a record gave is over for good: what stands under it is destroyed then, and not only refused.

    Whatever else it lacks, or the law asks for: a withdrawal counts without a field, too. But nothing is destroyed by
    what cannot be read, nor by what is on hold.
    """
    if record.quarantined or record.schema_version not in SCHEMA_VERSIONS or record.legal_hold_ref is not None:
        return False
    event, until = current_event(record.events), valid_until(record, policy.rule(record.jurisdiction))
    over = until is not None and until <= now
    if event is None or event.event_time is None:
        return over
    erased = record.erased_at is not None and event.event_time <= record.erased_at
    # What begins later is yet to come.
    return erased or event.event_state in STATES_ENDED or (over and event.event_time <= now)


def decide_image(
    batch: Batch | None,
    batch_id: str,
    records: Sequence[Record | None],
    *,
    policy: Policy,
    now: datetime,
    erased: bool = False,
    left: bool = False,
    content: Content = Content(None),
) -> Decision:
    """Decide one image from its source batch, the records linked to it (None: a link to no record), and tombstones.

    ``erased``: the image itself; ``left``: somebody who is in it. A legal hold on one of its records holds the image:
    nobody in it is served, whatever another record permits.
    """
    refused = Reason.ERASED if erased else decide_batch(batch)
    if refused or batch is None:
        return _refused(refused)
    if not records:
        return _refused(Reason.NO_BASIS)
    if any(record is not None and record.legal_hold_ref is not None for record in records):
        return _refused(Reason.LEGAL_HOLD)
    decisions = decide_records(batch, batch_id, records, policy=policy, now=now, left=left, content=content)
    until = [d.valid_until for d in decisions if d.valid_until]
    if until:
        return Decision(allowed=True, valid_until=min(until))
    furthest = max(REASON_ORDER.index(d.reason) for d in decisions if d.reason)
    return _refused(REASON_ORDER[furthest])


def decide_records(
    batch: Batch,
    batch_id: str,
    records: Sequence[Record | None],
    *,
    policy: Policy,
    now: datetime,
    left: bool = False,
    content: Content = Content(None),
) -> list[Decision]:
    """Decide each record of one image, in view of the others.

    Guarantee 16: which face is whose is known by boxes alone. So a record without one covers nobody where somebody is
    in the picture of whom no record permits it, or who was erased from it (``left``): the face may be that one's.
    """
    decided = [(record, _decide_linked(batch, batch_id, record, content, policy, now)) for record in records]
    permitting = {record.pii_principal_id for record, decision in decided if record is not None and decision.allowed}
    refused = [record for record, decision in decided if not decision.allowed]
    others = left or any(record is None or record.pii_principal_id not in permitting for record in refused)
    return [
        _refused(Reason.OTHERS_REFUSED)
        if others and decision.allowed and record is not None and record.face_box is None
        else decision
        for record, decision in decided
    ]


def is_over(
    batch: Batch,
    batch_id: str,
    records: Sequence[Record | None],
    *,
    policy: Policy,
    now: datetime,
    content: Content = Content(None),
) -> bool:
    """Whether an image has reached its end by its records: nobody is in it any more of whom one is not over.

    A permission for bytes that stood under its id before is for nobody in it, if somebody whose record has ended was
    recorded for those that are there now. Else it may be anybody's.
    """
    ended = [record for record in records if record is not None and has_ended(record, policy=policy, now=now)]
    others = [record for record in records if record not in ended]
    if not others:
        return bool(ended)
    reasons = {_decide_linked(batch, batch_id, record, content, policy, now).reason for record in others}
    of_now = content.read and any(_given_for(record.contents, content) for record in ended)
    return of_now and reasons == {Reason.CONTENT_CHANGED}


def _decide_linked(
    batch: Batch,
    batch_id: str,
    record: Record | None,
    content: Content,
    policy: Policy,
    now: datetime,
) -> Decision:
    if record is None:
        return _refused(Reason.BASIS_NOT_FOUND)
    decision = decide_record(record, policy=policy, now=now)
    if not decision.allowed:
        return decision
    if record.source_batch_id != batch_id:
        return _refused(Reason.BATCH_MISMATCH)
    if PUBLIC_WEB in (batch.collection_method, record.collection_method) and record.lawful_basis not in CONSENT_BASES:
        return _refused(Reason.PUBLIC_WEB_WITHOUT_CONSENT)
    if not _given_for(record.contents, content):
        return _refused(Reason.CONTENT_CHANGED)
    if content.read and set(record.contents) == {AWAITED}:
        # Ingestion binds it to what that brings. This has come by another way, as with a table that was restored.
        return _refused(Reason.CONTENT_AWAITED)
    return decision


def _given_for(contents: Collection[str], content: Content) -> bool:
    """A permission holds for the picture that it was given for, and not for what later stands in its place."""
    hashes = set(contents) - {AWAITED}
    return content.sha256 in hashes if hashes else not content.changed


def _malformed(record: Record) -> Reason | None:
    if record.schema_version not in SCHEMA_VERSIONS:
        return Reason.SCHEMA_UNKNOWN
    if record.pii_principal_id is None or not re.fullmatch(PRINCIPAL_PATTERN, record.pii_principal_id):
        return Reason.PRINCIPAL_MISSING
    if not (record.purposes and record.pii_controllers):
        return Reason.FIELD_MISSING
    texts = (getattr(record, field) for field in ("source_batch_id", *REQUIRED_FIELDS))
    if not all(map(filled, (*record.purposes, *record.pii_controllers, *texts))):
        return Reason.FIELD_MISSING
    if record.lawful_basis not in LAWFUL_BASES:
        return Reason.LAWFUL_BASIS_UNKNOWN
    if record.special_category_condition not in SPECIAL_CATEGORY_CONDITIONS:
        return Reason.SPECIAL_CATEGORY_UNKNOWN
    if record.collection_method not in COLLECTION_METHODS:
        return Reason.COLLECTION_UNKNOWN
    if record.face_box is not None and not _is_box(record.face_box):
        return Reason.BOX_INVALID
    if _duration(record.retention_period) is None:
        return Reason.DURATION_INVALID
    return None


def _is_box(box: Sequence[float]) -> bool:
    return len(box) == 4 and 0 <= box[0] < box[2] < math.inf and 0 <= box[1] < box[3] < math.inf


def _unlawful(record: Record, rule: JurisdictionRule | None) -> Reason | None:
    if rule is None:
        return Reason.JURISDICTION_UNKNOWN
    if record.lawful_basis not in rule.lawful_bases:
        return Reason.NOT_LAWFUL_THERE
    if record.special_category_condition not in rule.special_category_conditions:
        return Reason.NOT_LAWFUL_THERE
    if any(_blank(getattr(record, field)) for field in rule.required):
        return Reason.REQUIREMENT_MISSING
    return None


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not filled(value))


def _not_in_force(record: Record, rule: JurisdictionRule | None, now: datetime) -> Reason | None:
    event = current_event(record.events)
    if event is None or event.event_time is None:
        return Reason.EVENT_MISSING
    if record.erased_at is not None and event.event_time <= record.erased_at:
        return Reason.ERASED
    state_reason = _state(event.event_state, record.lawful_basis)
    if state_reason:
        return state_reason
    if _duration(event.validity_duration) is None:
        return Reason.DURATION_INVALID
    if event.event_time > now:
        return Reason.NOT_YET_VALID
    if _disclosed_too_recently(record, rule, now):
        return Reason.DISCLOSURE_TOO_RECENT
    if add_duration(event.event_time, event.validity_duration) <= now:
        return Reason.VALIDITY_EXPIRED
    if add_duration(event.event_time, record.retention_period) <= now:
        return Reason.RETENTION_EXPIRED
    if any(end <= now for end in _recorded_ends(record, rule)):
        return Reason.RETENTION_EXPIRED
    if record.legal_hold_ref is not None:
        return Reason.LEGAL_HOLD
    return None


def _disclosed_too_recently(record: Record, rule: JurisdictionRule | None, now: datetime) -> bool:
    if rule is None or not rule.wait_after_disclosure or record.authority_disclosed_at is None:
        return False
    return add_duration(record.authority_disclosed_at, rule.wait_after_disclosure) > now


def _state(state: str | None, lawful_basis: str | None) -> Reason | None:
    if state is None or state not in STATES:
        return Reason.STATE_UNKNOWN
    if state == BASIS_IN_FORCE and lawful_basis in CONSENT_BASES:
        return Reason.CONSENT_NOT_GIVEN
    return STATES[state]


def _recorded_ends(record: Record, rule: JurisdictionRule | None) -> list[datetime]:
    """Ends of retention that do not count from the event: one that was set, and one from the last interaction."""
    ends = [record.expires_at] if record.expires_at is not None else []
    if rule is not None and rule.keep_after_last_interaction and record.last_interaction_at is not None:
        ends.append(add_duration(record.last_interaction_at, rule.keep_after_last_interaction))
    return ends


def _purpose(record: Record, purposes: Collection[str], allowed_purposes: Collection[str]) -> Reason | None:
    """Guarantee 5: requested ⊆ granted ∩ allow-list; asking for nothing is no permission."""
    if not purposes or not set(purposes) <= set(record.purposes or ()):
        return Reason.PURPOSE_NOT_GRANTED
    if not set(purposes) <= set(allowed_purposes):
        return Reason.PURPOSE_NOT_ALLOWED
    return None


def current_event(events: Sequence[Event] | None) -> Event | None:
    """The event that counts: the latest, at one instant the most restrictive; None where any has no time or type."""
    if not events or any(e.event_time is None or not filled(e.event_type) for e in events):
        return None

    def order(event: Event) -> tuple[datetime, int, timedelta]:
        start, state, duration = event.event_time, event.event_state, event.validity_duration
        assert start is not None  # noqa: S101 - checked above, said again for the type checker
        rank = STATE_ORDER.index(state) if state in STATE_ORDER else len(STATE_ORDER)
        # The shortest wins, and what is no duration before all of them.
        return start, rank, start - add_duration(start, duration) if _duration(duration) else timedelta.max

    return max(events, key=order)


def valid_until(record: Record, rule: JurisdictionRule | None) -> datetime | None:
    """The first end of a record, of its validity or of a retention; of those that its fields tell."""
    ends, event = _recorded_ends(record, rule), current_event(record.events)
    if event is not None and event.event_time is not None:
        told = [text for text in (event.validity_duration, record.retention_period) if _duration(text)]
        ends += [add_duration(event.event_time, text) for text in told]
    return min(ends, default=None)


def _duration(text: str | None) -> re.Match[str] | None:
    return None if text is None else re.fullmatch(DURATION_PATTERN, text)


def add_duration(start: datetime, duration: str | None) -> datetime:
    """``start`` plus an ISO 8601 duration in years, months, weeks, days; a month's end stays a month's end.

    At the latest the calendar's last instant.
    """
    match = _duration(duration)
    if match is None:
        raise ValueError("not an ISO 8601 duration of years, months, weeks and days")
    years, months, weeks, days = (int(g or 0) for g in match.groups())
    total = start.year * 12 + start.month - 1 + years * 12 + months
    year, month = divmod(total, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    try:
        return start.replace(year=year, month=month + 1, day=day) + timedelta(days=weeks * 7 + days)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=start.tzinfo)
