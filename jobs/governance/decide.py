"""The rule of who may be indexed: pure Python, data in, data out.

`gate.py` holds the same rule as a Spark expression; tests hold the two equal. Field names are those of
ISO/IEC TS 27560 (consent record information structure), values those of the W3C Data Privacy Vocabulary.
Default deny (Guarantee 1): whatever is missing, null or unknown is refused with one stable reason.

This is not legal advice: the rule checks what was recorded, not whether it is true.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why an image is refused. The order is the rule's: of several records, the one that got furthest names it."""

    NO_BASIS = "NO_BASIS"
    BASIS_NOT_FOUND = "BASIS_NOT_FOUND"
    BATCH_UNKNOWN = "BATCH_UNKNOWN"
    BATCH_NOT_ASSESSED = "BATCH_NOT_ASSESSED"
    BATCH_REVOKED = "BATCH_REVOKED"
    SCHEMA_UNKNOWN = "SCHEMA_UNKNOWN"
    PRINCIPAL_MISSING = "PRINCIPAL_MISSING"
    FIELD_MISSING = "FIELD_MISSING"
    LAWFUL_BASIS_UNKNOWN = "LAWFUL_BASIS_UNKNOWN"
    SPECIAL_CATEGORY_UNKNOWN = "SPECIAL_CATEGORY_UNKNOWN"
    COLLECTION_UNKNOWN = "COLLECTION_UNKNOWN"
    BOX_INVALID = "BOX_INVALID"
    DURATION_INVALID = "DURATION_INVALID"
    EVENT_MISSING = "EVENT_MISSING"
    STATE_UNKNOWN = "STATE_UNKNOWN"
    CONSENT_NOT_GIVEN = "CONSENT_NOT_GIVEN"
    CONSENT_ENDED = "CONSENT_ENDED"
    NOT_YET_VALID = "NOT_YET_VALID"
    VALIDITY_EXPIRED = "VALIDITY_EXPIRED"
    RETENTION_EXPIRED = "RETENTION_EXPIRED"
    LEGAL_HOLD = "LEGAL_HOLD"
    BATCH_MISMATCH = "BATCH_MISMATCH"
    PUBLIC_WEB_WITHOUT_CONSENT = "PUBLIC_WEB_WITHOUT_CONSENT"
    PURPOSE_NOT_GRANTED = "PURPOSE_NOT_GRANTED"
    PURPOSE_NOT_ALLOWED = "PURPOSE_NOT_ALLOWED"


REASON_ORDER: Final = tuple(Reason)

SCHEMA_VERSIONS: Final = ("1.0",)
CONSENT_BASES: Final = ("eu-gdpr:A6-1-a",)
LAWFUL_BASES: Final = (*CONSENT_BASES, *(f"eu-gdpr:A6-1-{letter}" for letter in "bcdef"))
SPECIAL_CATEGORY_CONDITIONS: Final = tuple(f"eu-gdpr:A9-2-{letter}" for letter in "abcdefghij")
COLLECTION_METHODS: Final = ("uploaded_by_subject", "provided_by_controller", "partner_transfer", "public_web")
PUBLIC_WEB: Final = "public_web"
BATCH_ASSESSED: Final = "assessed"
BATCH_REVOKED: Final = "revoked"

# DPV's consent states, and one pair for bases that are not consent. What is in neither tuple is unknown.
STATES_GIVEN: Final = ("ConsentGiven", "RenewedConsentGiven", "BasisInForce")
STATES_NOT_GIVEN: Final = ("ConsentUnknown", "ConsentRequested", "ConsentRequestDeferred", "ConsentRefused")
STATES_ENDED: Final = ("ConsentExpired", "ConsentInvalidated", "ConsentRevoked", "ConsentWithdrawn", "BasisEnded")
# At one and the same instant the later of this order wins, so that an ending beats a giving.
STATE_ORDER: Final = (*STATES_GIVEN, *STATES_NOT_GIVEN, *STATES_ENDED)

PRINCIPAL_PATTERN: Final = r"^hmac:[0-9a-f]{64}$"
# Date part of an ISO 8601 duration; bounded digits keep every sum inside the calendar.
DURATION_PATTERN: Final = r"^P(?=\d)(?:(\d{1,3})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?$"
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
    legal_hold_ref: str | None = None


@dataclass(frozen=True)
class Batch:
    """One assessed source."""

    state: str | None
    collection_method: str | None


@dataclass(frozen=True)
class Decision:
    """The outcome for one record or image; ``reason`` is None exactly when it is allowed."""

    allowed: bool
    reason: Reason | None = None
    valid_until: datetime | None = None


def decide_batch(batch: Batch | None) -> Reason | None:
    """Guarantee 6: an unknown, unassessed or revoked source is refused, whatever the records say."""
    if batch is None:
        return Reason.BATCH_UNKNOWN
    if batch.state == BATCH_REVOKED:
        return Reason.BATCH_REVOKED
    if batch.state != BATCH_ASSESSED or batch.collection_method not in COLLECTION_METHODS:
        return Reason.BATCH_NOT_ASSESSED
    return None


def decide_record(
    record: Record, *, purposes: Collection[str], allowed_purposes: Collection[str], now: datetime
) -> Decision:
    """Decide one record: well-formed, in force at ``now``, and granting every purpose asked for."""
    reason = _malformed(record) or _not_in_force(record, now) or _purpose(record, purposes, allowed_purposes)
    if reason:
        return Decision(allowed=False, reason=reason)
    return Decision(allowed=True, valid_until=_valid_until(record))


def decide_image(
    batch: Batch | None,
    batch_id: str,
    records: Sequence[Record | None],
    *,
    purposes: Collection[str],
    allowed_purposes: Collection[str],
    now: datetime,
) -> Decision:
    """Decide one image from its source batch and the records linked to it (None: a link to no record)."""
    refused = decide_batch(batch)
    if refused or batch is None:
        return Decision(allowed=False, reason=refused)
    if not records:
        return Decision(allowed=False, reason=Reason.NO_BASIS)
    decisions = [_decide_linked(batch, batch_id, r, purposes, allowed_purposes, now) for r in records]
    until = [d.valid_until for d in decisions if d.allowed and d.valid_until]
    if until:
        return Decision(allowed=True, valid_until=min(until))
    furthest = max(REASON_ORDER.index(d.reason) for d in decisions if d.reason)
    return Decision(allowed=False, reason=REASON_ORDER[furthest])


def _decide_linked(
    batch: Batch,
    batch_id: str,
    record: Record | None,
    purposes: Collection[str],
    allowed_purposes: Collection[str],
    now: datetime,
) -> Decision:
    if record is None:
        return Decision(allowed=False, reason=Reason.BASIS_NOT_FOUND)
    decision = decide_record(record, purposes=purposes, allowed_purposes=allowed_purposes, now=now)
    if not decision.allowed:
        return decision
    if record.source_batch_id != batch_id:
        return Decision(allowed=False, reason=Reason.BATCH_MISMATCH)
    if PUBLIC_WEB in (batch.collection_method, record.collection_method) and record.lawful_basis not in CONSENT_BASES:
        return Decision(allowed=False, reason=Reason.PUBLIC_WEB_WITHOUT_CONSENT)
    return decision


def _malformed(record: Record) -> Reason | None:
    if record.schema_version not in SCHEMA_VERSIONS:
        return Reason.SCHEMA_UNKNOWN
    if not re.fullmatch(PRINCIPAL_PATTERN, record.pii_principal_id or ""):
        return Reason.PRINCIPAL_MISSING
    if not (record.purposes and record.pii_controllers and record.source_batch_id):
        return Reason.FIELD_MISSING
    if not all((getattr(record, field) or "").strip(" ") for field in REQUIRED_FIELDS):
        return Reason.FIELD_MISSING
    if record.lawful_basis not in LAWFUL_BASES:
        return Reason.LAWFUL_BASIS_UNKNOWN
    if record.special_category_condition not in SPECIAL_CATEGORY_CONDITIONS:
        return Reason.SPECIAL_CATEGORY_UNKNOWN
    if record.collection_method not in COLLECTION_METHODS:
        return Reason.COLLECTION_UNKNOWN
    if record.face_box is not None and not _is_box(record.face_box):
        return Reason.BOX_INVALID
    if not re.fullmatch(DURATION_PATTERN, record.retention_period or ""):
        return Reason.DURATION_INVALID
    return None


def _is_box(box: Sequence[float]) -> bool:
    return len(box) == 4 and 0 <= box[0] < box[2] < float("inf") and 0 <= box[1] < box[3] < float("inf")


def _not_in_force(record: Record, now: datetime) -> Reason | None:
    event = current_event(record.events)
    if event is None or event.event_time is None:
        return Reason.EVENT_MISSING
    state_reason = _state(event.event_state)
    if state_reason:
        return state_reason
    if not re.fullmatch(DURATION_PATTERN, event.validity_duration or ""):
        return Reason.DURATION_INVALID
    if event.event_time > now:
        return Reason.NOT_YET_VALID
    if add_duration(event.event_time, event.validity_duration or "") <= now:
        return Reason.VALIDITY_EXPIRED
    if add_duration(event.event_time, record.retention_period or "") <= now:
        return Reason.RETENTION_EXPIRED
    if record.expires_at is not None and record.expires_at <= now:
        return Reason.RETENTION_EXPIRED
    if record.legal_hold_ref is not None:
        return Reason.LEGAL_HOLD
    return None


def _state(state: str | None) -> Reason | None:
    if state in STATES_GIVEN:
        return None
    if state in STATES_NOT_GIVEN:
        return Reason.CONSENT_NOT_GIVEN
    return Reason.CONSENT_ENDED if state in STATES_ENDED else Reason.STATE_UNKNOWN


def _purpose(record: Record, purposes: Collection[str], allowed_purposes: Collection[str]) -> Reason | None:
    """Guarantee 5: requested ⊆ granted ∩ allow-list; asking for nothing is no permission."""
    if not purposes or not set(purposes) <= set(record.purposes or ()):
        return Reason.PURPOSE_NOT_GRANTED
    if not set(purposes) <= set(allowed_purposes):
        return Reason.PURPOSE_NOT_ALLOWED
    return None


def current_event(events: Sequence[Event] | None) -> Event | None:
    """The event that counts: the latest, at one instant the most restrictive; None where any has no time or type."""
    if not events or any(e.event_time is None or not e.event_type for e in events):
        return None

    def order(event: Event) -> tuple[datetime, int, str]:
        assert event.event_time is not None  # noqa: S101 - checked above, said again for the type checker
        state = event.event_state
        rank = STATE_ORDER.index(state) if state in STATE_ORDER else len(STATE_ORDER)
        return event.event_time, rank, event.validity_duration or ""

    return max(events, key=order)


def _valid_until(record: Record) -> datetime | None:
    event = current_event(record.events)
    if event is None or event.event_time is None:
        return None
    ends = [
        add_duration(event.event_time, event.validity_duration or ""),
        add_duration(event.event_time, record.retention_period or ""),
    ]
    return min([*ends, record.expires_at]) if record.expires_at else min(ends)


def add_duration(start: datetime, duration: str) -> datetime:
    """``start`` plus an ISO 8601 duration in years, months, weeks, days; a month's end stays a month's end."""
    match = re.fullmatch(DURATION_PATTERN, duration)
    if match is None:
        raise ValueError("not an ISO 8601 duration of years, months, weeks and days")
    years, months, weeks, days = (int(g or 0) for g in match.groups())
    total = start.year * 12 + start.month - 1 + years * 12 + months
    year, month = divmod(total, 12)
    day = min(start.day, _days_in_month(year, month + 1))
    return start.replace(year=year, month=month + 1, day=day) + timedelta(days=weeks * 7 + days)


def _days_in_month(year: int, month: int) -> int:
    first_of_next = datetime(year + month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - calendar arithmetic only
    return (first_of_next - timedelta(days=1)).day
