"""A short file and its terms become whole records; what the gate will say to records before they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from jobs.governance.basis_files import content_digest, read_basis
from jobs.ingest import main as ingest
from jobs.runs.history import last_outcomes
from jobs.schemas import BASIS_LINKS, IMAGE_STATUS, IMAGES, PROCESSING_BASIS, SOURCE_BATCHES
from tests.conftest import PURPOSE
from tests.spark.helpers import BATCH, NOW, rows, settings_for, warehouse_for

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("tables")]

JPEG = b"\xff\xd8\xff\xe0"
FIRST, SECOND = "0123456789abcdef" * 4, "fedcba9876543210" * 4
GIVEN, ENDED = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00.5+01:00"
TERMS: dict[str, Any] = {
    "source_batch_id": "b1", "purposes": [PURPOSE], "pii_controllers": ["Example; Ltd"],
    "lawful_basis": "eu-gdpr:A6-1-a", "special_category_condition": "eu-gdpr:A9-2-a",
    "collection_method": "uploaded_by_subject", "retention_period": "P9Y", "jurisdiction": "EU",
    "withdrawal_method": 'by "mail"', "impact_assessment": "i", "privacy_notice": "n", "validity_duration": "P5Y",
    "event_type": "explicit_consent", "event_state": "ConsentGiven",
}  # fmt: skip


class Line:
    """A folder of pictures, and `ingest` on it."""

    def __init__(self, spark: SparkSession, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.warehouse = warehouse_for(spark, settings_for(folder))
        for name in ("anna/1.jpg", "anna/b/2.jpg", "group.jpg", "other.jpg"):
            (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "photos" / name).write_bytes(JPEG + name.encode())
        (folder / "batch.yaml").write_text(yaml.safe_dump(BATCH))
        (folder / "terms.yaml").write_text(yaml.safe_dump(TERMS))

    def said(self, *options: str, basis: str = "people[1].csv") -> dict[str, Any]:
        """The last line of an `ingest` of the folder with these options."""
        settings = [f"warehouse={self.folder}/warehouse", f"governance.purposes=[{PURPOSE}]",
                    f"governance.allowed_purposes=[{PURPOSE}]"]  # fmt: skip
        given = ["--source", str(self.folder / "photos"), "--batch", str(self.folder / "batch.yaml"), "--quiet"]
        given += ["--json", "--basis", str(self.folder / basis), *options]
        with pytest.raises(SystemExit):
            ingest.main([*given, *(part for s in settings for part in ("--set", s))], prog_name="ingest")
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out.splitlines()[-1])
        return result

    def people(self, *lines: str, check: bool = False, more: tuple[str, ...] = ()) -> dict[str, Any]:
        """The same with these lines of a short file, whose name is no pattern of another one's."""
        text = "\n".join(["image,subject,given_at,withdrawn_at", *lines])
        (self.folder / "people[1].csv").write_text(text, encoding="utf-8")
        (self.folder / "people1.csv").write_text("image,subject,given_at\n")
        return self.said("--terms", str(self.folder / "terms.yaml"), *(["--check"] if check else []), *more)


def test_guarantee_1_a_short_file_is_expanded_shown_checked_and_stored_as_whole_records(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_REINDEX_HMAC_KEY", FIRST)
    line = Line(spark, tmp_path, capsys)
    given = [f"anna/**,Anna,{GIVEN},", f"group.jpg,Anna,{GIVEN},", f"group.jpg,Ben,{GIVEN},"]
    whole = str(tmp_path / "whole.csv")
    result = line.people(*given, check=True, more=("--expanded", whole))
    assert result["ok"], result
    assert result["records"] == {"permitted": 2}
    assert result["images"] == {"permitted": 3, "NO_BASIS": 1}
    assert (
        "3 lines with these terms: 2 basis records of 2 persons for 3 images, 1 of them of several" in result["message"]
    )
    assert "1 image of the source in no line" in result["message"]
    # Nothing was stored; what was written is what a person looks at, and a basis file like any.
    stored = (IMAGES, PROCESSING_BASIS, BASIS_LINKS, SOURCE_BATCHES)
    assert all(line.warehouse.read(spec).isEmpty() for spec in stored)
    records = read_basis(spark, whole, None).records
    shown = {row[0] for row in records.select(content_digest(records.drop("pseudonyms"))).collect()}

    assert line.people(*given)["ok"]
    basis = line.warehouse.read(PROCESSING_BASIS)
    ids = {row[0] for row in rows(basis, "record_id")}
    assert {row[0] for row in rows(basis, "content_digest")} == shown
    assert len(ids) == 2
    assert all(name.startswith("b1-") for name in ids)
    assert "Anna" not in str(basis.collect())
    links = rows(line.warehouse.read(BASIS_LINKS), "image_id", "record_id")
    assert (len(links), basis.select("processing.pii_controllers").first()) == (4, (["Example; Ltd"],))

    # Lines that stand elsewhere, under a new key: the same records. One is withdrawn, and stays so.
    monkeypatch.setenv("FACE_REINDEX_HMAC_KEY", f"{SECOND},{FIRST}")
    assert line.people(f"group.jpg,BEN,{GIVEN},{ENDED}", *given[:2])["ok"]
    assert {row[0] for row in rows(line.warehouse.read(PROCESSING_BASIS), "record_id")} == ids
    result = line.people(*given, check=True)
    assert result["records"] == {"CONSENT_ENDED": 1, "permitted": 1}
    assert result["images"] == {"permitted": 2, "NO_BASIS": 1, "OTHERS_REFUSED": 1}

    # All or nothing, by the number of the line.
    for lines, said in (
        ([given[0], "nobody/*,Ben,2026-03-01T00:00:00Z,"], "line 3 means no image of the source"),
        ([given[0], f"group.jpg,Anna,{GIVEN},{ENDED}"], "lines 2 and 3 are of one permission"),
        ([given[0], f"group.jpg,Cem,{GIVEN}"], "line 3: has more or fewer cells"),
    ):
        result = line.people(*lines)
        assert (result["exit_code"], said in result["message"]) == (1, True), result
        assert "Anna" not in result["message"]
        assert "nobody" not in result["message"]
    # Spark passes over a file of such a name.
    (tmp_path / "_people.csv").write_text((tmp_path / "people[1].csv").read_text())
    result = line.said("--terms", str(tmp_path / "terms.yaml"), basis="_people.csv")
    assert (result["exit_code"], "_people.csv would not be read" in result["message"]) == (1, True), result
    assert rows(line.warehouse.read(BASIS_LINKS), "image_id", "record_id") == links


def test_the_fields_that_a_record_lacks_are_named(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(spark, tmp_path, capsys)
    lists, texts = ("purposes", "pii_controllers"), TERMS.keys() - {"source_batch_id", "validity_duration"}
    processing = {name: TERMS[name] for name in texts if not name.startswith("event_")}
    record = {
        "schema_version": "1.0", "pii_principal_id": "hmac:" + "a" * 64, "source_batch_id": "b1",
        "events": [{"event_time": GIVEN, "validity_duration": "P5Y", "event_type": "e", "event_state": "ConsentGiven"}],
    }  # fmt: skip
    lacking = [*processing, "source_batch_id"]
    made = []
    for name in lacking:
        for number, empty in enumerate(([], ["\u00a0"]) if name in lists else ("\u00a0", None)):
            said: dict[str, Any] = {
                "processing": {**processing, **({} if name == "source_batch_id" else {name: empty})}
            }
            said |= {"source_batch_id": empty} if name == "source_batch_id" else {}
            made.append({**record, **said, "record_id": f"{name}-{number}", "images": ["group.jpg"]})
    made.append({**record, "record_id": "good", "processing": processing, "images": ["other.jpg"]})
    (tmp_path / "basis.jsonl").write_text("\n".join(map(json.dumps, made)))
    result = line.said("--check", basis="basis.jsonl")
    assert result["records"] == {"FIELD_MISSING": 2 * len(lacking), "permitted": 1}
    assert result["missing"] == dict.fromkeys(sorted(lacking), 2)
    assert "privacy_notice in 2" in result["message"]

    assert line.said(basis="basis.jsonl")["ok"]
    ids = {Path(uri).name: image_id for uri, image_id in rows(line.warehouse.read(IMAGES), "uri", "image_id")}
    ended = [(ids["group.jpg"], None, None, "refused", "FIELD_MISSING", None, None, 0, None, "n1", NOW)]
    line.warehouse.append(ended, IMAGE_STATUS)
    found = {row["source_key"]: row for row in last_outcomes(line.warehouse).collect()}
    assert found["group.jpg"]["missing"] == ";".join(sorted(lacking))
    assert found["anna/b/2.jpg"]["missing"] is None
    assert (found["other.jpg"]["status"], found["other.jpg"]["source"]) == ("undecided", f"{tmp_path}/photos")
