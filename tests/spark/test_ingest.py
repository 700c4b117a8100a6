"""Ingestion: every kind of source, a second time changes nothing, nothing is lost."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StructType

from jobs.erasure.find import _given_since
from jobs.erasure.kinds import Target
from jobs.erasure.leftovers import _records_again
from jobs.erasure.requests import pending, request
from jobs.erasure.rows import destroy_rows
from jobs.errors import BadInput, GovernanceError, SettingsError
from jobs.governance.barred import quarantined
from jobs.governance.basis import BasisImported, import_basis, is_void, record_batch, write_template
from jobs.governance.basis_files import _JSON_SCHEMA, read_basis
from jobs.governance.batch_file import read_batch
from jobs.governance.batches import current_batches
from jobs.governance.decide import LAWFUL_BASES, STATES
from jobs.governance.holds import images_on_hold
from jobs.governance.pseudonyms import Pseudonyms
from jobs.governance.records import current_records
from jobs.governance.tombstones import CONTENT, IMAGE, SUBJECT, KeyRing, Stones, admission
from jobs.ingest import main as ingest
from jobs.runs.history import last_outcomes, run_state
from jobs.schemas import (
    BASIS_LINKS,
    BASIS_QUARANTINE,
    ERASURE_ITEMS,
    IMAGES,
    PROCESSING_BASIS,
    RUNS,
    SOURCE_BATCHES,
    TOMBSTONES,
    TableSpec,
)
from jobs.tables.files import hadoop_path
from jobs.tables.images import Ingested, ingest_images
from jobs.tables.source_keys import source_key
from jobs.tables.sources import open_source
from tests.spark.helpers import BATCH, NOW, first_row, rows, settings_for, warehouse_for
from tests.unit.odd.corpus import put

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("tables")]

ROOT = Path(__file__).parents[2]

JPEG = b"\xff\xd8\xff\xe0"
FILES = {
    "a.jpg": JPEG + b"one",
    "deep/er/b c%20d.PNG": b"\x89PNG two",
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


def bring(spark: SparkSession, tmp_path: Path, source: str, *overrides: str, inline: bool = True) -> Ingested:
    settings = settings_for(tmp_path, "executor.read_retries=0", *overrides)
    warehouse = warehouse_for(spark, settings)
    return ingest_images(
        warehouse, open_source(spark, source, "b1", settings), inline=inline, now=NOW, images_a_part=1000
    )[0]


def images(spark: SparkSession, tmp_path: Path) -> DataFrame:
    return warehouse_for(spark, settings_for(tmp_path)).read(IMAGES)


def test_a_folder_twice_and_then_changed(spark: SparkSession, tmp_path: Path, folder: Path) -> None:
    (folder / "IMG_0001").write_bytes(JPEG + b"without a suffix")
    aside: dict[str, Any] = {
        "unread": {"EMPTY": 1}, "refused": {"OTHER_FILE": 1, "SKIPPED": 1},
        "suffixes": {"EMPTY": {".jpg": 1}, "OTHER_FILE": {".txt": 1}, "SKIPPED": {".jpg": 1}},
    }  # fmt: skip
    assert bring(spark, tmp_path, str(folder)) == Ingested(listed=6, new=4, changed=0, unchanged=0, **aside)
    before = rows(images(spark, tmp_path), "image_id", "content_sha256", "part")
    assert bring(spark, tmp_path, str(folder)) == Ingested(6, 0, 0, 4, **aside)
    assert rows(images(spark, tmp_path), "image_id", "content_sha256", "part") == before
    (folder / "a.jpg").write_bytes(JPEG + b"another")
    assert bring(spark, tmp_path, str(folder)) == Ingested(6, 0, 1, 3, **aside)
    now = {r["uri"].rsplit("/", 1)[1]: r["content"] for r in images(spark, tmp_path).collect()}
    # The empty file has no bytes to keep, but it is there: embedding will say why it is unreadable.
    assert now == {
        "a.jpg": JPEG + b"another", "b c%20d.PNG": b"\x89PNG two", "empty.jpg": None,
        "IMG_0001": JPEG + b"without a suffix",
    }  # fmt: skip


def test_by_uri_keeps_no_bytes(spark: SparkSession, tmp_path: Path, folder: Path) -> None:
    bring(spark, tmp_path, str(folder), inline=False)
    assert images(spark, tmp_path).where("content IS NOT NULL").count() == 0
    assert images(spark, tmp_path).where("uri LIKE '%a.jpg'").count() == 1
    assert images(spark, tmp_path).where("NOT by_uri").count() == 0


def test_parquet_and_delta_bring_their_own_ids(spark: SparkSession, tmp_path: Path) -> None:
    pictures = [("x", JPEG + b"1"), ("y", JPEG + b"2"), ("z", None)]
    frame = spark.createDataFrame(pictures, "image_id string, content binary")
    frame.write.parquet(str(tmp_path / "p"))
    frame.write.format("delta").save(str(tmp_path / "d"))
    assert bring(spark, tmp_path, str(tmp_path / "p")).new == 3
    assert bring(spark, tmp_path, f"delta:{tmp_path / 'd'}") == Ingested(3, 0, 0, 3, unread={"NO_SOURCE": 1})
    assert rows(images(spark, tmp_path), "image_id", "content") == set(pictures)


def test_tables_as_others_write_them(spark: SparkSession, tmp_path: Path, folder: Path) -> None:
    """Each image once, under a hash of its name where it has no id; the name is found again beside the hash."""
    pictures = [((JPEG + b"1", "train/1.jpg"), 0), ((None, f"{folder}/a.jpg"), 1), ((JPEG, None), 1)]
    frame = spark.createDataFrame(pictures, "image struct<bytes: binary, path: string>, label int")
    frame.write.parquet(str(tmp_path / "datasets"))
    assert bring(spark, tmp_path, str(tmp_path / "datasets"), f"sources.roots=[{folder}]") == Ingested(
        3, 2, 0, 0, refused={"BAD_ID": 1}
    )
    read = spark.read.format("binaryFile").option("pathGlobFilter", "a.jpg").load(str(folder))
    read.write.format("delta").save(str(tmp_path / "files"))
    assert bring(spark, tmp_path, f"delta:{tmp_path / 'files'}").new == 1
    named = spark.createDataFrame([(7, JPEG + b"7")], "ID int, Content binary").withColumnRenamed("ID", "Image_ID")
    named.write.format("delta").save(str(tmp_path / "named"))
    system, here = hadoop_path(spark, str(tmp_path))
    before = system.getWorkingDirectory()
    system.setWorkingDirectory(here)
    try:
        assert bring(spark, tmp_path, "delta:named").new == 1
    finally:
        system.setWorkingDirectory(before)
    shard = tmp_path / "x.y#z.TAR"
    with tarfile.open(shard, "w") as tar:
        info = tarfile.TarInfo("deep/0.0.jpg")
        info.size = 4
        tar.addfile(info, io.BytesIO(JPEG))
    assert bring(spark, tmp_path, f"webdataset:{shard}").new == 1
    assert bring(spark, tmp_path, str(folder)).new == 3
    found = images(spark, tmp_path).select(source_key().alias("key"), "uri").collect()
    # Of an address that is not kept the name is not known, either.
    assert Counter(row["key"] for row in found) == Counter([
        None, f"{folder}/a.jpg", f"file:{folder}/a.jpg", "7", "x.y#z.TAR/deep/0",
        "a.jpg", "deep/er/b c%20d.PNG", "empty.jpg",
    ])  # fmt: skip
    for source, said in (("delta:nowhere", "no table of this name"), (f"delta:{folder}", "cannot read it as delta")):
        with pytest.raises(BadInput, match=said):
            bring(spark, tmp_path, source)


def test_a_tables_texts_that_are_no_utf8_end_under_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    """Python's workers ended with UnicodeDecodeError, and nobody knew by which row."""
    frame = spark.sql(
        """SELECT CAST(id AS STRING) AS image_id, content, CAST(uri AS STRING) AS uri FROM VALUES
        (X'78', X'FFD8FFD931', NULL), (X'FF', X'FFD8FFD932', NULL), (X'79', NULL, X'FF'), (X'7A', X'FFD8FFD933', X'FF')
        AS rows(id, content, uri)"""
    )
    frame.write.parquet(str(tmp_path / "p"))
    done = bring(spark, tmp_path, f"parquet:{tmp_path / 'p'}")
    assert (done.new, done.refused, done.unread) == (3, {"BAD_ID": 1}, {"BAD_ADDRESS": 1})
    assert rows(images(spark, tmp_path), "image_id") == {("x",), ("y",), ("z",)}


def test_guarantee_6_two_tables_with_the_same_ids_meet_under_a_prefix_only(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither replaces the other; the prefix is on record, and the table does not come in a second time without.

    Nor is a basis file without a source about other images than one with it (Guarantee 7): see the end.
    """
    for name in ("first", "second"):
        frame = spark.createDataFrame([("1", JPEG + name.encode()), ("2", JPEG)], "image_id string, content binary")
        frame.write.parquet(str(tmp_path / name))

    def said(name: str, *more: str) -> tuple[int, str]:
        source = [] if "--basis" in more else ["--source", f"parquet:{tmp_path / name}"]
        given = [*source, "--batch", name, "--quiet", *more]
        with pytest.raises(SystemExit) as ended:
            ingest.main([*given, "--set", f"warehouse={tmp_path}/warehouse"], prog_name="ingest")
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    assert said("first")[0] == 0
    before = rows(images(spark, tmp_path), "image_id", "content", "source_batch_id")
    code, text = said("second")
    assert (code, "2 ids of this table" in text, "(first)" in text, "--id-prefix second/" in text) == (
        1,
        True,
        True,
        True,
    )
    assert said("second", "--id-prefix", " s/")[0] == 2
    code, text = said("second", "--id-prefix", "s/")
    assert (code, "2 new" in text) == (0, True)
    assert rows(images(spark, tmp_path), "image_id", "content", "source_batch_id") == before | {
        ("s/1", JPEG + b"second", "second"), ("s/2", JPEG, "second"),
    }  # fmt: skip
    code, text = said("second")
    assert (code, "came into batch second with 's/'" in text) == (2, True)

    warehouse = warehouse_for(spark, settings_for(tmp_path))
    outcomes = last_outcomes(warehouse)
    # What basis files call them, by which a hold comes without a source.
    assert rows(outcomes, "image_id", "source_key") == {("1", "1"), ("2", "2"), ("s/1", "1"), ("s/2", "2")}
    basis = tmp_path / "hold.jsonl"
    basis.write_text(record(record_id="hold", images=["2", "gone"], legal_hold_ref="case 1"))
    code, text = said("second", "--basis", str(basis))
    assert (code, "2 new links" in text, "1 of the new links is for images that are not here" in text) == (
        1,
        True,
        True,
    )
    assert ("a legal hold names images that are not here (1 link)" in text, "with 's/' before them" in text) == (
        True,
        True,
    )
    assert rows(images_on_hold(warehouse), "image_id") == {("s/2",), ("s/gone",)}
    # As where the table of runs was lost.
    warehouse.delta(RUNS).delete()
    basis.write_text(record(record_id="consent", images=["1", "later"]))
    code, text = said("first", "--basis", str(basis))
    assert (code, "not on record with which --id-prefix" in text, "--ids-of table" in text) == (2, True, True)
    code, text = said("first", "--basis", str(basis), "--ids-of", "table")
    assert (code, "1 of the new links is for images that are not here" in text) == (0, True)
    assert rows(warehouse.read(BASIS_LINKS).where("record_id = 'consent'"), "image_id") == {("1",), ("later",)}


def test_webdataset_shards(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"s{shard}.tar", "w") as tar:
            for name in ("000.jpg", "000.json", "001.jpg"):
                data = JPEG + f"{shard}{name}".encode() if name.endswith("jpg") else b"{}"
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    aside: dict[str, Any] = {"refused": {"OTHER_FILE": 2}, "suffixes": {"OTHER_FILE": {".json": 2}}}
    assert bring(spark, tmp_path, str(tmp_path / "shards")) == Ingested(6, 4, 0, 0, **aside)
    assert {c for (c,) in rows(images(spark, tmp_path), "content")} == {
        JPEG + name for name in (b"0000.jpg", b"0001.jpg", b"1000.jpg", b"1001.jpg")
    }
    # A shard of the same name in another folder, and what is none beside them.
    (tmp_path / "shards" / "again").mkdir()
    shutil.copy(tmp_path / "shards" / "s0.tar", tmp_path / "shards" / "again")
    (tmp_path / "shards" / "s0.parquet").write_bytes(b"PAR1")
    assert bring(spark, tmp_path, str(tmp_path / "shards")) == Ingested(
        10, 0, 0, 2, refused={"OTHER_FILE": 4, "DUPLICATE_ID": 4},
        twice=(("again/s0.tar: entry 1", "s0.tar: entry 1"), ("again/s0.tar: entry 3", "s0.tar: entry 3")),
        suffixes={"OTHER_FILE": {".json": 3, ".parquet": 1}},
    )  # fmt: skip


def test_a_folder_of_images_and_shards_is_not_guessed_at(spark: SparkSession, tmp_path: Path, folder: Path) -> None:
    (folder / "backup.tar").write_bytes(b"")
    with pytest.raises(BadInput, match=r"`folder:.*photos` or `webdataset:.*photos`"):
        open_source(spark, str(folder), "b1", settings_for(tmp_path))
    assert open_source(spark, f"folder:{folder}", "b1", settings_for(tmp_path)).kind == "folder"
    # What a Mac leaves is no shard.
    (folder / "backup.tar").rename(folder / "._backup.tar")
    assert open_source(spark, str(folder), "b1", settings_for(tmp_path)).kind == "folder"


def test_a_source_may_have_any_name_that_is_text(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("Müller", "2024:trip", "folder", "a b%20c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(JPEG)
        assert open_source(spark, str(tmp_path / name), "b1", settings_for(tmp_path)).root == str(tmp_path / name)
    with pytest.raises(BadInput, match="no UTF-8"):
        open_source(spark, "M\udcfcller", "b1", settings_for(tmp_path))


WITH_KEYS = "s3://KEY:SECRET@bucket/a.jpg"


def test_guarantee_14_a_table_that_names_what_is_not_the_sources_own(spark: SparkSession, tmp_path: Path) -> None:
    """One hostile row ends nothing but itself; what it named is neither read nor kept, also when it is embedded."""
    source, beside = tmp_path / "source", tmp_path / "beside"
    for place in (source, beside):
        place.mkdir()
        (place / "a.jpg").write_bytes(JPEG + b"a")
    (source / "key.jpg").write_bytes(b"a secret key")
    (source / "link.jpg").symlink_to(beside / "a.jpg")
    addresses = {
        "good": f"{source}/a.jpg", "passwd": "/etc/passwd", "environ": "file:///proc/self/environ",
        "key": f"{source}/key.jpg", "link": f"{source}/link.jpg", "beside": f"{beside}/a.jpg", "nul": "/a\0.jpg",
        "up": f"{source}/../beside/a.jpg", "secret": WITH_KEYS, "web": "https://u:SECRET@example.org/a.jpg",
        "long": "/" + "x" * 10_000, "none": None, "empty": "", "gone": f"{source}/none.jpg",
    }  # fmt: skip
    rows_: list[tuple[str | None, bytes | None, str | None]] = [(name, None, uri) for name, uri in addresses.items()]
    # Beside bytes an address is only noted, and only if it could be followed.
    rows_ += [("both", JPEG + b"b", WITH_KEYS), ("text", b"root:x:0:0", None), ("noted", JPEG, f"{source}/a.jpg")]
    rows_ += [(None, JPEG, None), ("new\nline", JPEG, None), ("n" * 1000, JPEG, None), ("nul\0", JPEG, None)]
    frame = spark.createDataFrame(rows_, "image_id string, content binary, uri string")
    frame.write.parquet(str(source / "table"))
    done = bring(spark, tmp_path, f"parquet:{source}/table")
    assert (done.listed, done.new, done.refused) == (21, 17, {"BAD_ID": 4})
    assert done.unread == {
        "OUTSIDE_ROOTS": 4, "BAD_ADDRESS": 4, "NOT_AN_IMAGE": 2, "UNSUPPORTED_SCHEME": 1, "NO_SOURCE": 2,
        "NOT_FOUND": 1,
    }  # fmt: skip
    found = {row["image_id"]: row for row in images(spark, tmp_path).collect()}
    assert {name: row["content"] for name, row in found.items() if row["content"]} == {
        "good": JPEG + b"a", "both": JPEG + b"b", "noted": JPEG,
    }  # fmt: skip
    kept = {name for name, row in found.items() if row["uri"]}
    assert kept == {"good", "noted", "key", "gone"}
    said = str([(row["uri"], row["content"], row["content_sha256"]) for row in found.values()])
    assert not {word for word in ("SECRET", "passwd", "environ", "secret key") if word in said}

    # The setting names another place. What could not be read before is so for the first time, and no change.
    done = bring(spark, tmp_path, f"parquet:{source}/table", f"sources.roots=[{beside}]")
    assert (done.changed, done.unread["OUTSIDE_ROOTS"]) == (2, 2)
    assert images(spark, tmp_path).where("changed_at IS NOT NULL").isEmpty()
    # Without it, later on: what is there stays.
    done = bring(spark, tmp_path, f"parquet:{source}/table")
    assert (done.changed, done.out_of_reach) == (0, {"OUTSIDE_ROOTS": 2})


def test_a_source_with_credentials_in_its_address_is_refused_unquoted(spark: SparkSession, tmp_path: Path) -> None:
    for text in (WITH_KEYS, f"folder:{WITH_KEYS}", f"delta:{WITH_KEYS}"):
        with pytest.raises(SettingsError) as stopped:
            open_source(spark, text, "b1", settings_for(tmp_path))
        assert "KEY:SECRET" not in str(stopped.value)


def test_hostile_names_and_broken_shards_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("a:b.jpg", "new\nline.jpg", "deep/s3:x.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(JPEG + name.encode())
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "pw.png").symlink_to("/etc/passwd")
    done = bring(spark, tmp_path, str(tmp_path / "photos"))
    assert done == Ingested(
        5, 4, 0, 0, refused={"LINKED_FOLDER": 1}, unread={"BAD_ADDRESS": 1, "OUTSIDE_ROOTS": 1},
        suffixes={"BAD_ADDRESS": {".jpg": 1}, "OUTSIDE_ROOTS": {".png": 1}},
    )  # fmt: skip
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "s.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(JPEG))
    whole = (tmp_path / "shards" / "s.tar").read_bytes()
    (tmp_path / "shards" / "t.tar").write_bytes(whole[:1024])
    done = bring(spark, tmp_path, str(tmp_path / "shards"))
    assert done == Ingested(4, 3, 0, 0, refused={"BROKEN_SHARD": 1}, broken=("t.tar",))


def test_the_record_has_the_exit_code_of_an_ingestion_that_could_not_take_all(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked for where the process's own is lost: in cluster deploy mode."""
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "t.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 4
        tar.addfile(info, io.BytesIO(JPEG))
    whole = (tmp_path / "shards" / "t.tar").read_bytes()
    (tmp_path / "shards" / "t.tar").write_bytes(whole[:1024])
    given = ["--source", str(tmp_path / "shards"), "--batch", "b1", "--run-id", "i1", "--quiet"]
    with pytest.raises(SystemExit) as ended:
        ingest.main([*given, "--set", f"warehouse={tmp_path}/warehouse"], prog_name="ingest")
    state = run_state(warehouse_for(spark, settings_for(tmp_path)), "i1", datetime.now(UTC))
    assert (ended.value.code, state.state, state.exit_code) == (1, "done", 1)
    assert "1 not taken: 1 BROKEN_SHARD" in state.message
    assert state.message in capsys.readouterr().out


def test_a_file_that_was_cut_off_is_named(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Spark says of it was "unforeseen"; so it is where a file is Parquet, or packed, by its name alone."""
    spark.createDataFrame([("x", JPEG)], "image_id string, content binary").write.parquet(str(tmp_path / "p"))
    (tmp_path / "p" / "cut.parquet").write_bytes(b"PAR1 and no end")
    packed = gzip.compress(("\n".join(record(record_id=f"r{n}") for n in range(2000))).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-500])
    (tmp_path / "plain.jsonl.gz").write_text(record())
    for option, name, said in (
        ("--source", f"parquet:{tmp_path}/p", ": cut.parquet cannot be read: it is of another form"),
        ("--basis", f"{tmp_path}/cut.jsonl.gz", " was cut off, or is not packed"),
        ("--basis", f"{tmp_path}/plain.jsonl.gz", " was cut off, or is not packed"),
    ):
        given = [option, name, "--batch", "b1", "--dry-run", "--ids-of", "files"][: 7 if option == "--basis" else 5]
        with pytest.raises(SystemExit) as ended:
            ingest.main([*given, "--set", f"warehouse={tmp_path}/warehouse"], prog_name="ingest")
        assert ended.value.code == 1
        assert f"{option} {name}{said}" in capsys.readouterr().err


def test_guarantee_13_what_was_erased_is_not_taken_in_again(spark: SparkSession, tmp_path: Path) -> None:
    """By its id, or by its bytes under whatever name."""
    for name in ("id.jpg", "bytes.jpg", "other.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(JPEG + name.encode())
    photos = str(tmp_path / "photos")
    assert admission(warehouse_for(spark, settings_for(tmp_path)), settings_for(tmp_path)) is None
    assert bring(spark, tmp_path, photos).new == 3
    settings = settings_for(tmp_path).model_copy(update={"hmac_key": SecretStr("a test's key")})
    warehouse = warehouse_for(spark, settings)
    by_name = {row["uri"].rsplit("/", 1)[1]: row for row in images(spark, tmp_path).collect()}
    erased = [(IMAGE, by_name["id.jpg"]["image_id"]), (CONTENT, by_name["bytes.jpg"]["content_sha256"])]
    stones = [(kind, RING.current, RING.digest(kind, value), "er-1", NOW) for kind, value in erased]
    warehouse.append(spark.createDataFrame(stones, TOMBSTONES.columns), TOMBSTONES)
    warehouse.delta(IMAGES).delete()
    (tmp_path / "photos" / "bytes.jpg").rename(tmp_path / "photos" / "another.jpg")
    source = open_source(spark, photos, "b1", settings)
    admit = admission(warehouse, settings)
    done, _ = ingest_images(warehouse, source, inline=True, now=NOW, images_a_part=1000, admit=admit)
    assert (done.listed, done.new, done.barred) == (3, 1, 2)
    assert [row["uri"].rsplit("/", 1)[1] for row in images(spark, tmp_path).collect()] == ["other.jpg"]


def test_a_source_that_is_not_there_is_named(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing at this place"):
        open_source(spark, str(tmp_path / "nowhere"), "b1", settings_for(tmp_path))


GIVEN = {"event_time": "2026-01-01T00:00:00Z", "event_type": "explicit_consent", "event_state": "ConsentGiven"}


def record(**changes: object) -> str:
    base: dict[str, object] = {
        "record_id": "r1",
        "schema_version": "1.0",
        "events": [GIVEN],
        "images": ["x"],
    }
    return json.dumps({**base, **changes})


RING = KeyRing.of(["a test's key"])


def imported(
    spark: SparkSession, tmp_path: Path, text: str, name: str = "basis.jsonl", key: str | None = None
) -> BasisImported:
    (tmp_path / name).write_text(text)
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    names = Pseudonyms(KeyRing.of([key])) if key else None
    file = read_basis(spark, str(tmp_path / name), names)
    return import_basis(warehouse, file, lambda c: c, ring=RING, names=names, now=NOW)


def test_basis_records_are_append_only_and_idempotent(spark: SparkSession, tmp_path: Path) -> None:
    first = imported(spark, tmp_path, record())
    assert (first.records, first.new_versions, first.new_links) == (1, 1, 1)
    assert imported(spark, tmp_path, record()).new_versions == 0
    second = imported(spark, tmp_path, record(images=["x", "y"], processing=None, schema_version="1.0"))
    assert (second.new_versions, second.new_links) == (0, 1)
    assert imported(spark, tmp_path, record(events=[])).new_versions == 1
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    assert warehouse.read(PROCESSING_BASIS).count() == 2
    assert rows(warehouse.read(BASIS_LINKS), "image_id", "record_id") == {("x", "r1"), ("y", "r1")}


def test_guarantee_4_a_content_that_is_back_is_a_new_version_and_the_last_one_read_counts(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Withdrawn, granted, withdrawn again in the very words of the first time; likewise holds and unread lines."""

    def less(name: str) -> str:
        return record(record_id=name, processing={"purposes": ["other"]})

    def more(name: str) -> str:
        return record(record_id=name, processing={"purposes": ["p"]})

    def held(name: str) -> str:
        return record(record_id=name, legal_hold_ref="h")

    broken = '{"record_id": "%s", "events": "soon"}'
    histories: dict[str, tuple[Any, Any, Any]] = {
        "purpose": (less, more, less), "hold": (held, more, held), "unread": (broken, more, broken),
        "mended": (more, broken, more), "both": (more, [more, broken], [more, broken]), "same": (more, more, more),
        "still": (more, broken, broken),
    }  # fmt: skip
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    versions = []
    for step in range(3):
        lines: list[str] = []
        for name, history in histories.items():
            for line in history[step] if isinstance(history[step], list) else (history[step],):
                lines.append(line % name if isinstance(line, str) else line(name))
        versions.append(imported(spark, tmp_path, "\n".join(lines)).new_versions)
    # All at one instant by the clock: what is read later counts as later.
    assert versions == [6, 3, 3]
    basis = warehouse.read(PROCESSING_BASIS)
    current = current_records(basis)
    assert not current.where("contested").count()
    assert rows(current.where("legal_hold_ref IS NOT NULL"), "record_id") == {("hold",)}
    assert rows(current.where("processing.purposes[0] = 'other'"), "record_id") == {("purpose",)}
    barred = quarantined(warehouse, basis)
    assert barred is not None
    assert rows(barred, "row_key") == {("unread",), ("both",), ("still",)}
    unread = warehouse.read(BASIS_QUARANTINE).groupBy("record_id").count()
    assert rows(unread, "record_id", "count") == {("unread", 2), ("mended", 1), ("both", 1), ("still", 1)}


def test_guarantee_13_neither_an_old_record_of_an_erased_person_nor_a_link_to_an_erased_image_is_stored(
    spark: SparkSession, tmp_path: Path
) -> None:
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
        record(record_id="new", pii_principal_id=gone, events=[{**GIVEN, "event_time": after}]),
        # It is stored still, because a hold suspends its erasure: only a new version can end the hold.
        record(record_id="held", pii_principal_id=gone, legal_hold_ref=None, source_batch_id="b1"),
        # The table has lost it, and a link waits for it: without it nobody could tell whose that picture is.
        record(record_id="lost", pii_principal_id=gone),
        record(record_id="other", pii_principal_id=other),
    ]
    links = spark.createDataFrame([("y", "lost", NOW, None)], BASIS_LINKS.columns)
    warehouse.append(links, BASIS_LINKS)
    done = imported(spark, tmp_path, "\n".join(lines))
    assert (done.records, done.new_versions, done.barred) == (6, 4, 2)
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("held",), ("lost",), ("new",), ("other",)}
    assert ("x", "old") not in rows(warehouse.read(BASIS_LINKS), "image_id", "record_id")
    # Nor does a link to an erased image wait for it: nothing would ever take it away again.
    stone = (IMAGE, RING.current, RING.digest(IMAGE, "gone"), "er-2", NOW)
    warehouse.append(spark.createDataFrame([stone], TOMBSTONES.columns), TOMBSTONES)
    done = imported(spark, tmp_path, record(record_id="other", pii_principal_id=other, images=["gone", "stays"]))
    assert (done.new_links, done.barred_links) == (1, 1)
    assert ("gone",) not in rows(warehouse.read(BASIS_LINKS), "image_id")
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


def test_lines_that_cannot_be_read_are_quarantined_with_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    text = "\n".join([record(), *UNREAD])
    done = imported(spark, tmp_path, text)
    # What names a record that nobody knows bars nothing: whoever waits for it has to be told.
    assert (done.records, done.new_versions, done.quarantined, done.nameless) == (1, 1, 5, 5)
    assert imported(spark, tmp_path, text).quarantined == 5
    found = warehouse_for(spark, settings_for(tmp_path)).read(BASIS_QUARANTINE)
    assert sorted(found.select("record_id", "reason").collect(), key=str) == sorted(UNREAD.values(), key=str)
    assert "soon" not in str(found.collect())
    # A line may hold a name: without the key nobody can try which one it was.
    assert not {hashlib.sha256(line.encode()).hexdigest() for line in UNREAD} & {
        row["line_digest"] for row in found.collect()
    }
    # And it goes with its record.
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    destroy_rows(warehouse, spark.createDataFrame([("e", "record", "r2", None)], ERASURE_ITEMS.columns))
    assert rows(warehouse.read(BASIS_QUARANTINE), "record_id") == {(None,), ("r3",)}


def test_a_delta_table_of_records(spark: SparkSession, tmp_path: Path) -> None:
    first = imported(spark, tmp_path, record())
    table = str(tmp_path / "records")
    (tmp_path / "one.jsonl").write_text(record())
    read = read_basis(spark, str(tmp_path / "one.jsonl"), None).records
    read.drop("face_box", "pseudonyms").write.format("delta").save(table)
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    again = import_basis(warehouse, read_basis(spark, f"delta:{table}", None), lambda c: c, ring=RING, now=NOW)
    assert (first.new_versions, again.records, again.new_versions) == (1, 1, 0)
    spark.range(1).write.format("delta").save(str(tmp_path / "other"))
    with pytest.raises(BadInput, match="unknown columns"):
        read_basis(spark, f"delta:{tmp_path}/other", None)


def test_guarantee_13_what_was_said_before_an_erasure_is_no_consent_given_since(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Neither what came while an earlier request was open, nor what a clock ahead, or a wrong year, dates after it."""
    hour, year = timedelta(hours=1), timedelta(days=365)
    back, ahead = ("hmac:" + digit * 64 for digit in "ab")

    def given(name: str, person: str, *at: timedelta, ended: bool = False) -> str:
        events = [{**GIVEN, "event_time": (NOW + moment).isoformat()} for moment in at]
        if ended:
            events[-1]["event_state"] = "ConsentWithdrawn"
        return record(record_id=name, pii_principal_id=person, events=events)

    warehouse = warehouse_for(spark, settings_for(tmp_path))
    imported(spark, tmp_path, "\n".join([given("held", back, -hour), given("wrong-year", ahead, year)]))
    people = [Target(SUBJECT, person) for person in (back, ahead)]
    (first, _) = request(warehouse, people, RING, run_id="a", now=NOW)
    # The first request is still open: a hold keeps it. A consent given since, and the person asks again.
    since = given("since", back, hour)
    ended = given("ended", back, hour / 2, hour, ended=True)
    assert imported(spark, tmp_path, f"{since}\n{ended}").new_versions == 2
    assert rows(_given_since(warehouse, pending(warehouse)), "request_id", "record_id") == {(first, "since")}
    assert request(warehouse, people[:1], RING, run_id="a", now=NOW + 2 * hour) == [first]
    assert _given_since(warehouse, pending(warehouse)).isEmpty()
    for spec in (PROCESSING_BASIS, BASIS_LINKS):
        warehouse.delta(spec).delete()
    again = [since, given("wrong-year", ahead, year)]
    later = [given("returns", back, 3 * hour), given("next-year", ahead, 2 * year)]
    # A system that exports each request as a withdrawal gives nothing by it.
    notice = given("notice", back, 4 * hour, ended=True)
    done = imported(spark, tmp_path, "\n".join([*again, *later, notice]))
    assert (done.new_versions, done.barred) == (2, 3)
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("returns",), ("next-year",)}


def test_ids_of_older_warehouses_lose_the_white_space_about_them(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = warehouse_for(spark, settings_for(tmp_path / "older"))
    links = [("i1", "sp\u00a0", NOW), ("i2", "\tsp", NOW), ("i3", "s p", NOW)]
    first = TableSpec(BASIS_LINKS.name, "image_id string, record_id string, recorded_at timestamp", "recorded_at")
    warehouse.append(spark.createDataFrame(links, first.columns), first)
    again = warehouse_for(spark, settings_for(tmp_path / "older")).read(BASIS_LINKS)
    assert rows(again, "image_id", "record_id") == {("i1", "sp"), ("i2", "sp"), ("i3", "s p")}


def fields(kind: DataType) -> dict[str, DataType]:
    """Fields of a struct, or of the structs that an array holds."""
    struct = kind.elementType if isinstance(kind, ArrayType) else kind
    assert isinstance(struct, StructType)
    return {field.name: field.dataType for field in struct.fields}


def test_the_published_schema_names_what_is_read(spark: SparkSession) -> None:
    published = json.loads((ROOT / "docs" / "basis-record.schema.json").read_text())
    read = fields(StructType.fromDDL(_JSON_SCHEMA))
    assert set(published["properties"]) == set(read)
    for name in ("processing", "face"):
        assert set(published["properties"][name]["properties"]) == set(fields(read[name]))
    event = published["properties"]["events"]["items"]["properties"]
    assert set(event) == set(fields(read["events"]))
    assert set(event["event_state"]["enum"]) == set(STATES)
    assert published["properties"]["processing"]["properties"]["lawful_basis"]["enum"] == list(LAWFUL_BASES)


def test_csv_template_completed_by_a_person(spark: SparkSession, tmp_path: Path, folder: Path) -> None:
    source = open_source(spark, str(folder), "b1", settings_for(tmp_path))
    images = source.listing().where("reason IS NULL")
    assert write_template(lambda: images, "b1", str(tmp_path / "t.csv")) == 3
    header, *lines = (tmp_path / "t.csv").read_text().splitlines()
    row = dict(zip(header.split(","), lines[0].split(","), strict=True))
    assert (row["images"], row["source_batch_id"], row["subject"]) == ("a.jpg", "b1", "")
    row |= {"subject": "A Person", **GIVEN}
    row |= {"purposes": "p1; p2", "face_box": "1 2 3 4"}
    text = header + "\n" + ",".join(row[c] for c in header.split(","))
    with pytest.raises(SettingsError, match="FACE_REINDEX_HMAC_KEY"):
        imported(spark, tmp_path, text, "full.csv")
    imported(spark, tmp_path, text, "full.csv", key="k")
    found = first_row(warehouse_for(spark, settings_for(tmp_path)).read(PROCESSING_BASIS))
    assert found["pii_principal_id"] == Pseudonyms(KeyRing.of(["k"])).of("A Person")[0]
    assert "A Person" not in str(found)
    assert found["processing"]["purposes"] == ["p1", "p2"]
    assert found["face_box"] == [1.0, 2.0, 3.0, 4.0]
    assert [e["event_state"] for e in found["events"]] == ["ConsentGiven"]


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("record_id,expires_at\nr,yesterday\ns,2026-01-01T00:00:00Z", ("r", "VALUE_OF_ANOTHER_TYPE")),
        ("record_id,face_box\nr,1 2 x 4\nr,1 2 3 4\ns,", ("r", "VALUE_OF_ANOTHER_TYPE")),
        ("record_id,images\n ,x\ns,y", (None, "NO_RECORD_ID")),
    ],
)
def test_records_with_unreadable_csv_cells_are_quarantined(
    spark: SparkSession, tmp_path: Path, line: str, unread: tuple[str | None, str]
) -> None:
    assert imported(spark, tmp_path, line, "bad.csv").records == 1
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    assert rows(warehouse.read(BASIS_QUARANTINE), "record_id", "reason") == {unread}
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("s",)}


def read(spark: SparkSession, path: str) -> tuple[dict[str, Any], set[tuple[str | None, str]]]:
    """The records of a file by their id, and what could not be read."""
    file = read_basis(spark, path, Pseudonyms(KeyRing.of(["k"])))
    return {row["record_id"]: row for row in file.records.collect()}, rows(file.unread, "record_id", "reason")


def test_guarantee_1_a_json_line_is_read_whole_or_not_at_all(spark: SparkSession, tmp_path: Path) -> None:
    """What of one record in one file differs is as unread as what is no JSON; the rest of the file is read."""
    less = {"purposes": ["p"]}
    lines = [
        record(record_id="good", images=["x"]), record(record_id="good", images=["y"]), record(record_id=" sp\u00a0"),
        record(record_id="two"), record(record_id="two", processing=less), record(record_id="two", events=[]),
        record(record_id="half") + "}", record(record_id="a") + record(record_id="b"),
        '{"record_id": "none", "events": [], "events": null}', record(record_id="box", face={"Box": [1, 2, 3, 4]}),
        record(record_id="whole", face=None), record(record_id="r\u200b1"),
        '{"record_id": "deep", "x": ' + "[" * 50_000,
    ]  # fmt: skip
    data = "\ufeff" + "\r\n".join(lines) + "\n\n"
    (tmp_path / "b.jsonl").write_bytes(data.encode() + b'{"record_id": "\xff"}\n\x00\n')
    found, unread = read(spark, str(tmp_path / "b.jsonl"))
    assert {name: row["images"] for name, row in found.items()} == {"good": ["x", "y"], "sp": ["x"], "whole": ["x"]}
    assert unread == {
        ("two", "CONFLICTING_VERSIONS"), ("half", "NO_JSON_OBJECT"), ("a", "NO_JSON_OBJECT"), ("b", "NO_JSON_OBJECT"),
        ("none", "FIELD_TWICE"), ("box", "UNKNOWN_FIELD"), ("r\u200b1", "ID_NOT_PLAIN"), ("r1", "ID_NOT_PLAIN"),
        ("deep", "NO_JSON_OBJECT"), (None, "NOT_UTF_8"), (None, "NO_JSON_OBJECT"),
    }  # fmt: skip


def test_guarantee_1_the_lines_of_a_csv_agree_or_their_record_is_not_read(spark: SparkSession, tmp_path: Path) -> None:
    header = "record_id,subject,images,expires_at,purposes,event_time,event_type,event_state"
    day = "2026-01-01T00:00:00Z"
    lines = [
        f"good,A Person,a.jpg,,p;q,{day},consent,ConsentGiven", "good,A Person ,b.jpg,,p; q,,,", f'"sp ",,,{day},,,,',
        "persons,A Person,a.jpg,,,,,", "persons,Another,b.jpg,,,,,",
        f"ends,,,{day},,,,", "ends,,,2027-01-01T00:00:00Z,,,,",
        f"state,,,,,{day},withdrawal,", f"state,,,,,{day},consent,ConsentGiven", "short,a", "long,,,,,,,,,",
        'open,"A Person,a.jpg,,,,,', ',"x",,', 'stray,A "P" erson,,,,,,', "in\u200bside,,,,,,,", ",,,,,,,", "",
        "first,,,,,2026-02-01T00:00:00Z,withdrawal,ConsentWithdrawn", f"first,,,,,{day},consent,ConsentGiven", header,
        'quoted,,"[""mine;boss.jpg""]; b.jpg",,,,,', 'list,,"[""mine;boss.jpg"", ""=x.jpg""]",,,,,',
    ]  # fmt: skip
    (tmp_path / "b.csv").write_text("\ufeff" + "\r\n".join([header, *lines]), encoding="utf-8")
    found, unread = read(spark, str(tmp_path / "b.csv"))
    assert {name: sorted(row["images"]) for name, row in found.items()} == {
        "good": ["a.jpg", "b.jpg"], "sp": [], "first": [], "list": ["=x.jpg", "mine;boss.jpg"]
    }  # fmt: skip
    assert found["good"]["pseudonyms"] == Pseudonyms(KeyRing.of(["k"])).of("A Person")
    assert found["good"]["processing"]["purposes"] == ["p", "q"]
    assert [event["event_state"] for event in found["first"]["events"]] == ["ConsentGiven", "ConsentWithdrawn"]
    assert unread == {
        ("persons", "CONFLICTING_CELLS"), ("ends", "CONFLICTING_CELLS"), ("state", "EVENT_INCOMPLETE"),
        ("short", "RAGGED_ROW"), ("long", "RAGGED_ROW"), ("open", "NOT_CSV"), (None, "NOT_CSV"), ("stray", "NOT_CSV"),
        (None, "RAGGED_ROW"), ("quoted", "VALUE_OF_ANOTHER_TYPE"), ("in\u200bside", "ID_NOT_PLAIN"),
        ("inside", "ID_NOT_PLAIN"),
    }  # fmt: skip


def test_guarantee_1_the_rows_of_a_table_are_read_as_strictly(spark: SparkSession, tmp_path: Path) -> None:
    columns = "record_id string, face struct<box: array<double>>, events array<struct<event_time: timestamp, "
    columns += "event_state: string, event_type: string>>, images array<string>"
    event = (NOW, "ConsentWithdrawn", "withdrawal")
    values = [
        ("good", ([1.0, 2.0, 3.0, 4.0],), [event], ["x"]), ("face", (None,), [event], []), ("none", None, [None], []),
        ("nan", ([float("nan")] * 4,), [], []), ("half", None, [(NOW, None, "withdrawal")], []),
        ("two", None, [event], []), ("two", None, [], []), (" ", None, [], []),
    ]  # fmt: skip
    spark.createDataFrame(values, columns).write.format("delta").save(str(tmp_path / "t"))
    found, unread = read(spark, f"delta:{tmp_path}/t")
    assert set(found) == {"good"}
    assert found["good"]["face_box"] == [1.0, 2.0, 3.0, 4.0]
    stored = found["good"]["events"][0]
    # By its name, wherever it stands in the struct.
    assert (stored["event_type"], stored["event_state"]) == ("withdrawal", "ConsentWithdrawn")
    assert unread == {
        ("face", "FACE_WITHOUT_BOX"), ("none", "VALUE_OF_ANOTHER_TYPE"), ("nan", "VALUE_OF_ANOTHER_TYPE"),
        ("half", "EVENT_INCOMPLETE"), ("two", "CONFLICTING_VERSIONS"), (None, "NO_RECORD_ID"),
    }  # fmt: skip
    wrong = spark.createDataFrame([], "record_id string, events array<struct<event_time: timestamp, state: string>>")
    wrong.write.format("delta").save(str(tmp_path / "wrong"))
    with pytest.raises(BadInput, match=r"events\.state"):
        read_basis(spark, f"delta:{tmp_path}/wrong", None)


def test_guarantee_4_the_file_that_is_named_is_read_and_all_of_it(spark: SparkSession, tmp_path: Path) -> None:
    """Its name is no pattern that names others, and nothing with a withdrawal in it is passed over in silence."""
    for name in ("basis[1].jsonl", "basis1.jsonl", "a{1,2}.jsonl", "a1.jsonl", "*.jsonl", "_w.jsonl", ".w.jsonl"):
        (tmp_path / name).write_text(record(record_id=name))
    for name in ("basis[1].jsonl", "a{1,2}.jsonl", "*.jsonl"):
        assert rows(read_basis(spark, str(tmp_path / name), None).records, "record_id") == {(name,)}
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "x.jsonl").write_text(record(record_id="x"))
    (folder / "_SUCCESS").write_text("")
    assert rows(read_basis(spark, str(folder), None).records, "record_id") == {("x",)}
    for name in ("sub/z.jsonl", "_y.jsonl"):
        (folder / name).write_text(record(record_id=name))
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "x.jsonl").write_text(record(record_id="x"))
    put(bytes(tmp_path) + b"/latin/J\xfcrgen.jsonl", record(record_id="w").encode())
    (tmp_path / "c.csv").write_text("record_id\n[1]\n")
    (tmp_path / "c[1].csv").write_text("record_id\nr1\n")
    assert rows(read_basis(spark, str(tmp_path / "c[1].csv"), None).records, "record_id") == {("r1",)}
    for name in ("empty.jsonl", "empty.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    for name in ("cut", "cut.csv"):
        (tmp_path / name / "day=1").mkdir(parents=True)
        for file, text in {"a 1": "", "b": " \n", "c": record() if name == "cut" else "record_id\nr1\n"}.items():
            (tmp_path / name / "day=1" / f"{file}.x").write_text(text)
    for name, said in {
        "cut": r"no line in day=1/a 1\.x, day=1/b\.x; nothing",
        "cut.csv": r"no line in day=1/a 1\.x, day=1/b\.x; nothing",
        "_w.jsonl": r"_w\.jsonl would not be read", ".w.jsonl": r"\.w\.jsonl would not be read",
        "folder": r"_y\.jsonl, sub/z\.jsonl would not be read", "none.jsonl": "nothing at this place",
        "latin": "rgen.jsonl would not be read, for Spark's Java",
        "basis[2].jsonl": "nothing at this place", "empty.jsonl": "no line in it", "empty.csv": "no line in it",
        "blank.jsonl": "no line in it",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=said):
            read_basis(spark, str(tmp_path / name), None)


def test_spark_passes_over_what_lies_beside_folders_of_partitions(spark: SparkSession, tmp_path: Path) -> None:
    """For which it is refused by its name, and nothing is read."""
    folder = tmp_path / "basis"
    (folder / "day=2026-01-31").mkdir(parents=True)
    (folder / "day=2026-01-31" / "given.jsonl").write_text(record(record_id="g"))
    (folder / "withdrawn.jsonl").write_text(record(record_id="w"))
    assert [json.loads(row["value"])["record_id"] for row in spark.read.text(str(folder)).collect()] == ["g"]
    with pytest.raises(BadInput, match=r"withdrawn\.jsonl would not be read"):
        read_basis(spark, str(folder), None)


def test_a_csv_of_another_form_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    for text in ("id,images\n1,2", "record_id,images,images\n1,2,3", "Record_id\n1", "", "record_id,\n1,2"):
        with pytest.raises(BadInput, match="nothing was imported"):
            imported(spark, tmp_path, text, "bad.csv")
    with pytest.raises(BadInput, match="second header"):
        imported(spark, tmp_path, "record_id,images\na,b\nimages,record_id\nb,a", "bad.csv")
    folder = tmp_path / "many.csv"
    folder.mkdir()
    (folder / "1 a.csv").write_text("record_id,images\nr1,a.jpg\n")
    (folder / "2.csv").write_text("\ufeffrecord_id,images\r\nr2,b.jpg\r\n")
    (folder / "_SUCCESS").write_text("")
    assert rows(read_basis(spark, str(folder), None).records, "record_id") == {("r1",), ("r2",)}
    # The longest is read first.
    (folder / "2.csv").write_text("record_id,images,subject\n" + "r2,b.jpg,Anna\n" * 9)
    with pytest.raises(BadInput, match=r"many\.csv/1 a\.csv begin\(s\) with another header.*nothing was imported"):
        read_basis(spark, str(folder), None)


def test_a_file_that_has_no_json_lines_is_refused_as_a_whole(spark: SparkSession, tmp_path: Path) -> None:
    """Each of its lines would have been set aside, as one that may be anybody's withdrawal."""
    for text, said in (("\n[\n" + record() + "\n]", "one JSON over many lines"), ("record_id\nr1", "it is a CSV")):
        with pytest.raises(BadInput, match=f"{said}.*nothing was imported"):
            imported(spark, tmp_path, text)


def test_guarantee_6_a_revoked_batch_is_in_force_again_by_a_later_assessment_only(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Not by the one that it had, given once more with the next delivery, whatever its date."""
    warehouse = warehouse_for(spark, settings_for(tmp_path))
    ahead, later = ({**BATCH, "assessed_at": f"2026-06-{day}T00:00:00Z"} for day in ("20", "21"))

    def given(batch: dict[str, str], at: timedelta = timedelta(0)) -> tuple[bool, bool, str]:
        """Whether it was recorded, whether it is void, and how the batch stands then."""
        recorded = record_batch(warehouse, batch, ring=RING, now=NOW + at)
        void = is_void(warehouse, batch, ring=RING)
        state = first_row(current_batches(warehouse.read(SOURCE_BATCHES)))
        assert state["batch_collection"] == "uploaded_by_subject"
        return recorded, void, state["batch_state"]

    assert given(BATCH) == (True, False, "assessed")
    assert given(BATCH) == (False, False, "assessed")
    assert given(ahead) == (True, False, "assessed")
    assert given({**BATCH, "state": "revoked"}) == (True, False, "revoked")
    assert given(BATCH, -timedelta(hours=1)) == (False, True, "revoked")
    assert given(ahead, timedelta(days=30)) == (False, True, "revoked")
    assert given(later, timedelta(days=30)) == (True, False, "assessed")
    # Nor does it end the later one, in a nightly command that nobody has changed.
    assert given(BATCH, timedelta(days=31)) == (False, False, "assessed")
    assert warehouse.read(SOURCE_BATCHES).count() == 4


def test_guarantee_6_what_an_erased_batch_held_is_stored_again_after_a_later_assessment_only(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse, hour = warehouse_for(spark, settings_for(tmp_path)), timedelta(hours=1)
    records = "\n".join(record(record_id=batch, source_batch_id=batch, images=[batch]) for batch in ("b1", "b2"))
    request(warehouse, [Target("batch", "b1")], RING, run_id="a", now=NOW)
    # The table of batches was lost with the revocation, and the assessment that the batch had comes in again.
    assert not record_batch(warehouse, BATCH, ring=RING, now=NOW + hour)
    assert is_void(warehouse, BATCH, ring=RING)
    with pytest.raises(GovernanceError, match="cannot be read"):
        record_batch(warehouse, BATCH, ring=KeyRing({}), now=NOW + hour)
    assert imported(spark, tmp_path, records).barred == 1
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("b2",)}
    # Of a backup, or of an import by an earlier release: it goes as what was erased.
    stored = warehouse.read(PROCESSING_BASIS).withColumns({n: F.lit("b1") for n in ("record_id", "source_batch_id")})
    warehouse.append(stored, PROCESSING_BASIS)
    stones = Stones.read(warehouse.read(TOMBSTONES), RING)
    assert [tuple(row) for row in _records_again(warehouse, stones).collect()] == [("record", "b1")]
    later = {**BATCH, "assessed_at": (NOW + hour).isoformat()}
    assert record_batch(warehouse, later, ring=RING, now=NOW + 2 * hour)
    assert not is_void(warehouse, later, ring=RING)
    assert _records_again(warehouse, stones).isEmpty()
    warehouse.delta(PROCESSING_BASIS).delete("record_id = 'b1'")
    assert imported(spark, tmp_path, records).barred == 0
    assert rows(warehouse.read(PROCESSING_BASIS), "record_id") == {("b1",), ("b2",)}
    # Revoked since, it is not in force by that assessment any more, in this respect neither.
    assert record_batch(warehouse, {**BATCH, "state": "revoked"}, ring=RING, now=NOW + 3 * hour)
    assert [tuple(row) for row in _records_again(warehouse, stones).collect()] == [("record", "b1")]
    for spec in (PROCESSING_BASIS, BASIS_LINKS):
        warehouse.delta(spec).delete("record_id = 'b1'")
    assert imported(spark, tmp_path, records).barred == 1


def test_an_incomplete_assessment_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(json.dumps({**BATCH, "assessment_ref": None}))
    with pytest.raises(BadInput, match="needs every field"):
        read_batch(str(file))
