"""Erasure in every store: what goes, what stays, that it is physically gone, and that it does not come back.

One pass over one warehouse, of a person, a shared picture, an image, a batch and a held person, is made once; most
tests look at what it did.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.embedding.faces import remove_unpermitted_faces
from jobs.erasure.byte_scan import UNREADABLE, places_of, scan
from jobs.erasure.kinds import Target
from jobs.erasure.parquet_columns import COLUMNS
from jobs.erasure.purging import vacuum_due
from jobs.erasure.receipts import receipts
from jobs.erasure.requests import pending, request
from jobs.erasure.run import Outcome, erase_pending
from jobs.erasure.subject_access import export, stored_about
from jobs.erasure.verify import prove_erased
from jobs.errors import DependencyUnavailable, GovernanceError, NotProvenError
from jobs.governance import retention
from jobs.governance.gate import Gated, gate_warehouse
from jobs.governance.tombstones import KeyRing, key_ring
from jobs.index.collections import collection_name
from jobs.index.protocol import IndexSpec
from jobs.schemas import (
    ALL_TABLES,
    BASIS_LINKS,
    EMBEDDINGS,
    ERASURE_ITEMS,
    ERASURE_STEPS,
    IMAGE_STATUS,
    IMAGES,
    PROCESSING_BASIS,
    REMOVED_FACES,
    RUN_STEPS,
    TOMBSTONES,
)
from jobs.steps.expire import expire_steps
from jobs.steps.gate import gate_step
from jobs.steps.sync import remove_unpermitted_live
from tests.milvus.rows import make_table
from tests.spark.helpers import first_row, job_for, settings_for, warehouse_for
from tests.spark.indexed import (
    KEY,
    SHARED,
    Indexed,
    digest_of,
    image,
    opened,
    picture,
    principal,
    record_row,
    reindex,
    run_of,
    vector_of,
)
from udfs.arrays import EMBEDDING_DIM
from udfs.kinds import image_kind

pytestmark = pytest.mark.spark

TABLES = (IMAGES, EMBEDDINGS, IMAGE_STATUS, BASIS_LINKS, PROCESSING_BASIS)
ASKED = (
    Target("subject", principal(0)),
    Target("subject", principal(1)),
    Target("subject", principal(3)),
    Target("subject", principal(8)),
    Target("image", image(7)),
    Target("batch", "b2"),
)


@dataclass
class Pass:
    """The warehouse after the pass, and what was there before it."""

    made: Indexed
    outcome: Outcome
    faces: dict[int, set[int]]
    shared_faces: set[int]
    live: set[int]
    tables: dict[str, list[str]]
    needles: dict[str, bytes]
    found_before: set[str]


@pytest.fixture(scope="module")
def after(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Pass:
    made = indexed.copy_to(tmp_path_factory.mktemp("erased") / "w")
    made.record(3, legal_hold_ref="case-1")
    also_shown(made, 8, image(3))
    faces = {person: made.faces_of(person) for person in range(12)}
    needles = canaries(faces)
    shared = made.faces(f"image_id = '{SHARED}'")
    beside(made, "people")
    live, tables = made.live_keys(), {spec.name: digest_of(made, spec) for spec in TABLES}
    before = found(made, needles)
    outcome = erase(made, *ASKED, run_id="e1")
    return Pass(made, outcome, faces, shared, live, tables, needles, before)


def also_shown(made: Indexed, person: int, where: str) -> None:
    """A person more in a picture, under a record of their own that has a box: record, link, face."""
    warehouse, record = made.warehouse, f"s{person}"
    row = record_row(record, person, face_box=[60.0, 0.0, 99.0, 40.0])
    warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    link = made.spark.createDataFrame([(where, record, datetime.now(UTC), None)], BASIS_LINKS.columns)
    warehouse.append(link, BASIS_LINKS)
    face = warehouse.read(EMBEDDINGS).where(F.col("image_id") == where).limit(1)
    face = face.withColumn("basis_record_ids", F.array(F.lit(record))).withColumn("face_id", F.col("face_id") + 1)
    warehouse.append(face, EMBEDDINGS)


def beside(made: Indexed, alias: str) -> None:
    """The live collection once more, behind an alias that the settings of an erasure do not name."""
    index = made.index()
    try:
        live = str(index.alias_target(made.settings.milvus.alias))
        info = index.info(live)
        assert info is not None
        name = collection_name(alias, info.run_id)
        index.create(name, dim=EMBEDDING_DIM, shards=1, properties=info)
        index.load(live, timeout=60)
        index.insert(name, make_table(*index.peek(live, 100)))
        index.build_index(name, IndexSpec("FLAT"), timeout=60)
        index.switch_alias(alias, name)
    finally:
        index.close()


@dataclass
class Expired:
    """A warehouse after a night of expiries: what waited for it, and what was live before."""

    made: Indexed
    outcome: Outcome
    waits: int
    pair: set[int]
    lost: set[int]
    live: set[int]


@pytest.fixture
def made(after: Pass, tmp_path: Path) -> Indexed:
    """A warehouse of one's own, as it is after the pass."""
    return after.made.copy_to(tmp_path / "w")


def erase(made: Indexed, *targets: Target, run_id: str | None = None) -> Outcome:
    request(made.warehouse, targets, key_ring(made.settings), run_id="asked", now=datetime.now(UTC))
    with opened(made, "erase", run_id) as (run, index):
        return erase_pending(run, index)


def images(made: Indexed) -> set[str]:
    return {row["image_id"] for row in made.warehouse.read(IMAGES).select("image_id").collect()}


def canaries(faces: dict[int, set[int]]) -> dict[str, bytes]:
    """What the pass must leave no byte of: pictures, vectors, keys (as number and text), ids, hashes, pseudonyms."""
    import hashlib

    needles = {"pseudonym 0": principal(0).encode(), "pseudonym 1": principal(1).encode()}
    for name, owner, number in (("picture 0", 0, 0), ("picture 0 1", 0, 1), ("picture 4", 4, 0), ("picture 7", 7, 0)):
        needles[name] = picture(name)
        needles[f"id of {name}"] = image(owner, number).encode()
        needles[f"hash of {name}"] = hashlib.sha256(picture(name)).hexdigest().encode()
    for key in sorted(faces[0] | faces[1] | faces[4] | faces[7]):
        needles[f"key {key}"] = np.int64(key).tobytes()
        needles[f"text {key}"] = str(key).encode()
        needles[f"vector {key}"] = vector_of(key).tobytes()
    return needles


def found(made: Indexed, needles: dict[str, bytes]) -> set[str]:
    """Which of them a scan of every file finds."""
    rows = scan(made.spark, places_of(made.warehouse, made.settings), needles).collect()
    return {row["needle"] for row in rows}


def test_guarantee_9_nothing_is_left_and_nobody_else_is_touched(after: Pass) -> None:
    made, faces = after.made, after.faces
    assert (after.outcome.completed, after.outcome.suspended) == (4, 2)
    gone = faces[0] | faces[1] | faces[4] | faces[7] | (faces[8] & after.live)
    assert len(gone) == 7
    # Nor is a person there whom a legal hold keeps from being served.
    served = after.live - gone - faces[3]
    assert made.live_keys() == served
    # A collection behind another alias is one of the stores, for this warehouse built it.
    assert made.live_keys("people") == served
    mine = (image(0), image(0, 1), image(1), image(4), image(7), image(8), '"r0"', '"r1"', '"s1"', '"r4"', '"r8"')
    for spec in TABLES:
        survivors = [row for row in after.tables[spec.name] if not any(text in row for text in mine)]
        assert len(survivors) < len(after.tables[spec.name])
        if spec in (EMBEDDINGS, IMAGE_STATUS):
            # The shared picture's rows stand under a new coverage; see the test of Guarantee 16.
            survivors = [row for row in survivors if SHARED not in row]
            assert [row for row in digest_of(made, spec) if SHARED not in row] == survivors
        else:
            assert digest_of(made, spec) == survivors, spec.name
    open_ones = {row["request_id"] for row in made.warehouse.read(ERASURE_ITEMS).select("request_id").collect()}
    assert len(open_ones) == 2


def test_guarantee_10_no_byte_is_left_that_the_scanner_found_before(after: Pass) -> None:
    # A key stands as text nowhere: the needle is there for what a log could have written.
    expected = {name for name in after.needles if not name.startswith("text ")}
    assert after.found_before >= expected
    assert found(after.made, after.needles) == set()


def test_guarantee_10_verify_erased_is_the_same_scan_by_tombstones(after: Pass, made: Indexed) -> None:
    job = job_for(made.spark, made.settings)
    assert prove_erased(job, [], None).data["tombstones"] > 10
    # A file that no table refers to any more, with an erased image's row in it.
    forgotten = made.folder / "warehouse" / "images" / "part=0" / "forgotten.parquet"
    pq.write_table(pa.table({"image_id": [image(7)], "content": [picture("picture 7")]}), forgotten)
    with pytest.raises(NotProvenError, match=r"tombstone of image in .*forgotten\.parquet"):
        prove_erased(job, [], None)
    (made.folder / "canaries.json").write_text(json.dumps({"planted": picture("picture 7").hex()}))
    with pytest.raises(NotProvenError, match=r"planted in .*forgotten\.parquet"):
        prove_erased(job, [], str(made.folder / "canaries.json"))
    # A face that came back into a collection.
    index = made.index()
    try:
        (key, *_) = after.faces[7]
        index.insert("people", make_table(np.array([key]), vector_of(key)[None]))
    finally:
        index.close()
    with pytest.raises(NotProvenError, match="; 1 keys in people_night_1"):
        prove_erased(job, [], None)


def test_guarantee_16_of_a_shared_picture_exactly_that_persons_face_goes(after: Pass, made: Indexed) -> None:
    assert len(after.shared_faces) == 2
    (stays,) = after.shared_faces - after.faces[1]
    assert SHARED in images(made)
    assert made.faces(f"image_id = '{SHARED}'") == {stays}
    assert stays in made.live_keys()
    # The other person's face need not be computed again, and the next night proves the rest.
    now = datetime.now(UTC)
    gated = gate_warehouse(made.warehouse, made.settings, now=now, ingested_by=now).accepted
    status = made.warehouse.read(IMAGE_STATUS).where("status != 'refused'").select("image_id", "input_digest")
    assert gated.join(status, ["image_id", "input_digest"], "left_anti").count() == 0
    live = made.live_keys()
    reindex(made, "night-2")
    assert made.live_keys() == live


def test_guarantee_16_where_somebody_was_erased_records_without_boxes_cover_nobody(after: Pass, made: Indexed) -> None:
    """Else the very face that was destroyed as one person's comes back as another's, under whatever id."""
    warehouse, now = made.warehouse, datetime.now(UTC)
    copy = warehouse.read(IMAGES).where(F.col("image_id") == SHARED).withColumn("image_id", F.lit("copy"))
    warehouse.append(copy, IMAGES)
    given = [(SHARED, "o2"), ("copy", "o2"), (image(5), "o5"), (image(5), "e6")]
    rows = [record_row("o2", 2), record_row("o5", 5), record_row("e6", 6, expires_at=now)]
    warehouse.append(made.spark.createDataFrame(rows, PROCESSING_BASIS.columns), PROCESSING_BASIS)
    links = [(image_id, record_id, now, None) for image_id, record_id in given]
    warehouse.append(made.spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    # Of whom it ends there was a face in the picture.
    face = warehouse.read(EMBEDDINGS).where(F.col("image_id") == image(5)).withColumn("face_id", F.col("face_id") + 1)
    warehouse.append(face.withColumn("basis_record_ids", F.array(F.lit("e6"))), EMBEDDINGS)
    some = made.spark.createDataFrame([(i,) for i, _ in given], "image_id string")

    def decided() -> tuple[Gated, dict[str, object]]:
        gated = gate_warehouse(warehouse, made.settings, now=datetime.now(UTC), only=some)
        found = gated.decisions.collect()
        return gated, {r["image_id"]: r["reason"] or [c["record_id"] for c in r["covered"]] for r in found}

    gated, found = decided()
    assert found == {SHARED: ["s2"], "copy": "OTHERS_REFUSED", image(5): "OTHERS_REFUSED"}
    # The faces of whose record has ended are due, though nothing of the picture is served. That one may come back.
    due = retention.due(warehouse, made.settings, gated, now=now).collect()
    assert [tuple(row) for row in due] == [("expired", "e6")]
    warehouse.append(_version(made, "e6", expires_at=now + timedelta(days=1)), PROCESSING_BASIS)
    assert decided()[1] == {SHARED: ["s2"], "copy": "OTHERS_REFUSED", image(5): ["e6", "o5", "r5"]}


@pytest.fixture(scope="module")
def expired(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Expired:
    """A night of expiries that meets no database, one of whom it was about consents anew, and the next night."""
    made = indexed.copy_to(tmp_path_factory.mktemp("expired") / "w")
    warehouse, now = made.warehouse, datetime.now(UTC)
    made.record(9, events=[(now, None, "t", "ConsentWithdrawn")])
    with pytest.MonkeyPatch.context() as patched, opened(made, "expire") as (run, index):
        patched.setattr(index, "load", _nowhere)
        with pytest.raises(DependencyUnavailable):
            expire_steps(run, index, sweep=True)
    waits = pending(warehouse).count()
    made.record(9, events=[(datetime.now(UTC), "P5Y", "t", "ConsentGiven")])
    # The boxes were the wrong way round; with the correction one of the two withdraws, whose record also names a
    # picture that another's hold keeps.
    boxes = {row["record_id"]: row["face_box"] for row in warehouse.read(PROCESSING_BASIS).collect()}
    given, withdrawn = ("t", "P5Y", "ConsentGiven"), ("t", None, "ConsentWithdrawn")
    for record, other, (kind, validity, state) in (("s1", "s2", withdrawn), ("s2", "s1", given)):
        person = int(record[1:])
        events = [(now, validity, kind, state)]
        row = record_row(record, person, face_box=boxes[other], events=events, recorded_at=datetime.now(UTC))
        warehouse.append(made.spark.createDataFrame([row], PROCESSING_BASIS.columns), PROCESSING_BASIS)
    made.record(11, legal_hold_ref="case-1")
    link = made.spark.createDataFrame([(image(11), "s1", now, None)], BASIS_LINKS.columns)
    warehouse.append(link, BASIS_LINKS)
    # A row of `images` is gone for a moment, as while a source is ingested again.
    warehouse.delta(IMAGES).delete(F.col("image_id") == image(6))
    lost = made.faces_of(6)
    pair, live = made.faces(f"image_id = '{SHARED}'"), made.live_keys()
    with opened(made, "expire", "x2") as (run, index):
        outcome = expire_steps(run, index, sweep=True)
    return Expired(made, outcome, waits, pair, lost, live)


def _nowhere(*_: object, **__: object) -> None:
    raise DependencyUnavailable("no database")


@pytest.mark.faults
def test_guarantee_16_a_face_stays_only_where_what_covered_it_is_what_covers_it(expired: Expired) -> None:
    """Nobody is served as somebody else: neither of the pair's faces is carried over to the boxes as they are now."""
    made = expired.made
    assert len(expired.pair) == 2
    assert made.live_keys() & expired.pair == set()
    gated = gate_warehouse(made.warehouse, made.settings, now=datetime.now(UTC))
    covered = gated.accepted.where(f"image_id = '{SHARED}'")
    assert covered.count() == 1
    for spec in (EMBEDDINGS, IMAGE_STATUS):
        assert covered.join(made.warehouse.read(spec), ["image_id", "input_digest"]).count() == 0


@pytest.mark.faults
def test_guarantee_7_an_expiry_that_waited_is_only_carried_out_where_it_is_due_still(
    indexed: Indexed, expired: Expired
) -> None:
    made = expired.made
    assert expired.waits > 0
    assert image(9) in images(made)
    assert made.faces_of(9) == indexed.faces_of(9) < made.live_keys()
    # Nor does a hold keep the night open that met it: what is due when it ends is found then.
    assert (expired.outcome.completed, expired.outcome.suspended) == (2, 0)
    assert pending(made.warehouse).count() == made.warehouse.read(ERASURE_ITEMS).count() == 0
    assert image(11) in images(made)
    said = receipts(made.warehouse, made.settings)
    assert {receipt["run_id"] for receipt in said} == {"x2"}
    assert {receipt["kind"]: receipt["erased"]["images"] for receipt in said} == {"expiry": 0, "sweep": 0}


@pytest.mark.faults
def test_guarantee_9_an_image_that_is_missing_loses_its_faces_and_not_its_permissions(expired: Expired) -> None:
    made = expired.made
    assert made.faces_of(6) == set()
    assert made.warehouse.read(IMAGE_STATUS).where(F.col("image_id") == image(6)).count() == 0
    assert made.live_keys() == expired.live - expired.pair - expired.lost - made.faces_of(11)
    links = made.warehouse.read(BASIS_LINKS).where(F.col("image_id") == image(6))
    assert [row["record_id"] for row in links.collect()] == ["r6"]


def test_guarantee_6_revoking_a_batch_takes_every_descendant_and_nothing_else(after: Pass) -> None:
    left = {json.loads(row)["image_id"] for row in after.tables["images"]} - images(after.made)
    assert left == {image(0), image(0, 1), image(1), image(4), image(7), image(8)}
    assert after.made.faces_of(4) == set()


def test_guarantee_7_a_legal_hold_suspends_destruction_and_serving(after: Pass, made: Indexed) -> None:
    on_hold = after.faces[3]
    assert image(3) in images(made)
    assert made.faces_of(3) == on_hold
    # It is not served.
    assert after.live & on_hold == on_hold
    assert made.live_keys() & on_hold == set()
    # Nor is the other's face destroyed who is in that picture, nor forgotten by the next pass.
    (other,) = made.faces_of(8)
    assert other in after.faces[8] - after.live
    with opened(made, "erase") as (run, index):
        assert (erase_pending(run, index).completed, made.faces_of(8)) == (0, {other})
    # The hold ends, and the requests that waited are carried out.
    made.record(3)
    with opened(made, "erase", "released") as (run, index):
        assert erase_pending(run, index).completed == 2
    assert image(3) not in images(made)
    assert made.faces_of(3) | made.faces_of(8) == set()
    of_8 = {"images": 2, "faces": 3, "records": 2, "shared_images": 0}
    assert of_8 in [receipt["erased"] for receipt in receipts(made.warehouse, made.settings, "released")]
    assert made.warehouse.read(ERASURE_ITEMS).count() == 0


def test_guarantee_7_what_expired_is_erased_and_a_shortened_retention_applies(after: Pass, made: Indexed) -> None:
    now = datetime.now(UTC)
    gone = after.faces[9] | after.faces[10] | after.faces[2]
    live = made.live_keys()
    made.record(9, retention_period="P30D")
    withdrawn = [(now - timedelta(days=60), "P5Y", "t", "ConsentGiven"), (now, None, "t", "ConsentWithdrawn")]
    made.record(10, events=withdrawn)
    for record in ("r2", "s2"):
        made.warehouse.append(_version(made, record, expires_at=now - timedelta(seconds=1)), PROCESSING_BASIS)
    with opened(made, "expire", "x1") as (run, index):
        outcome = expire_steps(run, index, sweep=True)
    # Both people of the shared picture are gone now, so it goes too.
    assert outcome.items["image"] == 4
    assert images(made) & {image(9), image(10), image(2), SHARED} == set()
    assert made.live_keys() == live - gone
    # The records stay, as evidence; and nothing is due any more.
    assert made.warehouse.read(PROCESSING_BASIS).where("record_id = 'r9'").count() == 2
    gated = gate_warehouse(made.warehouse, made.settings, now=now, ingested_by=now)
    assert retention.due(made.warehouse, made.settings, gated, now=now).count() == 0


@pytest.mark.faults
def test_guarantee_7_what_ended_since_a_run_was_killed_goes_when_it_is_resumed(made: Indexed) -> None:
    """Its request is complete, and what has ended since is another."""
    for person in (9, 11):
        made.record(person, retention_period="P30D")
        with opened(made, "expire", "x1") as (run, index):
            assert expire_steps(run, index, sweep=True).completed == 1
        assert image(person) not in images(made)


def test_guarantee_9_a_run_that_is_resumed_takes_nobody_who_came_in_since(indexed: Indexed, tmp_path: Path) -> None:
    made = indexed.copy_to(tmp_path / "w")
    with run_of(made, "killed", "embed"):
        pass
    made.warehouse.delta(IMAGES).update(f"image_id = '{image(5)}'", {"ingested_at": "current_timestamp()"})
    with run_of(made, "killed", "embed") as run:
        gated = gate_step(run)
        assert image(5) not in {row["image_id"] for row in gated.decisions.collect()}
        assert remove_unpermitted_faces(made.warehouse, run.gate.of_all_images(gated), now=datetime.now(UTC)) == 0


def _version(made: Indexed, record_id: str, **changes: object) -> DataFrame:
    rows = made.warehouse.read(PROCESSING_BASIS).where(F.col("record_id") == record_id)
    for name, value in changes.items():
        rows = rows.withColumn(name, F.lit(value))
    return rows.withColumn("recorded_at", F.current_timestamp()).withColumn("content_digest", F.lit(str(changes)))


def test_guarantee_13_nothing_comes_back(indexed: Indexed, made: Indexed) -> None:
    """Not from a backup of the tables, not the same bytes under another id, not the old record."""
    spark, warehouse = made.spark, made.warehouse
    lost = indexed.warehouse.read(IMAGES).where(F.col("image_id") == image(0)).collect()
    other = [(*lost[0][:1], "another", *lost[0][2:])]
    warehouse.append(spark.createDataFrame([*lost, *other], IMAGES.columns), IMAGES)
    for spec, where in ((PROCESSING_BASIS, "record_id = 'r0'"), (EMBEDDINGS, f"image_id = '{image(0)}'")):
        warehouse.append(indexed.warehouse.read(spec).where(where), spec)
    links = [(name, "r5", datetime.now(UTC), None) for name in (image(0), "another")]
    warehouse.append(spark.createDataFrame(links, BASIS_LINKS.columns), BASIS_LINKS)
    now = datetime.now(UTC)
    decided = gate_warehouse(warehouse, made.settings, now=now, ingested_by=now).decisions
    reasons = {row["image_id"]: row["reason"] for row in decided.collect()}
    assert (reasons[image(0)], reasons["another"], reasons[image(5)]) == ("ERASED", "ERASED", None)
    # And `expire` destroys it once more.
    gated = gate_warehouse(warehouse, made.settings, now=now, ingested_by=now)
    due = retention.due(warehouse, made.settings, gated, now=now)
    assert {row["value"] for row in due.where("kind = 'image'").collect()} == {image(0), "another"}


@pytest.mark.faults
def test_guarantee_13_what_is_here_again_goes_at_the_next_erasure_without_a_request(
    indexed: Indexed, after: Pass, made: Indexed
) -> None:
    """Rows of a restored table, and what a run wrote late: of a picture, of one face of a shared one, of a record."""
    warehouse, person_1 = made.warehouse, after.faces[1] & after.shared_faces
    lost = indexed.warehouse.read(EMBEDDINGS).where(F.col("image_id").isin(image(0), image(7), SHARED))
    warehouse.append(lost.where(F.col("face_id").isin(*after.faces[0], *after.faces[7], *person_1)), EMBEDDINGS)
    for spec, where in ((IMAGES, f"image_id = '{image(7)}'"), (PROCESSING_BASIS, "record_id = 'r0'")):
        warehouse.append(indexed.warehouse.read(spec).where(where), spec)
    late = made.folder / "warehouse" / "_staging" / "ghost" / "part.parquet"
    late.parent.mkdir(parents=True)
    late.write_bytes(vector_of(min(after.faces[0])).tobytes())
    with run_of(made, "ghost", "load"):
        pass
    survivors, live = {spec.name: digest_of(after.made, spec) for spec in TABLES}, made.live_keys()
    with opened(made, "erase") as (run, index):
        assert erase_pending(run, index, sweep=True).completed == 1
    assert {spec.name: digest_of(made, spec) for spec in TABLES} == survivors
    assert made.live_keys() == live


@pytest.mark.faults
def test_guarantee_13_what_a_run_staged_late_goes_where_no_request_is_open(after: Pass, made: Indexed) -> None:
    late = _made(made.folder / "warehouse" / "_staging" / "ghost" / "part.parquet")
    late.write_bytes(vector_of(min(after.faces[0])).tobytes())
    with run_of(made, "ghost", "load"):
        pass
    assert found(made, after.needles) == {f"vector {min(after.faces[0])}", UNREADABLE}
    with opened(made, "expire") as (run, index):
        assert erase_pending(run, index, sweep=True).completed == 0
    assert found(made, after.needles) == set()
    assert prove_erased(job_for(made.spark, made.settings), [], None).data["tombstones"] > 10


@pytest.mark.faults
def test_guarantee_13_whatever_verify_erased_searches_is_swept(after: Pass, made: Indexed) -> None:
    """An erased key in every table and column that the scanner compares, and staged files out of a backup."""
    warehouse = made.warehouse
    erased = cycle((image(0), image(0, 1), image(1), image(4), image(7)))
    face, content = min(after.faces[0]), hashlib.sha256(picture("picture 7")).hexdigest()
    values = {"value": content, "content_sha256": content, "face_id": face, "pii_principal_id": principal(0)}
    complete = first_row(warehouse.read(ERASURE_STEPS).where("step = 'complete'"))["request_id"]
    kept = {"record_id": "r5", "request_id": complete, "part": 0, "ingested_at": datetime.now(UTC)}
    searched = 0
    for spec in ALL_TABLES:
        rows = warehouse.read(spec)
        for column in set(rows.columns) & set(COLUMNS):
            # Beside another column stands an image that stays: an erased one would be found by itself.
            other = "another" if spec is IMAGES else image(5)
            known = {**kept, "image_id": next(erased) if column == "image_id" else other}
            known |= {column: values[column]} if column != "image_id" else {}
            row = [F.lit(known.get(f.name)).cast(f.dataType).alias(f.name) for f in rows.schema]
            warehouse.append(made.spark.range(1).select(*row), spec)
            searched += 1
    assert searched == 12
    staged = made.folder / "warehouse" / "_staging" / "night-1" / "attempt-1" / "part.parquet"
    pq.write_table(pa.table({"face_id": [face]}), _made(staged))
    with pytest.raises(NotProvenError, match="is still there"):
        prove_erased(job_for(made.spark, made.settings), [], None)
    with opened(made, "expire") as (run, index):
        erase_pending(run, index, sweep=True)
    assert prove_erased(job_for(made.spark, made.settings), [], None).data["tombstones"] > 10
    assert not staged.exists()
    assert image(5) in images(made)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_guarantee_13_old_tombstones_stay_readable_and_a_lost_key_stops_the_gate(after: Pass) -> None:
    made, now = after.made, datetime.now(UTC)
    ring = KeyRing.of(["new key", KEY])
    assert ring.current != key_ring(made.settings).current
    assert first_row(made.warehouse.read(TOMBSTONES).select("key_id").distinct())[0] in ring.keys
    lost = made.settings.model_copy(update={"hmac_key": None})
    with pytest.raises(GovernanceError, match="cannot be read"):
        gate_warehouse(made.warehouse, lost, now=now, ingested_by=now)


def test_guarantee_14_receipts_balance_are_the_same_each_time_and_name_nobody(after: Pass) -> None:
    made = after.made
    written = (made.folder / "warehouse" / "_evidence" / "receipts" / "e1.jsonl").read_text()
    said = receipts(made.warehouse, made.settings, "e1")
    assert written == "".join(json.dumps(r) + "\n" for r in said)
    assert len(said) == 4
    by_kind = {receipt["kind"]: receipt["erased"] for receipt in said}
    assert by_kind["image"] == {"images": 1, "faces": 1, "records": 0, "shared_images": 0}
    assert by_kind["batch"] == {"images": 1, "faces": 1, "records": 1, "shared_images": 0}
    stores = said[0]["stores"]
    every = [*stores["tables"].values(), *stores["collections"].values()]
    assert len(every) == 9
    assert all(store["before"] == store["after"] + store["erased"] and store["left"] == 0 for store in every)
    assert not any(text in written for text in (principal(0), image(0), image(7), "r0"))
    assert said[0]["logically_gone_at"] < said[0]["physically_gone"]["backups_by"]


@pytest.mark.faults
def test_guarantee_9_what_a_collection_holds_is_asked_of_the_collection(indexed: Indexed, tmp_path: Path) -> None:
    """Rows of `embeddings` went before: by a night that removed them, and by somebody who wrote nothing down."""
    made = indexed.copy_to(tmp_path / "w")
    reindex(made, "night-2")
    now = datetime.now(UTC)
    withdrawn = F.expr(
        "array(named_struct('event_time', current_timestamp(), 'validity_duration', CAST(NULL AS STRING), "
        "'event_type', 't', 'event_state', 'ConsentWithdrawn'))"
    )
    for record in ("r5", "s1", "r6"):
        made.warehouse.append(_version(made, record, events=withdrawn), PROCESSING_BASIS)
    gone = made.faces_of(5) | made.faces(f"image_id = '{SHARED}'") | made.faces_of(6)
    standby, live = made.keys_of("faces_night_1"), made.live_keys()
    assert gone < standby == live

    def decide() -> Gated:
        return gate_warehouse(made.warehouse, made.settings, now=datetime.now(UTC))

    assert remove_unpermitted_faces(made.warehouse, decide(), now=now) == len(gone) == 4
    made.warehouse.delta(REMOVED_FACES).delete("array_contains(basis_record_ids, 'r6')")
    index = made.index()
    assert remove_unpermitted_live(made.warehouse, made.settings, index, decide).removed == 4
    assert remove_unpermitted_live(made.warehouse, made.settings, index, decide).removed == 0
    index.close()
    assert made.live_keys() == live - gone
    job = job_for(made.spark, made.settings)
    with pytest.raises(NotProvenError, match="; 1 keys in faces_night_1 that no embedding stands for"):
        prove_erased(job, [], None)
    outcome = erase(made, *(Target("subject", principal(person)) for person in (5, 1, 2)), run_id="e9")
    assert outcome.completed == 3
    assert made.keys_of("faces_night_1") == made.live_keys() == live - gone - indexed.faces_of(1) - indexed.faces_of(2)
    said = receipts(made.warehouse, made.settings, "e9")
    # The faces whose rows a night had deleted are among those that the receipts count.
    assert sorted(receipt["erased"]["faces"] for receipt in said) == [1, 3, 3]
    assert said[0]["stores"]["collections"]["faces_night_1"]["left"] == 0
    assert prove_erased(job, [], None).data["collections"] == ["faces_night_1", "faces_night_2"]
    assert made.warehouse.read(REMOVED_FACES).count() == 0


def test_guarantee_10_files_go_on_the_day_that_each_receipt_names(spark: SparkSession, tmp_path: Path) -> None:
    """A week of history, and erasures on day 0 and day 6: what the first left goes on day 7, not on day 13."""
    warehouse, begin = warehouse_for(spark, settings_for(tmp_path)), datetime(2026, 1, 1, tzinfo=UTC)
    day = timedelta(days=1)

    def purged(at: datetime, *, hours: int, vacuumed: bool, step: str = "erase-purge") -> None:
        gone = (at + timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")
        said = json.dumps({"vacuum_hours": hours, "physically_gone_at": gone, "vacuumed": vacuumed})
        row = ("r", step, "done", at, at, 0.0, said, 1)
        warehouse.append(spark.createDataFrame([row], RUN_STEPS.columns), RUN_STEPS)

    assert vacuum_due(warehouse, begin) is None
    for at in (begin, begin + 6 * day):
        purged(at, hours=168, vacuumed=False)
    found = [vacuum_due(warehouse, begin + days * day + timedelta(minutes=1)) for days in (6.9, 7, 12.9)]
    assert found == [None, 168, 168]
    purged(begin + 7.1 * day, hours=168, vacuumed=True)
    assert [vacuum_due(warehouse, begin + days * day) for days in (12.9, 13.1)] == [None, 168]
    # Also where more history is kept from then on: a date that was named is kept.
    purged(begin + 13.2 * day, hours=999, vacuumed=False)
    assert vacuum_due(warehouse, begin + 13.3 * day) == 168
    purged(begin + 13.4 * day, hours=0, vacuumed=True)
    assert vacuum_due(warehouse, begin + 99 * day) is None
    # The ledger of a pass that was cut off is rewritten later than the tables, and goes later.
    purged(begin + 100 * day, hours=168, vacuumed=False)
    purged(begin + 101 * day, hours=168, vacuumed=False, step="erase-ledger")
    purged(begin + 107.1 * day, hours=168, vacuumed=True)
    assert [vacuum_due(warehouse, begin + days * day) for days in (107.9, 108.1)] == [None, 168]


@pytest.mark.faults
def test_a_second_request_for_what_is_gone_finds_nothing(made: Indexed) -> None:
    live = made.live_keys()
    again = erase(made, Target("subject", principal(0)))
    assert (again.completed, again.items.get("image", 0), again.items.get("face", 0)) == (1, 0, 0)
    assert made.live_keys() == live


def test_a_person_gets_what_is_held_about_them(indexed: Indexed, tmp_path: Path) -> None:
    target = Target("subject", principal(1))
    stored = stored_about(indexed.warehouse, [target])
    assert stored["counts"] == {"images": 1, "faces": 2, "records": 2, "pictures shared with others": 1}
    assert stored["images"] == [image(1)]
    export(indexed.warehouse, [target], str(tmp_path / "copy.zip"), image_kind)
    with zipfile.ZipFile(tmp_path / "copy.zip") as archive:
        about = json.loads(archive.read("about_you.json"))
        assert archive.read(about["images"][0]["file"]) == picture("picture 1")
    assert {record["record_id"] for record in about["records"]} == {"r1", "s1"}
    assert len(about["faces"]) == 2
    assert about["pictures_shared_with_others"] == [SHARED]
