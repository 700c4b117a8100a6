"""From pictures of every kind to a promoted collection, and what happens the nights after."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bench.pictures import Picture
from jobs.index.milvus.connect import connect
from jobs.schemas import ALL_TABLES, EMBEDDINGS, IMAGE_STATUS, IMAGES, RUN_STEPS, RUNS
from jobs.settings import load_settings
from jobs.tables.store import Warehouse
from tests.e2e.line import BATCH, prepare, run_job, trained
from tests.milvus.server import MilvusStandalone, temporary
from tests.spark.helpers import first_row
from tests.unit.runs.samples import read

pytestmark = pytest.mark.e2e


@dataclass
class Night:
    """One warehouse, shared by the tests of this module in their order."""

    spark: Any
    config: Path
    folder: Path
    chosen: list[Picture]
    run: Callable[..., tuple[int, dict[str, Any]]]

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.spark, str(self.config.parent / "warehouse"), is_path=True)

    def live(self) -> str | None:
        index = connect(load_settings(self.config))
        try:
            return index.alias_target("faces")
        finally:
            index.close()


@pytest.fixture(scope="module")
def chosen(pictures: tuple[Path, list[Picture]]) -> list[Picture]:
    """Two of every kind (all of the fakes): some of everything that can go right and wrong."""
    seen: Counter[str] = Counter()
    some = []
    for picture in pictures[1]:
        seen[picture.kind] += 1
        if seen[picture.kind] <= (6 if picture.kind == "fake" else 2):
            some.append(picture)
    return some


@pytest.fixture(scope="module")
def folder(
    pictures: tuple[Path, list[Picture]], chosen: list[Picture], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("night") / "pictures"
    for picture in chosen:
        (root / picture.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0] / picture.path, root / picture.path)
    return root


@pytest.fixture(scope="module")
def home(folder: Path, chosen: list[Picture]) -> Path:
    return prepare(folder.parent / "line", chosen)


@pytest.fixture
def night(
    spark: SparkSession, home: Path, folder: Path, chosen: list[Picture], capsys: pytest.CaptureFixture[str]
) -> Night:
    def run(name: str, *arguments: str, config: Path = home) -> tuple[int, dict[str, Any]]:
        return run_job(name, config, *arguments, read=lambda: capsys.readouterr().out)

    return Night(spark, home, folder, chosen, run)


def outcomes(night: Night) -> dict[str, tuple[str, int]]:
    """Picture's path → its last status and number of faces."""
    status = (
        night.warehouse.read(IMAGE_STATUS)
        .groupBy("image_id")
        .agg(F.max_by(F.struct("status", F.coalesce("faces", F.lit(0)).alias("faces")), "decided_at").alias("last"))
    )
    images = night.warehouse.read(IMAGES).select("image_id", F.substring_index("uri", "/", -2).alias("path"))
    return {r["path"]: (r["last"]["status"], r["last"]["faces"]) for r in images.join(status, "image_id").collect()}


def test_1_without_a_basis_everything_is_refused(night: Night, tmp_path: Path) -> None:
    config = prepare(tmp_path / "empty", [])
    code, result = night.run("ingest", "--source", str(night.folder), "--batch", "demo", config=config)
    assert code == 0
    assert "images without a basis record are refused" in result["message"]
    code, result = night.run("reindex", config=config)
    assert (code, result["error"]) == (3, "GovernanceError")
    assert "basis" in result["message"]
    warehouse = Warehouse(night.spark, str(tmp_path / "empty" / "warehouse"), is_path=True)
    assert warehouse.read(EMBEDDINGS).count() == 0
    # In cluster deploy mode the exit code is lost; the table has it.
    last = first_row(warehouse.read(RUNS).where("job = 'reindex'").orderBy(F.col("recorded_at").desc()))
    assert (last["state"], last["exit_code"]) == ("failed", 3)


def test_2_every_picture_ends_as_it_should(night: Night) -> None:
    batch, basis = str(night.config.parent / "demo.batch.yaml"), str(night.config.parent / "basis.jsonl")
    code, _ = night.run("ingest", "--source", str(night.folder), "--batch", batch, "--basis", basis)
    assert code == 0
    code, plan = night.run("plan")
    assert code == 0, plan
    metrics = night.config.parent / "reindex.prom"
    code, result = night.run("reindex", "--run-id", "n1", "--set", f"metrics.file={metrics.parent}/{{job}}.prom")
    assert code == 0, result
    assert ("weights casia-webface" if trained() else "weights random(seed=0), UNTRAINED") in result["message"]
    found = outcomes(night)
    refused = sum(status == "refused" for status, _ in found.values())
    assert plan["work"]["refused"] == refused > 0
    assert (plan["work"]["new"], plan["work"]["reused"]) == (len(found) - refused, 0)
    assert set(found) == {p.path for p in night.chosen}
    unlike = {p.path: (p.expected, found[p.path][0]) for p in night.chosen if found[p.path][0] != p.expected}
    # A file of no bytes cannot be read at all, which is a reason of its own.
    assert {k: v for k, v in unlike.items() if v != ("broken", "unreadable")} == {}
    # So they stand in the list that an operator asks for.
    listed = night.config.parent / "outcomes"
    code, told = night.run("status", "--outcomes", str(listed))
    rows = night.spark.read.csv(str(listed), header=True).collect()
    assert (code, told["counts"]) == (0, dict(Counter(status for status, _ in found.values())))
    assert {row["uri"].split("/", -1)[-1]: row["status"] for row in rows} == {
        Path(path).name: status for path, (status, _) in found.items()
    }
    assert all(row["reason"] for row in rows if row["status"] not in ("embedded", "no_face"))
    assert night.run("status", "--outcomes", str(listed))[0] == 2
    counts = result["counts"]
    assert sum(counts["statuses"].values()) == counts["images"] == len(night.chosen)
    assert counts["faces"] == sum(faces for _, faces in found.values()) == result["proof"]["rows_found"]
    assert night.live() == "faces_n1"
    _metrics_say_the_same(night, metrics, result["counts"])


def _metrics_say_the_same(night: Night, metrics: Path, counts: dict[str, Any]) -> None:
    numbers = read(metrics)
    by_status: Counter[str] = Counter()
    for (name, *labels), value in numbers.items():
        by_status.update({labels[0]: int(value)} if name == "images" else {})
    assert by_status == counts["statuses"]
    assert numbers["faces",] == numbers["embedded_faces",] == numbers["faces_embedded_total",] == counts["faces"]
    assert numbers["images_processed_total",] == numbers["embedded_images",] == numbers["gated_images", "accepted", ""]
    undecoded = sum(by_status[status] for status in ("refused", "unreadable"))
    assert 0 < numbers["images_decoded_total",] <= len(night.chosen) - undecoded
    accepted = night.warehouse.read(IMAGE_STATUS).where("status != 'refused'").select("image_id")
    # What is no image was not stored, and is not read again.
    stored = night.warehouse.read(IMAGES).where("content IS NOT NULL")
    sizes = first_row(stored.join(accepted, "image_id", "left_semi").agg(F.sum("byte_size")))
    assert numbers["image_read_bytes_total",] == sizes[0]
    assert numbers["recall_ratio",] >= 0.95
    assert numbers["run_state", "done"] == 1


def test_3_no_bystander_is_embedded(night: Night) -> None:
    """Guarantee 16: more faces than recorded principals yields nothing; a face-level record yields just its face."""
    found = outcomes(night)
    kinds = {p.path: p.kind for p in night.chosen}
    assert {found[path] for path, kind in kinds.items() if kind == "bystanders"} == {("uncovered_faces", 0)}
    assert {found[path] for path, kind in kinds.items() if kind == "face_level"} == {("embedded", 1)}


def test_4_the_next_night_embeds_nothing_twice(night: Night) -> None:
    before = night.warehouse.read(EMBEDDINGS).count()
    code, result = night.run("reindex", "--run-id", "n2")
    assert code == 0, result
    # The one that could not be read is tried again; no face is computed twice.
    assert "1 images embedded (0 faces)" in result["message"]
    assert night.warehouse.read(EMBEDDINGS).count() == before
    assert night.live() == "faces_n2"


def test_5_a_dry_run_changes_nothing(night: Night) -> None:
    before = night.warehouse.version(RUNS)
    code, result = night.run("load", "--dry-run")
    faces = night.warehouse.read(EMBEDDINGS).count()
    assert (code, result["plan"]["rows"], result["plan"]["files"]) == (0, faces, 1), result
    assert f"{faces} faces by insert, file by file" in result["message"]
    code, result = night.run("reindex", "--dry-run")
    assert code == 0
    assert result["refused"]
    assert night.warehouse.version(RUNS) == before


def test_5_a_plan_counts_what_is_there_and_changes_nothing(night: Night) -> None:
    versions = night.warehouse.versions(ALL_TABLES)
    faces, found = night.warehouse.read(EMBEDDINGS).count(), outcomes(night)
    tried_again = sum(status == "unreadable" for status, _ in found.values())
    refused = sum(status == "refused" for status, _ in found.values())
    code, plan = night.run("plan", "--hours", "8")
    assert code == 0, plan
    work = plan["work"]
    assert (work["new"], work["changed"], work["refused"]) == (0, tried_again, refused)
    assert work["reused"] == len(found) - refused - tried_again
    assert work["faces_reused"] == faces
    assert work["faces_each"] == pytest.approx(faces / (len(found) - refused - tried_again))
    assert plan["fits"] is True
    assert plan["message"].startswith("fits 8 h: needs ")
    code, again = night.run("plan", "--recompute")
    assert (again["work"]["changed"], again["work"]["reused"]) == (len(found) - refused, 0)
    code, large = night.run("plan", "--images", "3e9", "--gpus", "64", "--hours", "8")
    assert (code, large["fits"], large["machines"]["cores"]) == (0, False, 768)
    assert large["import"]["by_import"], "planned for a server"
    assert "the GPU's rate is ASSUMED" in large["message"]
    assert night.warehouse.versions(ALL_TABLES) == versions
    # What a later plan takes its rates from.
    done = night.warehouse.read(RUN_STEPS).where("run_id = 'n1' AND state = 'done'").collect()
    told = {row["step"]: json.loads(row["result"]) for row in done}
    embedded = [step for step in told if step.startswith("embed/")]
    assert {told[step]["cores"] for step in ("gate", *embedded, "stage")} == {2}
    assert {(told[step]["by_import"], told[step]["data_nodes"]) for step in ("import", "index")} == {(False, 1)}


def test_6_a_withdrawal_takes_the_face_out_everywhere(night: Night) -> None:
    single = next(p for p in night.chosen if p.kind == "progressive")
    records = [json.loads(line) for line in (night.config.parent / "basis.jsonl").read_text().splitlines()]
    record = next(r for r in records if single.path in r["images"])
    at = record["events"][0]["event_time"]
    record["events"].append({"event_time": at, "event_type": "withdrawal", "event_state": "ConsentWithdrawn"})
    withdrawal = night.config.parent / "withdrawal.jsonl"
    withdrawal.write_text(json.dumps(record))
    assert night.run("ingest", "--batch", "demo", "--basis", str(withdrawal))[0] == 0
    before = night.warehouse.read(EMBEDDINGS).count()
    code, result = night.run("reindex", "--run-id", "n3")
    assert code == 0, result
    assert outcomes(night)[single.path] == ("refused", 0)
    gone = before - night.warehouse.read(EMBEDDINGS).count()
    assert gone == single.persons * len(set(record["images"]))
    assert result["proof"]["rows_found"] == before - gone


def test_7_rollback_goes_back_without_what_was_withdrawn(night: Night) -> None:
    code, result = night.run("rollback")
    assert code == 0, result
    assert (result["current"], night.live()) == ("faces_n2", "faces_n2")
    assert result["withdrawn"] > 0
    with connect(load_settings(night.config)) as index:
        index.load("faces_n2", timeout=60)
        assert index.count("faces_n2") == night.warehouse.read(EMBEDDINGS).count()
        # Two proven collections are kept: the first night's is gone.
        assert not index.exists("faces_n1")


def test_8_a_revoked_source_leaves_nothing(night: Night) -> None:
    """Guarantee 6: revoking a batch removes every descendant."""
    revoked = night.config.parent / "revoked.batch.yaml"
    revoked.write_text(yaml.safe_dump({**BATCH, "state": "revoked"}))
    assert night.run("ingest", "--batch", str(revoked))[0] == 0
    code, result = night.run("reindex", "--run-id", "n4")
    assert code == 0, result
    assert result["counts"]["statuses"] == {"refused": len(night.chosen)}
    assert night.warehouse.read(EMBEDDINGS).count() == 0
    code, result = night.run("status")
    assert (code, result["live"]) == (0, "faces_n4")
    assert result["runs"][0]["run_id"] == "n4"


def test_9_no_name_no_vector_in_what_a_run_leaves(night: Night) -> None:
    """Reports and records hold counts: no file name, no pseudonym, no vector."""
    text = json.dumps([r.asDict() for r in night.warehouse.read(RUNS).collect()], default=str)
    assert not re.search("hmac[23]?:", text)
    assert not [p.path for p in night.chosen if p.path in text]


def test_a_real_server_is_loaded_in_bulk(
    spark: SparkSession, chosen: list[Picture], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same line against the real Milvus server: bulk import from the files that Spark wrote."""
    singles = [p for p in chosen if p.expected == "embedded"][:8]
    server = MilvusStandalone(tmp_path / "milvus")
    with temporary(server, server.kill):
        config = prepare(
            tmp_path / "line",
            singles,
            milvus={"uri": server.uri, "import_jobs": 2, "watch_s": 1},
            staging={"rows_per_file": 4},
        )
        read = lambda: capsys.readouterr().out  # noqa: E731 - one expression, used twice
        ingest = ("--source", str(folder), "--batch", str(tmp_path / "line" / "demo.batch.yaml"))
        basis = ("--basis", str(tmp_path / "line" / "basis.jsonl"))
        assert run_job("ingest", config, *ingest, *basis, read=read)[0] == 0
        code, result = run_job("reindex", config, "--run-id", "s1", read=read)
        assert code == 0, result
        assert result["proof"]["rows_found"] == result["counts"]["faces"] > 0
        steps = Warehouse(spark, str(tmp_path / "line" / "warehouse"), is_path=True).spark.read.format("delta")
        imports = steps.load(str(tmp_path / "line" / "warehouse" / "run_steps")).where("step LIKE 'import/%'")
        assert imports.select("step").distinct().count() >= 2

        # `--recompute` replaces every face and status by this run's, and adds none.
        code, again = run_job("embed", config, "--recompute", "--run-id", "s2", read=read)
        assert (code, f"{len(singles)} images embedded" in again["message"]) == (0, True), again
        warehouse = Warehouse(spark, str(tmp_path / "line" / "warehouse"), is_path=True)
        assert {r["run_id"] for r in warehouse.read(EMBEDDINGS).collect()} == {"s2"}
        assert warehouse.read(EMBEDDINGS).count() == result["counts"]["faces"]
        assert warehouse.read(IMAGE_STATUS).where("status != 'refused'").count() == len(singles)
