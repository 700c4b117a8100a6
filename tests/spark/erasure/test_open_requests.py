"""A request that stays open for a while, for a hold suspends it, and what is given, assessed or lost meanwhile."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.erasure.closing import Closed, close, lost_records
from jobs.erasure.find import find
from jobs.erasure.kinds import EXPIRY, TARGETS, Target
from jobs.erasure.ledger import begin, write_down
from jobs.erasure.requests import (
    ask_again,
    asked_since,
    forget_items,
    pending,
    request,
    request_all,
    strike_off,
    unsettled,
)
from jobs.erasure.rows import destroy_rows, is_blind
from jobs.erasure.run import Outcome, erase_pending
from jobs.governance import audit
from jobs.governance.basis import BasisImported, import_basis, record_batch
from jobs.governance.basis_files import read_basis
from jobs.governance.changes import changed_since
from jobs.governance.gate import gate_warehouse
from jobs.governance.tombstones import CONTENT, EXPIRED, IMAGE, LEFT, LEFT_CONTENT, key_ring
from jobs.runs.history import holds_stage
from jobs.runs.results import FoundToErase
from jobs.schemas import (
    ALL_TABLES,
    AWAITED,
    BASIS_LINKS,
    BASIS_QUARANTINE,
    EMBEDDINGS,
    IMAGES,
    PROCESSING_BASIS,
    RUN_STEPS,
    TOMBSTONES,
)
from jobs.steps.erase import erase
from jobs.steps.load import load_steps
from jobs.steps.sync import sync_steps
from jobs.tables.control import CONTROL_TABLES
from jobs.tables.links import NOT_READ
from jobs.tables.store import materialise
from tests.spark.helpers import BATCH, NOW, job_for, rows
from tests.spark.indexed import SHARED, Indexed, image, opened, picture, principal, record_row, screened

pytestmark = pytest.mark.spark


@pytest.fixture
def made(indexed: Indexed, tmp_path: Path) -> Indexed:
    return indexed.copy_to(tmp_path / "w")


def ask(made: Indexed, *targets: Target) -> None:
    request(made.warehouse, targets, key_ring(made.settings), run_id="asked", now=datetime.now(UTC))


def pass_over(made: Indexed) -> set[tuple[Any, ...]]:
    """What a pass over the open requests does to the tables; returns what went, by kind and value."""
    return rows(destroyed(made, pending(made.warehouse))[1], "kind", "value")


def destroyed(made: Indexed, targets: DataFrame) -> tuple[DataFrame, DataFrame, bool]:
    """What was found, what of it went, and whether nothing could be found of people."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    found = find(warehouse, targets)
    items = write_down(warehouse, targets, found, ring, now=now)
    begin(warehouse, targets, found, ring, run_id="e", now=now)
    return found, items, is_blind(destroy_rows(warehouse, items))


def carried_out(made: Indexed) -> Closed:
    """A whole pass, and what became of the requests."""
    targets = materialise(pending(made.warehouse))
    found, items, blind = destroyed(made, targets)
    ring, now = key_ring(made.settings), datetime.now(UTC)
    return close(made.warehouse, targets, found, items, ring, blind=blind, run_id="e", now=now)


def image_rows(made: Indexed) -> set[tuple[object, ...]]:
    return rows(made.warehouse.read(IMAGES), "image_id")


def brought(made: Indexed, name: str, record_id: str, *, like: str) -> None:
    """A picture of this name under a record that is there or to come, with a face: the rows of another, copied."""

    def copied(frame: DataFrame) -> DataFrame:
        return frame.where(F.col("image_id") == like).withColumn("image_id", F.lit(name))

    warehouse = made.warehouse
    now = F.lit(datetime.now(UTC)).cast("timestamp")
    picture = copied(warehouse.read(IMAGES)).withColumns(
        {"content_sha256": F.sha2("image_id", 256), "ingested_at": now}
    )
    face = copied(warehouse.read(EMBEDDINGS)).withColumn("face_id", F.xxhash64("image_id"))
    warehouse.append(face.withColumn("basis_record_ids", F.array(F.lit(record_id))), EMBEDDINGS)
    warehouse.append(picture, IMAGES)
    link = made.spark.createDataFrame([(name, record_id, datetime.now(UTC), None)], BASIS_LINKS.columns)
    warehouse.append(link, BASIS_LINKS)


def consent(made: Indexed, record_id: str, person: int) -> None:
    """A version by which the person consents now."""
    events = [(datetime.now(UTC), "P5Y", "explicit_consent", "ConsentGiven")]
    row = record_row(record_id, person, events=events)
    made.warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)


@pytest.mark.faults
def test_guarantee_9_what_a_person_consents_to_since_is_not_taken_by_the_open_request(made: Indexed) -> None:
    """Though it stands under the id of a record that an earlier pass has destroyed, or in a picture that was held."""
    warehouse = made.warehouse
    # Of person 5 there is a record of their own, and one for person 6's picture, which a hold keeps.
    made.record(6, legal_hold_ref="case-1")
    consent(made, "h5", 5)
    link = made.spark.createDataFrame([(image(6), "h5", datetime.now(UTC), None)], BASIS_LINKS.columns)
    warehouse.append(link, BASIS_LINKS)
    ask(made, Target("subject", principal(5)))
    assert {("record", "r5"), ("image", image(5))} <= pass_over(made)
    consent(made, "r5", 5)
    brought(made, "new", "r5", like=image(7))
    went = pass_over(made)
    assert ("record", "r5") not in went
    assert {kind for kind, _ in went if kind in ("record", "image")} <= {"image"}
    # The hold ends, and the person consents to that picture as well.
    consent(made, "h5", 5)
    made.record(6)
    pass_over(made)
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") >= {("r5",), ("h5",)}
    assert rows(warehouse.read(BASIS_LINKS), "image_id", "record_id") >= {("new", "r5"), (image(6), "h5")}
    assert made.faces("image_id = 'new'")
    decided = gate_warehouse(warehouse, made.settings, now=datetime.now(UTC)).decisions
    assert rows(decided, "image_id", "reason") >= {("new", None), (image(6), None)}


def test_guarantee_6_what_comes_in_after_a_later_assessment_is_not_taken_by_the_open_request(made: Indexed) -> None:
    ask(made, Target("batch", "b2"))
    few = made.spark.createDataFrame([(image(4),), (image(5),)], "image_id string")

    def decided() -> set[tuple[object, ...]]:
        gated = gate_warehouse(made.warehouse, made.settings, now=datetime.now(UTC), only=few)
        return rows(gated.decisions, "image_id", "reason")

    # By the tombstone, though the table of batches tells of no revocation, as where it was lost and ingested again.
    assert decided() == {(image(4), "BATCH_REVOKED"), (image(5), None)}
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assessed = {**BATCH, "source_batch_id": "b2", "assessed_at": later}
    assert record_batch(made.warehouse, assessed, ring=key_ring(made.settings), now=datetime.now(UTC))
    assert decided() == {(image(4), None), (image(5), None)}
    row = record_row("n4", 4, source_batch_id="b2")
    made.warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    brought(made, "new", "n4", like=image(4))
    # A record that named the batch by mistake is another's now, and so is its picture.
    for batch in ("b2", "b1"):
        made.record(7, source_batch_id=batch)
    went = pass_over(made)
    assert {("record", "r4"), ("image", image(4))} <= went
    assert {value for kind, value in went if kind in ("record", "image")} == {"r4", image(4)}
    # Its record comes in again, under the id that the open request has written down.
    row = record_row("r4", 4, source_batch_id="b2")
    made.warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    brought(made, "again", "r4", like=image(7))
    assert not pass_over(made) & {("record", "r4"), ("image", "again")}
    assert made.faces("image_id = 'again'")


def test_guarantee_9_others_are_those_who_are_recorded_for_a_picture_as_it_is(made: Indexed) -> None:
    """A permission for former bytes keeps no picture of somebody who is erased; one that has lapsed does."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    content = {person: hashlib.sha256(picture(f"picture {person}")).hexdigest() for person in (2, 5, 6, 8)}
    links = [(image(5), "r7", "7" * 64), (image(6), "r7", "7" * 64), (image(6), "r7", content[6])]
    # Who waits for what an ingestion brings is not in what is there.
    links += [(image(8), "r9", content[8]), (image(2), "r7", AWAITED)]
    bound = [(name, record_id, now, bytes_) for name, record_id, bytes_ in links]
    warehouse.append(made.spark.createDataFrame(bound, BASIS_LINKS.columns), BASIS_LINKS)
    # Both people of picture 8 go: one asks for it, and of the other the consent has ended.
    due = made.spark.createDataFrame([("image", image(8)), ("expired", "r9")], "kind string, value string")
    assert request_all(warehouse, due, ring, kind=EXPIRY, run_id="x", now=now) == 2
    ask(made, *(Target("subject", principal(person)) for person in (2, 5, 6, 8)))
    went = pass_over(made)
    assert {(IMAGE, image(2)), (CONTENT, content[2])} <= went
    assert {(IMAGE, image(5)), (CONTENT, content[5]), ("shared", image(6)), (IMAGE, image(8))} <= went
    assert not went & {(IMAGE, image(6)), (CONTENT, content[6])}
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    assert {ring.digest(IMAGE, image(5)), ring.digest(EXPIRED, image(8))} <= stones
    assert not {ring.digest(IMAGE, image(8)), ring.digest(CONTENT, content[8])} & stones
    # By the id: also the permission for what was there before.
    of_7 = rows(warehouse.read(BASIS_LINKS).where("record_id = 'r7'"), "image_id")
    assert of_7 == {(image(6),), (image(7),)}


@pytest.mark.faults
def test_guarantee_9_no_persons_request_is_complete_while_nothing_leads_to_pictures(made: Indexed) -> None:
    """The table of links was removed: the faces go, and requests wait until the links are here again."""
    warehouse = made.warehouse
    links = warehouse.read(BASIS_LINKS).collect()
    warehouse.delta(BASIS_LINKS).delete()
    ask(made, *(Target("subject", principal(person)) for person in (5, 1)))
    assert carried_out(made) == (0, 0, 2, 0)
    mine = {(image(5),), (image(1),), (SHARED,)}
    # Nobody knows who else is in these; and the records are kept, by which they are found when the links are back.
    assert image_rows(made) >= mine
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") >= {("r5",), ("r1",), ("s1",)}
    assert made.faces_of(5) | made.faces_of(1) == set()
    assert len(made.faces(f"image_id = '{SHARED}'")) == 1
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    ring = key_ring(made.settings)
    assert ring.digest(LEFT, SHARED) in stones
    assert not {ring.digest(IMAGE, name) for (name,) in mine} & stones
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    assert carried_out(made) == (2, 0, 0, 0)
    assert image_rows(made) & mine == {(SHARED,)}


@pytest.mark.faults
def test_guarantee_9_a_picture_to_which_nothing_leads_but_a_face_waits_for_its_links(made: Indexed) -> None:
    """It may be others' as well. The face goes, and the request stays open, also when it is gone."""
    warehouse, ring = made.warehouse, key_ring(made.settings)
    links = warehouse.read(BASIS_LINKS).where(F.col("image_id") == image(5)).collect()
    warehouse.delta(BASIS_LINKS).delete(F.col("image_id") == image(5))
    ask(made, Target("subject", principal(5)))
    # In a pass of its own each: the second finds no face any more.
    assert [carried_out(made) for _ in range(2)] == [(0, 0, 1, 0)] * 2
    assert (image(5),) in image_rows(made)
    assert made.faces_of(5) == set()
    assert rows(lost_records(warehouse), "kind", "value") == {("image", image(5))}
    content = hashlib.sha256(picture("picture 5")).hexdigest()
    barred = {ring.digest(IMAGE, image(5)), ring.digest(CONTENT, content)}
    assert not barred & {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    assert carried_out(made) == (1, 0, 0, 0)
    assert (image(5),) not in image_rows(made)
    assert barred <= {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}


def test_guarantee_7_a_hold_by_a_new_record_suspends_what_is_still_open(made: Indexed, tmp_path: Path) -> None:
    """And none that is complete: then nothing is there that it could keep."""
    warehouse, ring = made.warehouse, key_ring(made.settings)

    def given(record_id: str, on_hold: str | None) -> BasisImported:
        line = {
            "record_id": record_id, "pii_principal_id": principal(3), "source_batch_id": "b1",
            "images": [image(3)], "legal_hold_ref": on_hold,
        }  # fmt: skip
        (tmp_path / "hold.jsonl").write_text(json.dumps(line))
        file = read_basis(made.spark, str(tmp_path / "hold.jsonl"), None)
        return import_basis(warehouse, file, lambda key: key, ring=ring, now=datetime.now(UTC))

    ask(made, Target("subject", principal(3)))
    assert given("h3", "case-1").new_versions == 1
    assert carried_out(made) == (0, 1, 0, 0)
    assert (image(3),) in image_rows(made)
    assert given("h3", None).new_versions == 1
    assert carried_out(made) == (1, 0, 0, 0)
    assert (image(3),) not in image_rows(made)
    assert forget_items(warehouse)
    done = given("another", "case-2")
    assert (done.new_versions, done.barred) == (0, 1)


def test_guarantee_7_a_line_that_could_not_be_read_may_be_a_hold_and_suspends_what_one_would(made: Indexed) -> None:
    """Of what it names: by person, by name and in a shared picture; until a version of the record is read again."""
    warehouse = made.warehouse
    unread = [(record, "hold.csv", "DATE_REWRITTEN", "d", datetime.now(UTC)) for record in ("r3", "r7")]
    warehouse.append(made.spark.createDataFrame(unread, BASIS_QUARANTINE.columns), BASIS_QUARANTINE)
    faces = made.faces_of(3), made.faces_of(7)
    assert all(faces)
    ask(made, Target("subject", principal(3)), Target("image", image(7)), Target("subject", principal(5)))
    assert carried_out(made) == (1, 0, 2, 0)
    assert image_rows(made) & {(image(3),), (image(5),), (image(7),)} == {(image(3),), (image(7),)}
    assert (made.faces_of(3), made.faces_of(7)) == faces
    made.record(3)
    made.record(7)
    assert carried_out(made) == (2, 0, 0, 0)
    assert not image_rows(made) & {(image(3),), (image(7),)}


@pytest.mark.faults
def test_guarantee_7_while_nobody_can_tell_what_is_on_hold_nothing_goes_by_name_or_batch(made: Indexed) -> None:
    """All links are gone, then one record is; who asked waits until they are here again."""
    warehouse = made.warehouse
    made.record(5, legal_hold_ref="case-1")
    links = warehouse.read(BASIS_LINKS).collect()
    warehouse.delta(BASIS_LINKS).delete()
    ask(made, Target("image", image(5)), Target("batch", "b2"))
    # The hold on one picture is told by the record that its face stands under; of the batch nobody can tell.
    assert carried_out(made) == (0, 1, 1, 0)
    assert image_rows(made) >= {(image(4),), (image(5),)}
    assert made.faces_of(4)
    assert made.faces_of(5)
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    warehouse.delta(PROCESSING_BASIS).delete("record_id = 'r7'")
    ask(made, Target("image", image(7)))
    # The batch goes, a hold is on one picture, and may be on another.
    assert carried_out(made) == (1, 1, 1, 0)
    assert image_rows(made) & {(image(4),), (image(5),), (image(7),)} == {(image(5),), (image(7),)}
    made.record(7)
    assert carried_out(made) == (1, 1, 0, 0)
    assert (image(7),) not in image_rows(made)


def test_guarantee_7_an_expiry_that_is_taken_back_has_left_no_tombstone(made: Indexed) -> None:
    """Else a picture of two people who have consented anew is refused. From where it begins it goes on to its end."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    due = made.spark.createDataFrame([("image", SHARED)], "kind string, value string")

    def stones() -> set[str]:
        return {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}

    def found_due(run_id: str) -> tuple[DataFrame, DataFrame]:
        request_all(warehouse, due, ring, kind=EXPIRY, run_id=run_id, now=now)
        targets = materialise(pending(warehouse))
        found = find(warehouse, targets)
        write_down(warehouse, targets, found, ring, now=now)
        return targets, found

    found_due("x")
    assert stones() == set()
    strike_off(warehouse, run_id="y", now=now)
    assert pending(warehouse).isEmpty()
    targets, found = found_due("y")
    begin(warehouse, targets, found, ring, run_id="y", now=now)
    content = hashlib.sha256(picture("shared")).hexdigest()
    barred = {(EXPIRED, SHARED), (LEFT, SHARED), (LEFT_CONTENT, content)}
    assert stones() == {ring.digest(kind, value) for kind, value in barred}
    # Cut off right there, it is carried out by the next one.
    strike_off(warehouse, run_id="z", now=now)
    assert carried_out(made) == (1, 0, 0, 0)
    assert (SHARED,) not in image_rows(made)


def test_guarantee_9_by_its_bytes_goes_what_the_erased_persons_own_records_are_for(made: Indexed) -> None:
    """Pictures were overwritten, or their rows are missing, and people are recorded for different bytes of them."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    content = {person: hashlib.sha256(picture(f"picture {person}")).hexdigest() for person in (5, 6, 8, 10)}
    former = {person: f"{person:x}" * 64 for person in (5, 6, 9, 10)}
    links = [
        # Person 5's picture holds what somebody has brought without a record, person 6's is person 7's now.
        (5, "r5", former[5]),
        (6, "r6", former[6]),
        (6, "r7", content[6]),
        # The row is missing for a moment: one of the two was in the former bytes, the other is in the present ones.
        (8, "r8", content[8]),
        (8, "r9", former[9]),
        # Two were in the former bytes, and one is in the present ones.
        (10, "r10", content[10]),
        (10, "r10", former[10]),
        (10, "r9", former[10]),
    ]
    bound = [(image(person), record_id, now, bytes_) for person, record_id, bytes_ in links]
    warehouse.append(made.spark.createDataFrame(bound, BASIS_LINKS.columns), BASIS_LINKS)
    warehouse.delta(IMAGES).delete(F.col("image_id") == image(8))
    ask(made, *(Target("subject", principal(person)) for person in (5, 6, 8, 10)))
    went = {(kind, value) for kind, value in pass_over(made) if kind in (IMAGE, CONTENT, "shared", LEFT, LEFT_CONTENT)}
    assert went == {
        (IMAGE, image(5)), (CONTENT, former[5]),
        ("shared", image(6)), (CONTENT, former[6]),
        ("shared", image(8)), (CONTENT, content[8]), (LEFT, image(8)),
        (IMAGE, image(10)), (CONTENT, content[10]), (LEFT_CONTENT, former[10]),
    }  # fmt: skip
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    assert stones >= {ring.digest(kind, value) for kind, value in went if kind != "shared"}
    assert not {ring.digest(CONTENT, content[person]) for person in (5, 6)} & stones
    assert image_rows(made) & {(image(5),), (image(6),), (image(10),)} == {(image(6),)}


def test_guarantee_13_no_picture_of_whoever_is_lost_is_barred_by_anothers_erasure(made: Indexed) -> None:
    """Their record was given up in the same pass: the picture goes, and comes in again under a permission since."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    warehouse.delta(PROCESSING_BASIS).delete("record_id = 's2'")
    request_all(warehouse, lost_records(warehouse), ring, kind=EXPIRY, run_id="x", now=now)
    ask(made, Target("subject", principal(1)))
    assert (IMAGE, SHARED) in pass_over(made)
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    content = hashlib.sha256(picture("shared")).hexdigest()
    assert {ring.digest(EXPIRED, SHARED), ring.digest(LEFT, SHARED)} <= stones
    assert not {ring.digest(IMAGE, SHARED), ring.digest(CONTENT, content)} & stones


def test_guarantee_9_with_lost_records_go_pictures_that_are_nobody_elses_any_more(made: Indexed) -> None:
    """Somebody else is linked to what stood under the id before, or to what stands there now."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    content = {person: hashlib.sha256(picture(f"picture {person}")).hexdigest() for person in (5, 6)}
    links = [(image(5), "r7", now, "7" * 64), (image(6), "r7", now, "7" * 64), (image(6), "r7", now, content[6])]
    links += [(image(person), f"r{person}", now, content[person]) for person in (5, 6)]
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    warehouse.delta(PROCESSING_BASIS).delete("record_id IN ('r5', 'r6')")
    request_all(warehouse, lost_records(warehouse), ring, kind=EXPIRY, run_id="x", now=now)
    assert {item for item in pass_over(made) if item[0] in (IMAGE, "shared")} == {
        (IMAGE, image(5)), ("shared", image(6))
    }  # fmt: skip


@pytest.mark.faults
def test_guarantee_7_a_hold_of_the_very_bytes_suspends_no_erasure_that_takes_none(made: Indexed) -> None:
    """Of a shared picture that stays its hash is noted at once; what could not be read is the same for many."""
    warehouse, ring = made.warehouse, key_ring(made.settings)
    made.record(9, legal_hold_ref="case-1")
    copy = warehouse.read(IMAGES).where(F.col("image_id") == SHARED).withColumn("image_id", F.lit("held"))
    warehouse.append(copy, IMAGES)
    link = made.spark.createDataFrame([("held", "r9", datetime.now(UTC), None)], BASIS_LINKS.columns)
    warehouse.append(link, BASIS_LINKS)
    unread = F.lit(f"{NOT_READ}EMPTY")
    warehouse.delta(IMAGES).update(F.col("image_id").isin(image(5), image(9)), {"content_sha256": unread})
    ask(made, *(Target("subject", principal(person)) for person in (5, 1)))
    assert carried_out(made) == (2, 0, 0, 0)
    assert image_rows(made) >= {(SHARED,), ("held",), (image(9),)}
    content = hashlib.sha256(picture("shared")).hexdigest()
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    assert ring.digest(LEFT_CONTENT, content) in stones


def test_guarantee_9_a_picture_stays_for_somebody_whose_record_is_lost(made: Indexed) -> None:
    """As after a restore of the table of records; the record comes in again, for a link waits for it."""
    made.warehouse.delta(PROCESSING_BASIS).delete("record_id = 's2'")
    ask(made, Target("subject", principal(1)))
    went = pass_over(made)
    assert ("shared", SHARED) in went
    assert ("image", SHARED) not in went


@pytest.mark.faults
def test_guarantee_13_bytes_are_barred_of_which_only_the_links_tell(made: Indexed) -> None:
    """The rows of two pictures are missing for a moment: one that goes, and one that somebody else stays in."""
    warehouse, ring, now = made.warehouse, key_ring(made.settings), datetime.now(UTC)
    links = [(image(5), "r5", now, "5" * 64), (SHARED, "s1", now, "1" * 64)]
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    warehouse.delta(IMAGES).delete(f"image_id IN ('{image(5)}', '{SHARED}')")
    ask(made, *(Target("subject", principal(person)) for person in (5, 1)))
    went = pass_over(made)
    assert {(CONTENT, "5" * 64), (LEFT_CONTENT, "1" * 64), (IMAGE, image(5)), (LEFT, SHARED)} <= went
    stones = {digest for (digest,) in rows(warehouse.read(TOMBSTONES), "digest")}
    assert {ring.digest(CONTENT, "5" * 64), ring.digest(LEFT_CONTENT, "1" * 64)} <= stones


def test_guarantee_9_permissions_for_the_very_bytes_stay_where_an_image_has_them(made: Indexed) -> None:
    """What expires bars no bytes, so it takes nobody else's permission for them; an erasure takes what is loose.

    And the faces that were computed from these bytes, of pictures that hold others now.
    """
    warehouse, now = made.warehouse, datetime.now(UTC)
    content, own = (hashlib.sha256(picture(f"picture {person}")).hexdigest() for person in (5, 10))
    # Two images more have the bytes of person 5's, two had them before, and one is missing for a moment.
    for name in ("same", "too"):
        copy = warehouse.read(IMAGES).where(F.col("image_id") == image(5)).withColumn("image_id", F.lit(name))
        warehouse.append(copy, IMAGES)
    others = {("same", "r7"), ("too", "r8"), (image(6), "r6"), (image(10), "r10"), ("missing", "r9")}
    links = [(name, record_id, now, content) for name, record_id in others]
    # Of one of these two the record is for what is there now as well.
    links.append((image(10), "r10", now, own))
    # What has expired goes by a pass that is not closed here, and so twice.
    faces = {("face", str(face)) for person in (5, 6) for face in made.faces_of(person)}
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)

    def bound() -> set[tuple[object, ...]]:
        return rows(warehouse.read(BASIS_LINKS).where(F.col("content_sha256") == content), "image_id", "record_id")

    ring = key_ring(made.settings)
    due = made.spark.createDataFrame([("image", image(5))], "kind string, value string")
    assert request_all(warehouse, due, ring, kind=EXPIRY, run_id="x", now=now) == 1
    pass_over(made)
    assert bound() == others
    ask(made, Target("image", "same"))
    went = pass_over(made)
    assert ("link", content) in went
    assert {item for item in went if item[0] == "face"} == faces != set()
    assert bound() == {("too", "r8")}
    assert (made.faces_of(6), len(made.faces_of(10))) == (set(), 1)


def test_guarantee_11_what_is_asked_for_while_a_pass_works_is_left_to_the_next(
    made: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks needs no lease, and what was consented to, and by which names, that pass did not look for."""
    warehouse, ring = made.warehouse, key_ring(made.settings)
    people = [Target("subject", principal(person)) for person in (5, 6, 8)]
    ask(made, *people)
    consent(made, "n5", 5)
    brought(made, "new", "n5", like=image(7))
    targets = materialise(pending(warehouse))
    found = find(warehouse, targets)
    # Who came back asks again, and of another it turns out that they had one more pseudonym.
    ask(made, people[0], Target("subject", principal(6), (principal(9),)))
    items = write_down(warehouse, targets, found, ring, now=datetime.now(UTC))
    destroy_rows(warehouse, items)
    assert image_rows(made) >= {("new",), (image(9),)}

    def closed_by(run_id: str) -> Closed:
        now = datetime.now(UTC)
        return close(warehouse, targets, found, items, ring, blind=False, run_id=run_id, now=now)

    assert closed_by("e1") == (1, 0, 0, 2)
    went = pass_over(made)
    assert {("image", "new"), ("image", image(9))} <= went
    assert image_rows(made) & {("new",), (image(9),)} == set()
    # The pass ends between the look at what is open and the tombstone: then the request is one of its own.
    targets = materialise(pending(warehouse))

    def meanwhile(*_: object) -> dict[str, datetime]:
        monkeypatch.undo()
        assert closed_by("e2").completed == 2
        return {}

    monkeypatch.setattr("jobs.erasure.requests._last_said", meanwhile)
    later = datetime.now(UTC) + timedelta(minutes=1)
    (second,) = request(warehouse, people[:1], ring, run_id="asked", now=later)
    assert (second,) not in rows(targets, "request_id")
    assert rows(pending(warehouse), "request_id", "value") == {(second, principal(5))}
    forget_items(warehouse)
    # Or they ask between its last look and its end, and are told that the request is open.
    targets, look = materialise(pending(warehouse)), asked_since
    more = Target("subject", principal(5), (principal(7),))

    def unseen(*of: Any) -> DataFrame:
        seen = materialise(look(*of))
        monkeypatch.undo()
        assert request(warehouse, [more], ring, run_id="asked", now=later) == [second]
        return seen

    monkeypatch.setattr("jobs.erasure.closing.asked_since", unseen)
    assert closed_by("e3") == (1, 0, 0, 0)
    over = materialise(unsettled(warehouse))
    # Also where that is cut off and done once more.
    for _ in range(2):
        assert ask_again(warehouse, over, 4, run_id="e3", now=later) == 1
    forget_items(warehouse)
    anew = {(f"{second}-again", name, 3) for name in more.values}
    assert rows(pending(warehouse), "request_id", "value", "asked") == anew


@pytest.mark.faults
def test_guarantee_11_a_pass_that_was_asked_again_unseen_says_so_and_leaves_that_to_the_next(
    made: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on record how often it was asked for when it was closed; of that the receipt says nothing."""
    person, look = Target("subject", principal(5)), asked_since

    def unseen(*of: Any) -> DataFrame:
        seen = materialise(look(*of))
        monkeypatch.undo()
        ask(made, person)
        return seen

    monkeypatch.setattr("jobs.erasure.closing.asked_since", unseen)
    done = erase(job_for(made.spark, made.settings), {person: ["--subject"]})
    assert done.exit_code == 5
    assert "1 request complete: 1 image, 1 face, 1 record erased; 1 were asked for again" in done.message
    (receipt,) = done.data["receipts"]
    assert receipt["erased"] == {"images": 1, "faces": 1, "records": 1, "shared_images": 0}
    waiting = rows(pending(made.warehouse), "request_id", "value", "asked")
    assert waiting == {(f"{receipt['request_id']}-again", principal(5), 2)}


def test_guarantee_9_no_persons_request_is_complete_while_a_record_is_lost_that_was_there(made: Indexed) -> None:
    """It may be theirs: nothing else leads to its picture, and once they are barred it is not stored again."""
    ask(made, Target("subject", principal(8)), Target("image", image(7)))
    brought(made, "more", "m5", like=image(7))
    ask(made, Target("subject", principal(5)))
    # That of another was asked for before, and an image needs no record.
    assert carried_out(made) == (2, 0, 1, 0)
    assert image_rows(made) & {(image(5),), (image(7),), (image(8),), ("more",)} == {("more",)}
    # It comes in again, for its link waits.
    row = record_row("m5", 5)
    made.warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    assert carried_out(made) == (1, 0, 0, 0)
    assert ("more",) not in image_rows(made)
    assert not made.faces("image_id = 'more'")


def test_guarantee_11_a_night_sees_an_erasure_that_counts_from_a_date_ahead(made: Indexed) -> None:
    """What it lacks is then left for the next night; else all of it would count as not proven."""
    ahead = datetime.now(UTC) + timedelta(days=3650)
    made.record(5, events=[(ahead, "P5Y", "explicit_consent", "ConsentGiven")])
    night = datetime.now(UTC)
    assert not changed_since(made.warehouse, night)
    ask(made, Target("subject", principal(5)))
    assert changed_since(made.warehouse, night)
    # Asked for once more while it is open.
    night = datetime.now(UTC)
    ask(made, Target("subject", principal(5)))
    assert not changed_since(made.warehouse, night)
    audit.append(made.warehouse, "erasure-requested", "asked", {}, now=datetime.now(UTC))
    assert changed_since(made.warehouse, night)


def erasing_steps(made: Indexed, run_id: str) -> set[str]:
    """What a run has done of an erasure: `erase-…`."""
    steps = made.warehouse.read(RUN_STEPS).where((F.col("run_id") == run_id) & F.col("step").startswith("erase-"))
    return {step for (step,) in rows(steps, "step")}


def carried_out_by(made: Indexed, run_id: str) -> tuple[Outcome, set[str]]:
    """As a run carries out what is open; its steps of an erasure."""
    with opened(made, "erase", run_id) as (run, index):
        outcome = erase_pending(run, index)
    return outcome, erasing_steps(made, run_id)


def test_guarantee_7_no_pass_is_made_for_what_waits_until_the_hold_ends(made: Indexed) -> None:
    """Each would drop what an unfinished night has loaded; that a request waits is said each time."""
    warehouse = made.warehouse
    made.record(3, legal_hold_ref="case-1")
    ask(made, Target("subject", principal(3)))

    def synced(run_id: str) -> str:
        with opened(made, "sync", run_id) as (run, index):
            return sync_steps(run, index)

    on_hold = "; 1 request suspended by a legal hold"
    assert on_hold in synced("s1")
    assert {"erase-tables", "erase-waits"} <= erasing_steps(made, "s1")
    with opened(made, "reindex", "night-2") as (run, index):
        screened(run)
        load_steps(run, index)
    tables = [spec for spec in ALL_TABLES if spec not in CONTROL_TABLES]
    before = warehouse.versions(tables)
    assert on_hold in synced("s2")
    assert erasing_steps(made, "s2") == set()
    assert warehouse.versions(tables) == before
    assert holds_stage(warehouse, "night-2")
    assert len(made.keys_of("faces_night_2")) == len(made.live_keys())
    assert made.faces_of(3)
    made.record(3)
    assert "requests" not in synced("s3")
    assert (image(3),) not in image_rows(made)
    assert not made.faces_of(3)
    assert pending(warehouse).isEmpty()


@pytest.mark.faults
def test_guarantee_9_what_comes_while_a_request_waits_is_looked_at_and_goes(made: Indexed) -> None:
    warehouse = made.warehouse
    made.record(3, legal_hold_ref="case-1")
    ask(made, Target("subject", principal(3)))
    assert "erase-waits" in carried_out_by(made, "e1")[1]
    # A picture more that is on hold: it is looked at, and nothing can be done.
    brought(made, "held", "r3", like=image(7))
    outcome, steps = carried_out_by(made, "e2")
    assert (outcome.suspended, steps) == (1, {"erase-waits"})
    # One that is not goes, and so does a row of it that came back.
    row = record_row("n3", 3)
    warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    brought(made, "free", "n3", like=image(7))
    face = warehouse.read(EMBEDDINGS).where("image_id = 'free'").collect()
    assert "erase-tables" in carried_out_by(made, "e3")[1]
    assert image_rows(made) & {("held",), ("free",)} == {("held",)}
    warehouse.append(made.spark.createDataFrame(face, EMBEDDINGS.columns), EMBEDDINGS)
    carried_out_by(made, "e4")
    assert not made.faces("image_id = 'free'")
    # Another person's request.
    ask(made, Target("subject", principal(5)))
    outcome, _ = carried_out_by(made, "e5")
    assert (outcome.completed, outcome.suspended) == (1, 1)
    assert image_rows(made) & {("held",), (image(3),), (image(5),)} == {("held",), (image(3),)}


@pytest.mark.faults
def test_guarantee_12_behind_a_pass_that_was_cut_off_comes_another_though_requests_wait(made: Indexed) -> None:
    """It may have left files as they were. And whoever waits for a record that is lost does so without a pass."""
    ask(made, Target("subject", principal(5)))
    brought(made, "more", "m5", like=image(7))
    ask(made, Target("subject", principal(5)))
    outcome, steps = carried_out_by(made, "e1")
    assert (outcome.completed, outcome.unknown) == (0, 1)
    assert {"erase-tables", "erase-waits"} <= steps
    outcome, steps = carried_out_by(made, "e2")
    assert (outcome.unknown, steps) == (1, set())
    with opened(made, "erase", "cut-off") as (run, _):
        run.record(FoundToErase(items={}))
    assert "erase-purge" in carried_out_by(made, "e3")[1]
    row = record_row("m5", 5)
    made.warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    outcome, _ = carried_out_by(made, "e4")
    assert (outcome.completed, outcome.unknown) == (1, 0)
    assert ("more",) not in image_rows(made)


def test_what_tells_a_commit_from_others_is_not_its_version_alone(made: Indexed) -> None:
    """As where a table is restored from a copy, and written once more."""
    folder, copy = Path(made.settings.warehouse) / RUN_STEPS.name, made.folder / "copy"
    shutil.copytree(folder, copy)
    told, versions = [], []
    for _ in range(2):
        made.warehouse.append([("n1", "stage", "done", NOW, NOW, 0.0, "{}", 1)], RUN_STEPS)
        told.append(made.warehouse.last_commits([RUN_STEPS]))
        assert made.warehouse.last_commits([RUN_STEPS]) == told[-1]
        versions.append(made.warehouse.version(RUN_STEPS))
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    assert versions[0] == versions[1]
    assert told[0] != told[1]


def test_guarantee_13_what_a_request_that_waits_has_barred_is_barred_by_the_next_as_well(made: Indexed) -> None:
    """A sweep goes by requests that are complete: the first one's tombstone alone would let copies stay."""
    warehouse, ring, now, content = made.warehouse, key_ring(made.settings), datetime.now(UTC), "5" * 64
    stone = (CONTENT, ring.current, ring.digest(CONTENT, content), "er-waits", now)
    warehouse.append(made.spark.createDataFrame([stone], TOMBSTONES.columns), TOMBSTONES)
    targets = made.spark.createDataFrame([("er-next", "subject", principal(5), 1, now)], TARGETS)
    item = [("er-next", CONTENT, content, image(5), False, False)]
    columns = "request_id string, kind string, value string, image_id string, on_hold boolean, unknown boolean"
    for _ in range(2):
        write_down(warehouse, targets, made.spark.createDataFrame(item, columns), ring, now=now)
    barred = warehouse.read(TOMBSTONES).where(F.col("digest") == stone[2])
    assert sorted(row["request_id"] for row in barred.collect()) == ["er-next", "er-waits"]
