"""Guarantee 8: what is withdrawn while a run is under way is gated again before staging, import and promotion."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bench.pictures import Picture
from jobs.governance.basis import import_basis
from jobs.governance.basis_files import read_basis
from jobs.governance.tombstones import KeyRing
from jobs.index.milvus.connect import connect
from jobs.schemas import EMBEDDINGS, IMAGES
from jobs.settings import load_settings
from jobs.tables.sources import FolderSource
from jobs.tables.store import Warehouse
from tests.e2e.line import prepare, run_job

pytestmark = pytest.mark.e2e


@pytest.fixture
def chosen(pictures: tuple[Path, list[Picture]]) -> list[Picture]:
    kinds: dict[str, Picture] = {}
    for picture in pictures[1]:
        if picture.expected == "embedded" and picture.persons == 1:
            kinds.setdefault(picture.kind, picture)
    return list(kinds.values())[:5]


def test_guarantee_8_withdrawn_between_the_steps_never_goes_live(
    spark: SparkSession,
    pictures: tuple[Path, list[Picture]],
    chosen: list[Picture],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for picture in chosen:
        (tmp_path / "pictures" / picture.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0] / picture.path, tmp_path / "pictures" / picture.path)
    home = tmp_path / "line"
    config = prepare(home, chosen)
    warehouse = Warehouse(spark, str(home / "warehouse"), is_path=True)

    def run(name: str, *arguments: str) -> dict[str, Any]:
        code, result = run_job(name, config, *arguments, read=lambda: capsys.readouterr().out)
        assert code == 0, result["message"]
        return result

    def withdraw(picture: Picture) -> None:
        lines = (home / "basis.jsonl").read_text().splitlines()
        record = next(r for r in map(json.loads, lines) if picture.path in r["images"])
        at = datetime.now(UTC).isoformat()
        record["events"].append({"event_time": at, "event_type": "withdrawal", "event_state": "ConsentWithdrawn"})
        (home / "withdrawal.jsonl").write_text(json.dumps(record))
        records = read_basis(spark, str(home / "withdrawal.jsonl"), None)
        names = FolderSource(spark, ".", "demo", load_settings(config))
        import_basis(warehouse, records, names.image_id, ring=KeyRing({}), now=datetime.now(UTC))

    def indexed() -> set[str]:
        """The pictures whose faces the collection holds."""
        with connect(load_settings(config)) as index:
            index.load("faces_w1", timeout=60)
            held = [int(k) for bucket in range(4) for page in index.keys("faces_w1", bucket) for k in page]
        images = warehouse.read(IMAGES).select("image_id", F.substring_index("uri", "/", -2).alias("path"))
        faces = warehouse.read(EMBEDDINGS).where(F.col("face_id").isin(held)).join(images, "image_id")
        return {row["path"] for row in faces.select("path").collect()}

    before_stage, before_import, before_proof, before_promotion, kept = chosen
    run(
        "ingest", "--source", str(tmp_path / "pictures"), "--batch", str(home / "demo.batch.yaml"),
        "--basis", str(home / "basis.jsonl"),
    )  # fmt: skip
    run("embed", "--run-id", "w1")
    withdraw(before_stage)
    run("load", "--run-id", "w1")
    assert indexed() == {p.path for p in (before_import, before_proof, before_promotion, kept)}
    # A run that was killed after staging comes by here again: staged rows are gated before they are imported.
    withdraw(before_import)
    forget_import(spark, home / "warehouse")
    run("load", "--run-id", "w1")
    assert indexed() == {p.path for p in (before_proof, before_promotion, kept)}
    withdraw(before_proof)
    run("verify", "--run-id", "w1")
    assert indexed() == {before_promotion.path, kept.path}
    withdraw(before_promotion)
    assert run("promote", "--run-id", "w1")["current"] == "faces_w1"
    assert indexed() == {kept.path}


def forget_import(spark: Any, warehouse: Path) -> None:
    """As if the run had been killed between staging and import: the later steps never got their record."""
    from delta.tables import DeltaTable

    DeltaTable.forPath(spark, str(warehouse / "run_steps")).delete("step LIKE 'import%' OR step = 'index'")
