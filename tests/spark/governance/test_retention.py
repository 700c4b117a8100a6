"""What has reached its end is due, whoever else a picture was recorded for; and once it is destroyed nothing is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from jobs.embedding.faces import remove_unpermitted_faces
from jobs.erasure.find import find
from jobs.erasure.kinds import Target
from jobs.erasure.requests import pending, request
from jobs.errors import DependencyUnavailable, GovernanceError
from jobs.governance import retention
from jobs.governance.gate import gate_warehouse
from jobs.governance.tombstones import key_ring
from jobs.schemas import (
    BASIS_LINKS,
    BASIS_QUARANTINE,
    EMBEDDINGS,
    ERASURE_REQUESTS,
    IMAGES,
    PROCESSING_BASIS,
    REMOVED_FACES,
    SOURCE_BATCHES,
)
from jobs.steps.expire import expire_steps
from tests.spark.helpers import rows
from tests.spark.indexed import LONG_AGO, SHARED, Indexed, image, opened, principal, record_row

pytestmark = pytest.mark.spark

#: Of the shared picture's first person.
BOX = [0.0, 0.0, 40.0, 40.0]


@pytest.fixture
def made(indexed: Indexed, tmp_path: Path) -> Indexed:
    return indexed.copy_to(tmp_path / "w")


def withdrawn(record_id: str, person: int, **changes: Any) -> tuple[Any, ...]:
    """A version of a record by which its person has withdrawn."""
    events = [(datetime.now(UTC), None, "t", "ConsentWithdrawn"), (LONG_AGO, "P5Y", "t", "ConsentGiven")]
    return record_row(record_id, person, events=events, **changes)


def recorded(made: Indexed, records: list[tuple[Any, ...]], links: list[tuple[str, str, str | None]]) -> None:
    """Versions of records, and links (image, record, content)."""
    bound = [(name, record_id, datetime.now(UTC), content) for name, record_id, content in links]
    for spec, new in ((PROCESSING_BASIS, records), (BASIS_LINKS, bound)):
        if new:
            made.warehouse.append(made.spark.createDataFrame(new, spec.columns), spec)


def due(made: Indexed) -> set[tuple[Any, ...]]:
    now = datetime.now(UTC)
    gated = gate_warehouse(made.warehouse, made.settings, now=now, to_destroy=True)
    return rows(retention.due(made.warehouse, made.settings, gated, now=now), "kind", "value")


def test_guarantee_7_who_has_ended_is_due_whoever_else_is_recorded(made: Indexed) -> None:
    warehouse, now = made.warehouse, datetime.now(UTC)
    records = [
        withdrawn("s1", 1, face_box=BOX),
        withdrawn("r3", 3), record_row("held", 0, legal_hold_ref="case-1"),
        withdrawn("r2", 2), withdrawn("r5", 5), withdrawn("r6", 6), withdrawn("r8", 8),
        # Refused for their form, for their law, and because nobody can tell what they say.
        withdrawn("r9", 9, impact_assessment=None),
        record_row("r11", 11, jurisdiction="XX", expires_at=now),
        withdrawn("r10", 10, schema_version="1.1"),
    ]  # fmt: skip
    # Person 7 was recorded for what stood under picture 5's id before, and is in picture 6.
    links = [(image(5), "r7", "7" * 64), (image(6), "r7", None), (image(3), "held", None)]
    # Who these are of is lost; one of them is of a revoked batch.
    links += [(image(8), "lost", None), (image(4), "lost", None)]
    recorded(made, records, links)
    revoked = [("b2", "s", "uploaded_by_subject", "a", now, "revoked", now)]
    warehouse.append(made.spark.createDataFrame(revoked, SOURCE_BATCHES.columns), SOURCE_BATCHES)
    # And who else is in a picture of which no link is left: the face goes all the same.
    warehouse.delta(BASIS_LINKS).delete(F.col("image_id") == image(2))
    whole = {("image", image(person)) for person in (5, 9, 11)}
    partly = {("expired", record_id) for record_id in ("s1", "r2", "r6", "r8")}
    assert due(made) == whole | partly
    # A night has deleted the rows of what is refused: what collections and files hold is no less due.
    remove_unpermitted_faces(warehouse, gate_warehouse(warehouse, made.settings, now=datetime.now(UTC)), now=now)
    assert due(made) == whole | partly
    # Nor is anything where no face is left.
    warehouse.delta(REMOVED_FACES).delete()
    assert due(made) == whole


def test_guarantee_7_nothing_is_due_while_nobody_can_tell_what_is_held(made: Indexed) -> None:
    """The table of links, or of records, was removed, and the next job has created an empty one."""
    warehouse, now = made.warehouse, datetime.now(UTC)
    revoked = [("b2", "s", "uploaded_by_subject", "a", now, "revoked", now)]
    warehouse.append(made.spark.createDataFrame(revoked, SOURCE_BATCHES.columns), SOURCE_BATCHES)
    recorded(made, [withdrawn("s1", 1, face_box=BOX)], [])
    assert due(made) == {("image", image(4)), ("expired", "s1")}
    # Nor of a picture one of whose records has a newer line that could not be read: a hold may be in it.
    for record, left in (("r4", {("expired", "s1")}), ("s2", set())):
        unread = [(record, "hold.csv", "DATE_REWRITTEN", "d", now)]
        warehouse.append(made.spark.createDataFrame(unread, BASIS_QUARANTINE.columns), BASIS_QUARANTINE)
        assert due(made) == left
    warehouse.delta(BASIS_QUARANTINE).delete()
    warehouse.delta(BASIS_LINKS).delete()
    assert due(made) == set()
    faces = made.faces()
    with pytest.raises(GovernanceError, match="no face was deleted"):
        remove_unpermitted_faces(warehouse, gate_warehouse(warehouse, made.settings, now=now), now=now)
    assert made.faces() == faces != set()
    recorded(made, [], [(image(5), "r5", None)])
    assert ("image", image(4)) in due(made)
    warehouse.delta(PROCESSING_BASIS).delete()
    assert due(made) == set()


def test_guarantee_7_a_face_tells_of_somebody_whose_link_is_lost(made: Indexed) -> None:
    """Of two people of a picture one has withdrawn, and only a face tells that the other is in it, or is on hold."""
    warehouse, now = made.warehouse, datetime.now(UTC)
    recorded(made, [withdrawn("s1", 1, face_box=BOX)], [])
    warehouse.delta(BASIS_LINKS).delete("record_id = 's2'")
    assert due(made) == {("expired", "s1")}
    recorded(made, [record_row("s2", 2, legal_hold_ref="case-1")], [])
    assert due(made) == set()
    target = Target("subject", principal(1))
    request(warehouse, [target], key_ring(made.settings), run_id="asked", now=now)
    held = rows(find(warehouse, pending(warehouse)).where("on_hold"), "kind", "value")
    faces = {("face", str(face)) for face in made.faces(f"image_id = '{SHARED}'")}
    assert held >= {("record", "s1"), ("shared", SHARED)}
    assert len(held & faces) == 1
    # A night that finds the picture without its link takes no face of it either; but what else the first one has.
    there = made.faces(f"image_id = '{SHARED}'")
    assert remove_unpermitted_faces(warehouse, gate_warehouse(warehouse, made.settings, now=now), now=now) == 1
    assert made.faces(f"image_id = '{SHARED}'") == there
    # Without any nobody knows. (What else the first one has is asked for, and so it has ended, too.)
    warehouse.delta(EMBEDDINGS).delete(F.col("image_id") == SHARED)
    assert due(made) == {("image", SHARED), ("image", image(1))}


@pytest.mark.faults
def test_guarantee_7_what_has_ended_is_destroyed_once(made: Indexed) -> None:
    """In pictures that stay, and of one that was somebody else's before; then no run asks for it again."""
    records = [withdrawn("s1", 1, face_box=BOX), *(withdrawn(f"r{person}", person) for person in (5, 6, 9))]
    recorded(made, records, [(image(5), "r7", "7" * 64), (image(6), "r7", None)])
    # Nobody can tell who else is in a picture without a link, so it stays.
    made.warehouse.delta(BASIS_LINKS).delete(F.col("image_id") == image(9))
    under = "exists(basis_record_ids, r -> r IN ('s1', 'r5', 'r6', 'r9'))"
    there, live, gone = rows(made.warehouse.read(IMAGES), "image_id"), made.live_keys(), made.faces(under)
    assert len(gone) == 4
    with opened(made, "expire", "x1") as (run, index):
        assert expire_steps(run, index, sweep=True).completed == 1
    assert rows(made.warehouse.read(IMAGES), "image_id") == there - {(image(5),)}
    assert made.faces(under) == set()
    assert made.live_keys() == live - gone
    assert len(made.faces(f"image_id = '{SHARED}'")) == 1
    assert made.warehouse.read(REMOVED_FACES).count() == 0
    assert rows(made.warehouse.read(BASIS_LINKS).where(F.col("image_id") == image(5)), "record_id") == set()
    with opened(made, "expire", "x2") as (run, index):
        assert expire_steps(run, index, sweep=True).completed == 0
    assert made.warehouse.read(ERASURE_REQUESTS).count() == 1


@pytest.mark.faults
def test_guarantee_12_who_has_ended_is_due_until_a_pass_begins_that_purges_the_files(made: Indexed) -> None:
    """A night has deleted the rows of the faces, and the first pass is cut off behind its look at the collections.

    What is known of a face is not forgotten where it alone tells whose a picture is, for a link is lost.
    """
    warehouse, now = made.warehouse, datetime.now(UTC)
    recorded(made, [withdrawn("s1", 1, face_box=BOX)], [])
    warehouse.delta(BASIS_LINKS).delete("record_id = 'r9'")
    assert remove_unpermitted_faces(warehouse, gate_warehouse(warehouse, made.settings, now=now), now=now) == 3
    with pytest.MonkeyPatch.context() as patched, opened(made, "expire", "x1") as (run, index):
        patched.setattr("jobs.erasure.run.begin", _cut_off)
        with pytest.raises(DependencyUnavailable):
            expire_steps(run, index, sweep=False)
    assert due(made) == {("expired", "s1")}
    with opened(made, "expire", "x2") as (run, index):
        assert expire_steps(run, index, sweep=False).completed == 1
    assert rows(warehouse.read(REMOVED_FACES), "image_id") == {(image(9),)}
    assert due(made) == set()


def _cut_off(*_: object, **__: object) -> None:
    raise DependencyUnavailable("out of reach")
