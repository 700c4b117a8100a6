"""How an image ends: texts that stand in tables, in records of runs and in reports."""

from __future__ import annotations

import json

import pytest

from udfs.results import STATUSES
from udfs.statuses import Status

pytestmark = pytest.mark.unit


def test_statuses_are_the_texts_that_stand_in_tables() -> None:
    assert STATUSES == ("embedded", "no_face", "broken", "too_large", "unreadable", "uncovered_faces")


def test_a_status_is_its_text_as_a_key_in_json_and_in_words() -> None:
    recorded = json.loads(json.dumps({Status.EMBEDDED: 2}))
    assert recorded == {"embedded": 2}
    assert recorded[Status.EMBEDDED] == 2
    assert f"{Status.NO_FACE}: NO_FACE" == "no_face: NO_FACE"
