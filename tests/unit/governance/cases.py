"""Cases of the rule, which the Spark expression has to decide alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.governance.decide import (
    Event,
    Reason,
    Record,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)

GIVEN = Event(NOW - timedelta(days=30), "P1Y", "explicit_consent", "ConsentGiven")

# A record that permits.
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

# Durations of events at one instant; the first is the one that counts. As texts most would be ordered otherwise.
TIES = [
    ("P1Y", "P5Y"), ("P10D", "P1Y"), ("P18M", "P2Y"), ("P9D", "P10D", "P2W"), ("P0D", "P1D"), ("P4W", "P1M", "P31D"),
    (None, "P1Y"), ("x", "P0D"), ("P", "P999Y"),
]  # fmt: skip

BOXES = {
    (0.5, 0.5, 2.0, 3.0): None,
    (0.0, 0.0, 1.0, 1.0): None,
    (0.0, 5.0, 3.0, 9.0): None,
    (5.0, 0.0, 9.0, 3.0): None,
    **dict.fromkeys(
        [
            (),
            (0.0, 0.0, 1.0),
            (0.0, 0.0, 1.0, 1.0, 1.0),
            (-1.0, 0.0, 1.0, 1.0),
            (0.0, -1.0, 1.0, 1.0),
            (1.0, 0.0, 1.0, 2.0),
            (0.0, 1.0, 2.0, 1.0),
            (2.0, 0.0, 1.0, 2.0),
            (0.0, 2.0, 2.0, 1.0),
            (0.0, 0.0, float("inf"), 1.0),
            (0.0, 0.0, 1.0, float("inf")),
            (0.0, 0.0, float("nan"), 1.0),
            (0.0, 0.0, 1.0, float("nan")),
        ],
        Reason.BOX_INVALID,
    ),
}

# What shows nothing, of every kind: a field that holds nothing else is empty.
BLANKS = (
    "  ", "\t", "\n", "\x00", "\u00a0", "\u00ad", "\u115f", "\u180e", "\u200b", "\u202e", "\u2028", "\u2060",
    "\u2800", "\u3000", "\u3164", "\ufe0f", "\ufeff", "\U000e0020", " \u200b\x00\t",
)  # fmt: skip

FIELDS: list[tuple[dict[str, Any], Reason | None]] = [
    *(({"withdrawal_method": blank}, Reason.FIELD_MISSING) for blank in BLANKS),
    ({"withdrawal_method": "\u00a0w\u200b"}, None),
    ({"source_batch_id": "\u00a0"}, Reason.FIELD_MISSING),
    ({"purposes": ("p:a", "p:b", "p", "\u200b")}, Reason.FIELD_MISSING),
    ({"pii_controllers": ("\u3164",)}, Reason.FIELD_MISSING),
    ({"pii_controllers": ("c", None)}, Reason.FIELD_MISSING),
    # Purposes that only look like the one asked for.
    *(
        ({"purposes": (purpose,)}, Reason.PURPOSE_NOT_GRANTED)
        for purpose in ("\u0440", "p\x00", "p\u200b", "p:a\x00", "\uff50", "P", "p,p:a,p:b", "\u0440:a")
    ),
    ({"jurisdiction": "US-IL", "last_interaction_at": NOW, "written_release_ref": "X"}, None),
    (
        {"jurisdiction": "US-IL", "last_interaction_at": NOW, "written_release_ref": "\ufeff"},
        Reason.REQUIREMENT_MISSING,
    ),
    ({"jurisdiction": "US-IL", "last_interaction_at": NOW, "written_release_ref": " "}, Reason.REQUIREMENT_MISSING),
    # What another jurisdiction asks for may be recorded anywhere, and means nothing.
    ({"authority_disclosed_at": NOW, "last_interaction_at": NOW - timedelta(days=9_000)}, None),
    ({"retention_period": "P30D"}, Reason.RETENTION_EXPIRED),
    ({"retention_period": "P31D"}, None),
    ({"expires_at": NOW}, Reason.RETENTION_EXPIRED),
    ({"expires_at": NOW + timedelta(seconds=1)}, None),
    ({"events": (replace(GIVEN, event_time=None),)}, Reason.EVENT_MISSING),
    ({"events": (replace(GIVEN, event_type=None),)}, Reason.EVENT_MISSING),
    ({"events": (GIVEN, replace(GIVEN, event_type=""))}, Reason.EVENT_MISSING),
    ({"events": (GIVEN, replace(GIVEN, event_type="\u2800\x00"))}, Reason.EVENT_MISSING),
    # A duration that runs backwards, and one in digits that are no ASCII.
    *(
        ({name: duration}, Reason.DURATION_INVALID)
        for name in ("retention_period",)
        for duration in ("-P1Y", "P-1Y", "P\u0661Y", "P1Y\x00", "P1000Y", "P1.5Y")
    ),
    *(
        ({"events": (replace(GIVEN, validity_duration=duration),)}, Reason.DURATION_INVALID)
        for duration in ("-P1Y", "P-1Y", "P\u0661Y", "P1Y\x00")
    ),
]
