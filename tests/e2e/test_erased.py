"""Erasure by the commands: withdrawn, synced, erased, proven, and not coming back; and nobody is named."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from bench.pictures import Picture
from jobs.index.milvus.connect import connect
from jobs.schemas import EMBEDDINGS, IMAGES
from jobs.settings import load_settings
from jobs.tables.store import Warehouse
from tests.e2e.line import prepare, run_job
from tests.spark.indexed import KEY, Indexed, principal, write_settings

pytestmark = pytest.mark.e2e


class Line:
    """A home with five people's pictures, and the commands over it; keeps everything that they said."""

    def __init__(self, spark: Any, pictures: tuple[Path, list[Picture]], folder: Path, capfd: Any) -> None:
        kinds: dict[str, Picture] = {}
        for picture in pictures[1]:
            if picture.expected == "embedded" and picture.persons == 1:
                kinds.setdefault(picture.kind, picture)
        self.chosen = list(kinds.values())[:5]
        self.home, self.said = folder / "line", list[str]()
        self.config = prepare(self.home, self.chosen)
        self.warehouse = Warehouse(spark, str(self.home / "warehouse"), is_path=True)
        lines = (self.home / "basis.jsonl").read_text().splitlines()
        self.records = {record["images"][0]: record for record in map(json.loads, lines)}
        self._from, self._folder, self._capfd = pictures[0], folder / "pictures", capfd

    def bring(self, *some: Picture) -> None:
        """Put pictures into the folder that is ingested."""
        for picture in some:
            target = self._folder / picture.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._from / picture.path, target)

    def run(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run a job; it must end well."""

        def read() -> str:
            out, err = self._capfd.readouterr()
            self.said += [out, err]
            return str(out)

        code, result = run_job(name, self.config, *arguments, read=read)
        assert code == 0, result["message"]
        return result

    def ingest(self) -> dict[str, Any]:
        """Bring the folder and the records in; counts of images."""
        (self.home / "basis.jsonl").write_text("\n".join(json.dumps(r) for r in self.records.values()))
        done = self.run(
            "ingest", "--source", str(self._folder), "--batch", str(self.home / "demo.batch.yaml"),
            "--basis", str(self.home / "basis.jsonl"),
        )  # fmt: skip
        counts: dict[str, Any] = done["counts"]["images"]
        return counts

    def withdraw(self, picture: Picture) -> None:
        """Add the event to the record, for the next ingestion."""
        at = datetime.now(UTC).isoformat()
        event = {"event_time": at, "event_type": "withdrawal", "event_state": "ConsentWithdrawn"}
        self.records[picture.path]["events"].append(event)

    def live(self) -> set[int]:
        """Keys behind the alias."""
        index = connect(load_settings(self.config))
        index.load("faces", timeout=60)
        keys = set(np.concatenate(list(index.keys("faces"))).tolist())
        index.close()
        return keys


def test_guarantees_9_and_14_by_the_commands(
    indexed: Indexed, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, erased, proven, on a warehouse whose faces nobody had to compute."""
    monkeypatch.setenv("FACE_REINDEX_HMAC_KEY", KEY)
    made = indexed.copy_to(tmp_path / "w")
    config = write_settings(made, ttl_s=600)
    live = made.live_keys()

    def run(name: str, *arguments: str) -> dict[str, Any]:
        code, result = run_job(name, config, *arguments, read=lambda: str(capfd.readouterr().out))
        assert code == 0, result["message"]
        return result

    requests = made.folder / "requests.txt"
    requests.write_text(principal(0) + "\n")
    stored = run("erase", "--subject-file", str(requests), "--dry-run")["stored"]
    assert stored["counts"] == {"images": 2, "faces": 2, "records": 1}
    done = run("erase", "--subject-file", str(requests), "--run-id", "e1")
    assert done["receipts"][0]["erased"]["faces"] == 2
    assert run("erase", "--receipts", "e1")["receipts"] == done["receipts"]
    assert made.live_keys() == live - indexed.faces_of(0)
    assert "nothing of" in run("verify", "--erased")["message"]
    assert run("verify", "--audit")["events"] >= 6


@pytest.mark.faults
def test_guarantees_7_9_13_and_14_by_the_commands(
    spark: SparkSession,
    pictures: tuple[Path, list[Picture]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FACE_REINDEX_HMAC_KEY", KEY)
    line = Line(spark, pictures, tmp_path, capfd)
    withdrawn, erased, *_, late = line.chosen
    line.bring(*line.chosen[:-1])
    line.ingest()
    line.run("reindex", "--run-id", "night")
    assert len(line.live()) == 4
    # Between the nights: a consent is withdrawn, and a new picture comes.
    line.withdraw(withdrawn)
    line.bring(late)
    assert line.ingest()["new"] == 1
    assert "1 image erased, 1 face added" in line.run("sync")["message"]
    assert len(line.live()) == line.warehouse.read(EMBEDDINGS).count() == 4
    # A person asks to be erased.
    requests = line.home / "requests.txt"
    requests.write_text(line.records[erased.path]["pii_principal_id"] + "\n")
    stored = line.run("erase", "--subject-file", str(requests), "--dry-run")
    assert stored["stored"]["counts"] == {"images": 1, "faces": 1, "records": 1}
    done = line.run("erase", "--subject-file", str(requests), "--run-id", "e1")
    assert done["receipts"][0]["erased"]["faces"] == 1
    assert line.run("erase", "--receipts", "e1")["receipts"] == done["receipts"]
    assert len(line.live()) == 3
    assert "nothing of" in line.run("verify", "--erased")["message"]
    # It does not come back: neither the picture from its folder, nor by the next night.
    again = line.ingest()
    assert (again["new"], again["barred"]) == (0, 2)
    line.run("reindex", "--run-id", "night-2")
    assert len(line.live()) == line.warehouse.read(IMAGES).count() == 3
    assert line.run("verify", "--audit")["events"] >= 14
    line.run("status", "--processing", str(line.home / "processing.md"))
    assert "Erasures so far: 2 requests" in (line.home / "processing.md").read_text()
    nobody_is_named(line)


def nobody_is_named(line: Line) -> None:
    """Not in what was said, nor in what was written for people to read: no person, picture, vector or key."""
    evidence = (line.home / "warehouse" / "_evidence").rglob("*")
    reports = [path.read_text() for path in evidence if path.suffix in (".json", ".jsonl")]
    assert len(reports) > 5
    everything = "\n".join([*line.said, *reports, (line.home / "processing.md").read_text()])
    vectors = [str(row["embedding"][0]) for row in line.warehouse.read(EMBEDDINGS).select("embedding").collect()]
    people = [record["pii_principal_id"] for record in line.records.values()]
    names = [Path(picture.path).name for picture in line.chosen]
    assert len(everything) > 2_000
    assert [value for value in (*vectors, *people, *names, KEY) if value in everything] == []
