"""Ingestion: every kind of source, a second time changes nothing, nothing is lost."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.errors import BadInput, GovernanceError, SettingsError
from jobs.governance.basis import import_basis, read_batch, record_batch, write_template
from jobs.governance.basis_files import _JSON_SCHEMA, pseudonym, read_basis
from jobs.governance.decide import LAWFUL_BASES, STATES
from jobs.governance.tombstones import SUBJECT, KeyRing
from jobs.schemas import BASIS_LINKS, BASIS_QUARANTINE, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES, TOMBSTONES
from jobs.tables.images import Ingested, ingest_images
from jobs.tables.sources import open_source
from tests.spark.helpers import BATCH, NOW, rows, settings_for, warehouse_for

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]

FILES = {
    "a.jpg": b"one",
    "deep/er/b c%20d.PNG": b"two",
    "empty.jpg": b"",
    "notes.txt": b"no image",
    ".hidden.jpg": b"x",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def bring(spark, tmp_path: Path, source: str, *, inline: bool = True) -> Ingested:
    settings = settings_for(tmp_path, "executor.read_retries=0")
    warehouse = warehouse_for(spark, settings)
    return ingest_images(
        warehouse, open_source(spark, source, "b1", settings), inline=inline, now=NOW, images_a_part=1000
    )


def images(spark, tmp_path: Path):
    return warehouse_for(spark, settings_for(tmp_path)).read(IMAGES)


def test_a_folder_twice_and_then_changed(spark, tmp_path: Path, folder: Path) -> None:
    assert bring(spark, tmp_path, str(folder)) == Ingested(listed=3, new=3, changed=0, unchanged=0)
    before = rows(images(spark, tmp_path), "image_id", "content_sha256", "part")
    assert bring(spark, tmp_path, str(folder)) == Ingested(3, 0, 0, 3)
    assert rows(images(spark, tmp_path), "image_id", "content_sha256", "part") == before
    (folder / "a.jpg").write_bytes(b"another")
    assert bring(spark, tmp_path, str(folder)) == Ingested(3, 0, 1, 2)
    now = {r["uri"].rsplit("/", 1)[1]: r["content"] for r in images(spark, tmp_path).collect()}
    # The empty file has no bytes to keep, but it is there: embedding will say why it is unreadable.
    assert now == {"a.jpg": b"another", "b c%20d.PNG": b"two", "empty.jpg": None}


def test_by_uri_keeps_no_bytes(spark, tmp_path: Path, folder: Path) -> None:
    bring(spark, tmp_path, str(folder), inline=False)
    assert images(spark, tmp_path).where("content IS NOT NULL").count() == 0
    assert images(spark, tmp_path).where("uri LIKE '%a.jpg'").count() == 1
    assert images(spark, tmp_path).where("NOT by_uri").count() == 0


def test_parquet_and_delta_bring_their_own_ids(spark, tmp_path: Path) -> None:
    frame = spark.createDataFrame([("x", b"1"), ("y", b"2"), ("z", None)], "image_id string, content binary")
    frame.write.parquet(str(tmp_path / "p"))
    frame.write.format("delta").save(str(tmp_path / "d"))
    assert bring(spark, tmp_path, str(tmp_path / "p")).new == 3
    assert bring(spark, tmp_path, f"delta:{tmp_path / 'd'}") == Ingested(3, 0, 0, 3)
    assert rows(images(spark, tmp_path), "image_id", "content") == {("x", b"1"), ("y", b"2"), ("z", None)}


def test_the_same_id_twice_stops_before_anything_is_written(spark, tmp_path: Path) -> None:
    spark.createDataFrame([("x", b"1"), ("x", b"2")], "image_id string, content binary").write.parquet(
        str(tmp_path / "p")
    )
    with pytest.raises(BadInput, match="1 image ids stand more than once"):
        bring(spark, tmp_path, str(tmp_path / "p"))
    assert images(spark, tmp_path).count() == 0


def test_webdataset_shards(spark, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"s{shard}.tar", "w") as tar:
            for name in ("000.jpg", "000.json", "001.jpg"):
                data = f"{shard}{name}".encode()
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert bring(spark, tmp_path, str(tmp_path / "shards")) == Ingested(4, 4, 0, 0)
    assert bring(spark, tmp_path, str(tmp_path / "shards")) == Ingested(4, 0, 0, 4)
    assert {c for (c,) in rows(images(spark, tmp_path), "content")} == {
        b"0000.jpg",
        b"0001.jpg",
        b"1000.jpg",
        b"1001.jpg",
    }


def test_a_source_that_is_not_there_is_named(spark, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing at this place"):
        open_source(spark, str(tmp_path / "nowhere"), "b1", settings_for(tmp_path))


def record(**changes: object) -> str:
    base: dict[str, object] = {
        "record_id": "r1",
        "schema_version": "1.0",
        "events": [{"event_time": "2026-01-01T00:00:00Z", "event_state": "ConsentGiven"}],
        "images": ["x"],
    }
    return json.dumps({**base, **changes})


RING = KeyRing.of(["a test's key"])


def imported(spark, tmp_path: Path, text: str, name: str = "basis.jsonl", key: str | None = None):
    (tmp_path / name).write_text(text)
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    return import_basis(warehouse, read_basis(spark, str(tmp_path / name), key), lambda c: c, ring=RING, now=NOW)


def test_basis_records_are_append_only_and_idempotent(spark, tmp_path: Path) -> None:
    first = imported(spark, tmp_path, record())
    assert (first.records, first.new_versions, first.new_links) == (1, 1, 1)
    assert imported(spark, tmp_path, record()).new_versions == 0
    second = imported(spark, tmp_path, record(images=["x", "y"], processing=None, schema_version="1.0"))
    assert (second.new_versions, second.new_links) == (0, 1)
    assert imported(spark, tmp_path, record(events=[])).new_versions == 1
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    assert warehouse.read(PROCESSING_BASIS).count() == 2
    assert rows(warehouse.read(BASIS_LINKS), "image_id", "record_id") == {("x", "r1"), ("y", "r1")}


def test_guarantee_13_the_old_record_of_an_erased_person_is_not_stored_again(spark, tmp_path: Path) -> None:
    gone, other = ("hmac:" + digit * 64 for digit in "ab")
    stored = record(record_id="held", pii_principal_id=gone)
    imported(spark, tmp_path, stored)
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    stone = (SUBJECT, RING.current, RING.digest(SUBJECT, gone), "er-1", NOW)
    warehouse.append(spark.createDataFrame([stone], TOMBSTONES.columns), TOMBSTONES)
    after = (NOW + timedelta(seconds=1)).isoformat()
    lines = [
        record(record_id="old", pii_principal_id=gone),
        record(record_id="empty", pii_principal_id=gone, events=None),
        record(record_id="new", pii_principal_id=gone, events=[{"event_time": after, "event_state": "ConsentGiven"}]),
        # It is stored still, because a hold suspends its erasure: only a new version can end the hold.
        record(record_id="held", pii_principal_id=gone, legal_hold_ref=None, source_batch_id="b1"),
        record(record_id="other", pii_principal_id=other),
    ]
    done = imported(spark, tmp_path, "\n".join(lines))
    assert (done.records, done.new_versions, done.barred) == (5, 3, 2)
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("held",), ("new",), ("other",)}
    assert ("x", "old") not in rows(warehouse.read(BASIS_LINKS), "image_id", "record_id")
    with pytest.raises(GovernanceError, match="cannot be read"):
        import_basis(
            warehouse, read_basis(spark, str(tmp_path / "basis.jsonl"), None), lambda c: c, ring=KeyRing({}), now=NOW
        )


UNREAD = {
    "{broken": (None, "NO_JSON_OBJECT"),
    "[1]": (None, "NO_JSON_OBJECT"),
    record(record_id=None): (None, "NO_RECORD_ID"),
    record(record_id="r2", events="soon"): ("r2", "VALUE_OF_ANOTHER_TYPE"),
    record(record_id="r3", legal_hold="h"): ("r3", "UNKNOWN_FIELD"),
}


def test_lines_that_cannot_be_read_are_quarantined_with_a_reason(spark, tmp_path: Path) -> None:
    text = "\n".join([record(), *UNREAD])
    done = imported(spark, tmp_path, text)
    assert (done.records, done.new_versions, done.quarantined, done.nameless) == (1, 1, 5, 3)
    assert imported(spark, tmp_path, text).quarantined == 5
    found = warehouse_for(spark, settings_for(tmp_path)).read(BASIS_QUARANTINE)
    assert sorted(found.select("record_id", "reason").collect(), key=str) == sorted(UNREAD.values(), key=str)
    assert "soon" not in str(found.collect())


def test_a_delta_table_of_records(spark, tmp_path: Path) -> None:
    first = imported(spark, tmp_path, record())
    table = str(tmp_path / "records")
    (tmp_path / "one.jsonl").write_text(record())
    read_basis(spark, str(tmp_path / "one.jsonl"), None).records.drop("face_box").write.format("delta").save(table)
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    again = import_basis(warehouse, read_basis(spark, f"delta:{table}", None), lambda c: c, ring=RING, now=NOW)
    assert (first.new_versions, again.records, again.new_versions) == (1, 1, 0)
    spark.range(1).write.format("delta").save(str(tmp_path / "other"))
    with pytest.raises(BadInput, match="unknown columns"):
        read_basis(spark, f"delta:{tmp_path}/other", None)


def test_the_published_schema_names_what_is_read(spark) -> None:
    published = json.loads((ROOT / "docs" / "basis-record.schema.json").read_text())
    read = StructType.fromDDL(_JSON_SCHEMA)
    assert set(published["properties"]) == set(read.fieldNames())
    for name in ("processing", "face"):
        assert set(published["properties"][name]["properties"]) == set(read[name].dataType.fieldNames())
    event = published["properties"]["events"]["items"]["properties"]
    assert set(event) == set(read["events"].dataType.elementType.fieldNames())
    assert set(event["event_state"]["enum"]) == set(STATES)
    assert published["properties"]["processing"]["properties"]["lawful_basis"]["enum"] == list(LAWFUL_BASES)


def test_csv_template_completed_by_a_person(spark, tmp_path: Path, folder: Path) -> None:
    source = open_source(spark, str(folder), "b1", settings_for(tmp_path))
    assert write_template(source.listing(), "b1", str(tmp_path / "t.csv")) == 3
    header, *lines = (tmp_path / "t.csv").read_text().splitlines()
    row = dict(zip(header.split(","), lines[0].split(","), strict=True))
    assert (row["images"], row["source_batch_id"], row["subject"]) == ("a.jpg", "b1", "")
    row |= {"subject": "A Person", "event_time": "2026-01-01T00:00:00Z", "event_state": "ConsentGiven"}
    row |= {"purposes": "p1; p2", "face_box": "1 2 3 4"}
    text = header + "\n" + ",".join(row[c] for c in header.split(","))
    with pytest.raises(SettingsError, match="FACE_REINDEX_HMAC_KEY"):
        imported(spark, tmp_path, text, "full.csv")
    imported(spark, tmp_path, text, "full.csv", key="k")
    found = warehouse_for(spark, settings_for(tmp_path)).read(PROCESSING_BASIS).first()
    assert found["pii_principal_id"] == pseudonym("A Person", "k")
    assert "A Person" not in str(found)
    assert found["processing"]["purposes"] == ["p1", "p2"]
    assert found["face_box"] == [1.0, 2.0, 3.0, 4.0]
    assert [e["event_state"] for e in found["events"]] == ["ConsentGiven"]


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("record_id,event_time\nr,yesterday\ns,2026-01-01", ("r", "VALUE_OF_ANOTHER_TYPE")),
        ("record_id,face_box\nr,1 2 x 4\nr,1 2 3 4\ns,", ("r", "VALUE_OF_ANOTHER_TYPE")),
        ("record_id,images\n ,x\ns,y", (None, "NO_RECORD_ID")),
    ],
)
def test_records_with_unreadable_csv_cells_are_quarantined(spark, tmp_path: Path, line: str, unread) -> None:
    assert imported(spark, tmp_path, line, "bad.csv").records == 1
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    assert rows(warehouse.read(BASIS_QUARANTINE), "record_id", "reason") == {unread}
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("s",)}


def test_a_csv_of_another_form_is_refused(spark, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing was imported"):
        imported(spark, tmp_path, "id,images\n1,2", "bad.csv")


def test_batches_are_recorded_once_per_state(spark, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    assert record_batch(warehouse, BATCH, now=NOW)
    assert not record_batch(warehouse, BATCH, now=NOW)
    assert record_batch(warehouse, {**BATCH, "state": "revoked"}, now=NOW)
    assert warehouse.read(SOURCE_BATCHES).agg(F.count("*")).first()[0] == 2


def test_an_incomplete_assessment_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(json.dumps({**BATCH, "assessment_ref": None}))
    with pytest.raises(BadInput, match="needs every field"):
        read_batch(str(file))
