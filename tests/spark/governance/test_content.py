"""A permission holds for the picture that it was given for: other bytes under its id need one of their own."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.erasure.find import find
from jobs.erasure.kinds import Target
from jobs.erasure.ledger import begin, write_down
from jobs.erasure.requests import pending, request
from jobs.erasure.rows import destroy_rows
from jobs.governance.basis import import_basis, link_images, named_images, record_batch
from jobs.governance.basis_files import read_basis
from jobs.governance.gate import gate_warehouse
from jobs.governance.holds import images_on_hold
from jobs.governance.tombstones import LEFT, LEFT_CONTENT, SUBJECT, KeyRing
from jobs.schemas import AWAITED, BASIS_LINKS, IMAGES, TOMBSTONES
from jobs.tables.images import Admit, Ingested, ingest_images
from jobs.tables.sources import open_source
from jobs.tables.store import Warehouse, materialise
from tests.conftest import PURPOSE
from tests.spark.helpers import BATCH, NOW, rows, settings_for, warehouse_for

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("tables")]

KEY = "a test's key"
RING = KeyRing.of([KEY])
JPEG = b"\xff\xd8\xff\xe0"


def record(record_id: str, *images: str, batch: str = "b1") -> str:
    """A line of a basis file that permits these pictures."""
    return json.dumps({
        "record_id": record_id, "schema_version": "1.0", "pii_principal_id": "hmac:" + "a" * 64,
        "source_batch_id": batch, "images": images,
        "processing": {
            "purposes": [PURPOSE], "lawful_basis": "eu-gdpr:A6-1-a", "special_category_condition": "eu-gdpr:A9-2-a",
            "pii_controllers": ["c"], "collection_method": "uploaded_by_subject", "retention_period": "P9Y",
            "jurisdiction": "EU", "withdrawal_method": "w", "impact_assessment": "i", "privacy_notice": "n",
        },
        "events": [{"event_time": "2026-01-01T00:00:00Z", "validity_duration": "P5Y",
                    "event_type": "explicit_consent", "event_state": "ConsentGiven"}],
    })  # fmt: skip


class Place:
    """A folder of pictures, a file of records, and a warehouse; each act is a second later than the last."""

    def __init__(self, spark: Any, folder: Path) -> None:
        self.spark, self.folder, self.settings = spark, folder, settings_for(folder, "executor.read_retries=0")
        self.warehouse: Warehouse = warehouse_for(spark, self.settings)
        self.now: datetime = NOW
        (folder / "photos").mkdir()
        record_batch(self.warehouse, BATCH, ring=KeyRing({}), now=NOW)

    def put(self, **pictures: bytes) -> None:
        """Write pictures into the folder."""
        for name, data in pictures.items():
            (self.folder / "photos" / f"{name}.jpg").write_bytes(JPEG + data)

    def out_of_reach(self, name: str) -> None:
        """Put a link that leads nowhere in a picture's place."""
        path = self.folder / "photos" / f"{name}.jpg"
        path.unlink(missing_ok=True)
        path.symlink_to(self.folder / "photos" / "gone.jpg")

    def ingest(self, *, images: bool = False, basis: bool = False) -> Ingested | None:
        """What `ingest --source … --basis …` does, in its order."""
        self.now += timedelta(seconds=1)
        source = open_source(self.spark, str(self.folder / "photos"), "b1", self.settings)
        file = read_basis(self.spark, str(self.folder / "basis.jsonl"), None) if basis else None
        if file:
            import_basis(self.warehouse, file, source.image_id, ring=RING, now=self.now, before_images=images)
        if not images:
            return None
        done, left = ingest_images(
            self.warehouse,
            source,
            inline=True,
            now=self.now,
            images_a_part=1000,
            on_hold=images_on_hold(self.warehouse, named_images(file, source.image_id) if file else None),
        )
        if file:
            link_images(self.warehouse, file, source.image_id, ring=RING, left=left, now=self.now)
        return done

    def reasons(self) -> dict[str, str | None]:
        """What the gate says of each picture, by its name."""
        gated = gate_warehouse(self.warehouse, self.settings, now=self.now, ingested_by=self.now)
        names = {row["image_id"]: Path(row["uri"]).stem for row in self.warehouse.read(IMAGES).collect()}
        return {names[row["image_id"]]: row["reason"] for row in gated.decisions.collect()}


CHANGED = "CONTENT_CHANGED"


def test_guarantees_1_and_6_changed_bytes_need_a_permission_given_since(spark: SparkSession, tmp_path: Path) -> None:
    place = Place(spark, tmp_path)
    # Given before the pictures come, and after.
    (tmp_path / "basis.jsonl").write_text(record("ra", "a.jpg", "b.jpg"))
    place.ingest(basis=True)
    place.put(a=b"one", b=b"one", c=b"one")
    place.ingest(images=True)
    (tmp_path / "basis.jsonl").write_text(record("rc", "c.jpg"))
    place.ingest(basis=True)
    assert place.reasons() == {"a": None, "b": None, "c": None}
    # Those that waited are bound to the first bytes, so that they hold for no others where `images` is filled anew.
    assert place.warehouse.read(BASIS_LINKS).where(F.col("content_sha256") != AWAITED).count() == 3
    links = place.warehouse.version(BASIS_LINKS)

    # All change. What is given with them is given for the new ones; c's first bytes, once permitted, come back later.
    place.put(a=b"two", b=b"two", c=b"two")
    (tmp_path / "basis.jsonl").write_text(record("ra", "a.jpg"))
    assert place.ingest(images=True, basis=True) == Ingested(3, 0, 3, 0)
    assert place.reasons() == {"a": None, "b": CHANGED, "c": CHANGED}
    place.put(c=b"one")
    place.ingest(images=True)
    assert place.reasons() == {"a": None, "b": CHANGED, "c": None}

    # Links as they were before the change do not know better; nor those of a release that did not name contents.
    table = f"delta.`{place.warehouse.location}/{BASIS_LINKS.name}`"
    spark.sql(f"RESTORE TABLE {table} TO VERSION AS OF {links}")
    assert place.reasons() == {"a": CHANGED, "b": CHANGED, "c": None}
    place.warehouse.delta(BASIS_LINKS).update(set={"content_sha256": "NULL"})
    assert place.reasons() == dict.fromkeys("abc", CHANGED)

    # What a legal hold keeps has its bytes kept, too (Guarantee 7): each picture that its record was ever given for.
    on_hold = {**json.loads(record("ra", "a.jpg")), "legal_hold_ref": "case-1"}
    (tmp_path / "basis.jsonl").write_text(json.dumps(on_hold))
    place.ingest(basis=True)
    place.put(a=b"three", b=b"three")
    assert place.ingest(images=True) == Ingested(3, 0, 0, 1, refused={"LEGAL_HOLD": 2})
    assert place.reasons() == {"a": "LEGAL_HOLD", "b": "LEGAL_HOLD", "c": CHANGED}
    # Also where the links are lost, and come in again beside other bytes.
    place.warehouse.delta(BASIS_LINKS).delete()
    assert place.ingest(images=True, basis=True) == Ingested(3, 0, 1, 1, refused={"LEGAL_HOLD": 1})
    assert place.reasons()["a"] == "LEGAL_HOLD"


def test_guarantee_1_what_was_given_for_a_picture_to_come_is_not_for_one_that_a_backup_brings(
    spark: SparkSession, tmp_path: Path
) -> None:
    place = Place(spark, tmp_path)
    place.put(a=b"somebody else's")
    place.ingest(images=True)
    images = f"delta.`{place.warehouse.location}/{IMAGES.name}`"
    former = place.warehouse.version(IMAGES)
    place.warehouse.delta(IMAGES).delete()
    (tmp_path / "basis.jsonl").write_text(record("ra", "a.jpg"))
    place.ingest(basis=True)
    spark.sql(f"RESTORE TABLE {images} TO VERSION AS OF {former}")
    assert place.reasons() == {"a": "CONTENT_AWAITED"}
    # An ingestion that lists it, and cannot read it, brings nothing.
    place.out_of_reach("a")
    done = place.ingest(images=True)
    assert done is not None
    assert done.out_of_reach == {"NOT_FOUND": 1}
    assert place.reasons() == {"a": "CONTENT_AWAITED"}
    (tmp_path / "photos" / "a.jpg").unlink()
    # What its source has now is what the permission was given for; also where the former bytes come back once more.
    place.put(a=b"mine")
    assert place.ingest(images=True) == Ingested(1, 0, 1, 0, unbound=1)
    assert place.reasons() == {"a": CHANGED}
    spark.sql(f"RESTORE TABLE {images} TO VERSION AS OF {former}")
    assert place.reasons() == {"a": "CONTENT_AWAITED"}
    place.put(a=b"somebody else's")
    place.ingest(images=True)
    assert place.reasons() == {"a": None}, "its source says that these are the bytes"


def test_guarantee_1_what_is_given_beside_a_source_is_not_for_pictures_that_are_left_as_they_were(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Out of reach, on hold, or only counted, for no suffix says what it is: it is about what the source has."""
    place, scan = Place(spark, tmp_path), tmp_path / "photos" / "c"
    place.put(a=b"anna's", b=b"anna's")
    scan.write_bytes(JPEG + b"anna's")
    on_hold = {**json.loads(record("ra", "b.jpg")), "legal_hold_ref": "case-1"}
    (tmp_path / "basis.jsonl").write_text(json.dumps(on_hold))
    place.ingest(images=True, basis=True)
    place.out_of_reach("a")
    place.put(b=b"ben's")
    scan.unlink()
    scan.symlink_to(tmp_path / "no disk" / "c")
    (tmp_path / "basis.jsonl").write_text(record("rb", "a.jpg", "b.jpg", "c"))
    place.ingest(images=True, basis=True)
    assert rows(place.warehouse.read(BASIS_LINKS).where("record_id = 'rb'"), "content_sha256") == {(AWAITED,)}
    assert place.reasons() == {"a": "CONTENT_AWAITED", "b": "LEGAL_HOLD", "c": "CONTENT_AWAITED"}
    # The hold ends: what is there is still about nobody but whom it was given for.
    (tmp_path / "basis.jsonl").write_text(record("ra", "b.jpg"))
    place.ingest(basis=True)
    gated = gate_warehouse(place.warehouse, place.settings, now=place.now, ingested_by=place.now)
    covered = [
        {each["record_id"] for each in row["covered"]} for row in gated.decisions.where("reason IS NULL").collect()
    ]
    assert covered == [{"ra"}]
    # Both again, and within reach.
    (tmp_path / "photos" / "a.jpg").unlink()
    place.put(a=b"ben's")
    scan.unlink()
    # Of what the source has not at all, what was there is meant.
    (tmp_path / "basis.jsonl").write_text(record("rb", "a.jpg", "b.jpg", "c"))
    place.ingest(images=True, basis=True)
    assert place.reasons() == {"a": None, "b": None, "c": None}


def test_guarantee_16_who_waited_for_bytes_that_were_brought_since_may_be_in_them(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given beside a source out of reach; then it brings other bytes: nobody can tell, so it permits nothing."""
    monkeypatch.setenv("FACE_REINDEX_TOMBSTONE_KEYS", KEY)
    place = Place(spark, tmp_path)
    place.put(a=b"former")
    place.ingest(images=True)
    place.out_of_reach("a")
    waiting = {**json.loads(record("rp", "a.jpg")), "pii_principal_id": "hmac:" + "b" * 64}
    (tmp_path / "basis.jsonl").write_text(json.dumps(waiting))
    place.ingest(images=True, basis=True)
    (tmp_path / "photos" / "a.jpg").unlink()
    place.put(a=b"of both")
    done = place.ingest(images=True)
    assert (done.unbound if done else None) == 1
    (tmp_path / "basis.jsonl").write_text(record("rq", "a.jpg"))
    place.ingest(basis=True)
    assert place.reasons() == {"a": "OTHERS_REFUSED"}
    # Erased is who waited: without a box the other one's record covers nobody in it.
    warehouse = place.warehouse
    request(warehouse, [Target(SUBJECT, waiting["pii_principal_id"])], RING, run_id="e", now=place.now)
    targets = materialise(pending(warehouse))
    found = find(warehouse, targets)
    items = write_down(warehouse, targets, found, RING, now=place.now)
    begin(warehouse, targets, found, RING, run_id="e", now=place.now)
    destroy_rows(warehouse, items)
    assert warehouse.read(TOMBSTONES).where(F.col("kind").isin(LEFT, LEFT_CONTENT)).count() == 2
    assert place.reasons() == {"a": "OTHERS_REFUSED"}


def test_guarantee_7_a_hold_that_keeps_nothing_is_counted(spark: SparkSession, tmp_path: Path) -> None:
    """It names no image, now or before; or it is of somebody who was erased, by a record that is not known."""
    place = Place(spark, tmp_path)
    place.put(a=b"of two")

    def idle(*records: dict[str, Any]) -> int:
        (tmp_path / "basis.jsonl").write_text("\n".join(map(json.dumps, records)))
        file = read_basis(spark, str(tmp_path / "basis.jsonl"), None)
        source = open_source(spark, str(tmp_path / "photos"), "b1", place.settings)
        return import_basis(place.warehouse, file, source.image_id, ring=RING, now=place.now).held_idle

    named, bare = json.loads(record("ra", "a.jpg")), json.loads(record("rb"))
    held = {"legal_hold_ref": "case-1"}
    assert idle(named, bare) == 0
    assert idle({**named, "images": [], **held}, {**bare, **held}) == 1
    digest = RING.digest(SUBJECT, named["pii_principal_id"])
    stone = spark.createDataFrame([(SUBJECT, RING.current, digest, "er-1", place.now)], TOMBSTONES.columns)
    place.warehouse.append(stone, TOMBSTONES)
    assert idle({**named, "record_id": "rc", **held}) == 1


def test_guarantee_6_an_id_of_another_batch_or_twice_in_a_source_replaces_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    warehouse = warehouse_for(spark, settings)

    def ingest(name: str, batch: str, *pictures: tuple[str, bytes], admit: Admit | None = None) -> Ingested:
        frame = spark.createDataFrame([(i, JPEG + data) for i, data in pictures], "image_id string, content binary")
        frame.write.parquet(str(tmp_path / name))
        source = open_source(spark, str(tmp_path / name), batch, settings)
        return ingest_images(warehouse, source, inline=True, now=NOW, images_a_part=1000, admit=admit)[0]

    ingest("first", "b1", ("x", b"1"), ("y", b"1"))
    before = rows(warehouse.read(IMAGES), "image_id", "content", "source_batch_id")
    done = ingest("second", "b2", ("x", b"2"), ("z", b"2"), ("z", b"3"), ("w", b"2"))
    assert done == Ingested(4, 1, 0, 0, refused={"DUPLICATE_ID": 2, "OTHER_BATCH": 1}, batches=("b1",))
    added = {("w", JPEG + b"2", "b2")}
    assert rows(warehouse.read(IMAGES), "image_id", "content", "source_batch_id") == before | added
    # An id that is there and stands twice now is left as it is.
    done = ingest("third", "b1", ("x", b"3"), ("x", b"4"), ("y", b"3"))
    assert done == Ingested(3, 0, 1, 0, refused={"DUPLICATE_ID": 2})
    assert ("x", JPEG + b"1", "b1") in rows(warehouse.read(IMAGES), "image_id", "content", "source_batch_id")
    # Erased bytes in place of known ones, and as new ones, are counted as what was kept out and nothing else.
    erased = hashlib.sha256(JPEG + b"erased").hexdigest()

    def admit(rows: DataFrame) -> DataFrame:
        return rows.where(rows["content_sha256"] != erased) if "content_sha256" in rows.columns else rows

    done = ingest("fourth", "b1", ("x", b"erased"), ("y", b"5"), ("v", b"erased"), ("u", b"5"), admit=admit)
    assert done == Ingested(4, 1, 1, 0, barred=2)
