"""From pictures of every kind to a promoted collection, and what happens the nights after."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import Row, SparkSession
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


@dataclass(frozen=True)
class Seen:
    """What a warehouse shows at a moment: pictures' paths → their last status and number of faces."""

    outcomes: dict[str, tuple[str, int]]
    faces: int
    live: str | None

    @property
    def refused(self) -> int:
        return sum(status == "refused" for status, _ in self.outcomes.values())

    @property
    def unreadable(self) -> int:
        return sum(status == "unreadable" for status, _ in self.outcomes.values())


@dataclass(frozen=True)
class Passed:
    """A part of the line that has passed: what its last job said, and what the warehouse showed behind it."""

    result: dict[str, Any]
    seen: Seen


@dataclass(frozen=True)
class FirstNight(Passed):
    """The first part: also what was planned, what an operator listed behind it, its metrics, and the bytes to read."""

    plan: dict[str, Any]
    told: dict[str, Any]
    listed: list[Row]
    listed_again: int
    metrics: dict[tuple[str, ...], float]
    stored_bytes: int


@dataclass(frozen=True)
class Rehearsed:
    """What was only asked for behind the second night: each job's answer, and what might have changed by it."""

    load: dict[str, Any]
    reindex: dict[str, Any]
    plans: tuple[dict[str, Any], ...]
    seen: Seen
    runs: tuple[int, int]
    versions: tuple[dict[str, int], dict[str, int]]
    steps: dict[str, dict[str, Any]]


@dataclass
class Night:
    """One warehouse, through which the fixtures of this module go one after the other, each once."""

    spark: SparkSession
    config: Path
    folder: Path
    chosen: list[Picture]

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.spark, str(self.config.parent / "warehouse"), is_path=True)

    def run(self, name: str, *arguments: str, config: Path | None = None) -> tuple[int, dict[str, Any]]:
        """A job's exit code and what it said."""
        out = io.StringIO()
        with redirect_stdout(out):
            return run_job(name, config or self.config, *arguments, read=out.getvalue)

    def said(self, name: str, *arguments: str) -> dict[str, Any]:
        """What a job said that succeeded."""
        code, result = self.run(name, *arguments)
        assert code == 0, result
        return result

    def seen(self) -> Seen:
        with connect(load_settings(self.config)) as index:
            return Seen(outcomes(self), self.warehouse.read(EMBEDDINGS).count(), index.alias_target("faces"))


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


@pytest.fixture(scope="module")
def night(spark: SparkSession, home: Path, folder: Path, chosen: list[Picture]) -> Night:
    return Night(spark, home, folder, chosen)


def outcomes(night: Night) -> dict[str, tuple[str, int]]:
    """Picture's path → its last status and number of faces."""
    status = (
        night.warehouse.read(IMAGE_STATUS)
        .groupBy("image_id")
        .agg(F.max_by(F.struct("status", F.coalesce("faces", F.lit(0)).alias("faces")), "decided_at").alias("last"))
    )
    images = night.warehouse.read(IMAGES).select("image_id", F.substring_index("uri", "/", -2).alias("path"))
    return {r["path"]: (r["last"]["status"], r["last"]["faces"]) for r in images.join(status, "image_id").collect()}


# --- The line, part by part: each is passed once, whichever tests ask for it and in whatever order --------------------


@pytest.fixture(scope="module")
def first_night(night: Night) -> FirstNight:
    batch, basis = str(night.config.parent / "demo.batch.yaml"), str(night.config.parent / "basis.jsonl")
    night.said("ingest", "--source", str(night.folder), "--batch", batch, "--basis", basis)
    plan = night.said("plan")
    metrics, listed = night.config.parent / "reindex.prom", str(night.config.parent / "outcomes")
    result = night.said("reindex", "--run-id", "n1", "--set", f"metrics.file={metrics.parent}/{{job}}.prom")
    told = night.said("status", "--outcomes", listed)
    rows = night.spark.read.csv(listed, header=True).collect()
    again, _ = night.run("status", "--outcomes", listed)
    accepted = night.warehouse.read(IMAGE_STATUS).where("status != 'refused'").select("image_id")
    # What is no image was not stored, and is not read again.
    stored = night.warehouse.read(IMAGES).where("content IS NOT NULL").join(accepted, "image_id", "left_semi")
    size = first_row(stored.agg(F.sum("byte_size")))[0]
    return FirstNight(result, night.seen(), plan, told, rows, again, read(metrics), size)


@pytest.fixture(scope="module")
def second_night(night: Night, first_night: FirstNight) -> Passed:
    return Passed(night.said("reindex", "--run-id", "n2"), night.seen())


@pytest.fixture(scope="module")
def rehearsed(night: Night, second_night: Passed) -> Rehearsed:
    before = night.warehouse.version(RUNS)
    load, reindex = night.said("load", "--dry-run"), night.said("reindex", "--dry-run")
    versions = night.warehouse.versions(ALL_TABLES)
    asked = (["--hours", "8"], ["--recompute"], ["--images", "3e9", "--gpus", "64", "--hours", "8"])
    plans = tuple(night.said("plan", *arguments) for arguments in asked)
    done = night.warehouse.read(RUN_STEPS).where("run_id = 'n1' AND state = 'done'").collect()
    steps = {row["step"]: json.loads(row["result"]) for row in done}
    behind = night.warehouse.versions(ALL_TABLES)
    return Rehearsed(load, reindex, plans, second_night.seen, (before, versions[RUNS.name]), (versions, behind), steps)


@pytest.fixture(scope="module")
def single(night: Night) -> Picture:
    """The picture of whoever withdraws."""
    return next(picture for picture in night.chosen if picture.kind == "progressive")


@pytest.fixture(scope="module")
def record(night: Night, single: Picture) -> dict[str, Any]:
    """The record that is withdrawn."""
    records = [json.loads(line) for line in (night.config.parent / "basis.jsonl").read_text().splitlines()]
    found: dict[str, Any] = next(record for record in records if single.path in record["images"])
    return found


@pytest.fixture(scope="module")
def withdrawn(night: Night, record: dict[str, Any], rehearsed: Rehearsed) -> Passed:
    at = record["events"][0]["event_time"]
    event = {"event_time": at, "event_type": "withdrawal", "event_state": "ConsentWithdrawn"}
    withdrawal = night.config.parent / "withdrawal.jsonl"
    withdrawal.write_text(json.dumps({**record, "events": [*record["events"], event]}))
    night.said("ingest", "--batch", "demo", "--basis", str(withdrawal))
    return Passed(night.said("reindex", "--run-id", "n3"), night.seen())


@pytest.fixture(scope="module")
def rolled_back(night: Night, withdrawn: Passed) -> tuple[Passed, int, bool]:
    """And how many faces the collection holds that is served again, and whether the first night's is still there."""
    passed = Passed(night.said("rollback"), night.seen())
    with connect(load_settings(night.config)) as index:
        index.load("faces_n2", timeout=60)
        return passed, index.count("faces_n2"), index.exists("faces_n1")


@pytest.fixture(scope="module")
def revoked(night: Night, rolled_back: tuple[Passed, int, bool]) -> Passed:
    batch = night.config.parent / "revoked.batch.yaml"
    batch.write_text(yaml.safe_dump({**BATCH, "state": "revoked"}))
    night.said("ingest", "--batch", str(batch))
    return Passed(night.said("reindex", "--run-id", "n4"), night.seen())


# --- What holds of it ------------------------------------------------------------------------------------------------


def test_without_a_basis_everything_is_refused(night: Night, tmp_path: Path) -> None:
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


def test_every_picture_ends_as_it_should(night: Night, first_night: FirstNight) -> None:
    result, found = first_night.result, first_night.seen.outcomes
    assert ("weights casia-webface" if trained() else "weights random(seed=0), UNTRAINED") in result["message"]
    assert set(found) == {p.path for p in night.chosen}
    unlike = {p.path: (p.expected, found[p.path][0]) for p in night.chosen if found[p.path][0] != p.expected}
    # A file of no bytes cannot be read at all, which is a reason of its own.
    assert {k: v for k, v in unlike.items() if v != ("broken", "unreadable")} == {}
    counts = result["counts"]
    assert sum(counts["statuses"].values()) == counts["images"] == len(night.chosen)
    assert counts["faces"] == sum(faces for _, faces in found.values()) == result["proof"]["rows_found"]
    assert first_night.seen.live == "faces_n1"


def test_the_plan_of_the_first_night_counts_what_it_did(first_night: FirstNight) -> None:
    work, seen = first_night.plan["work"], first_night.seen
    assert work["refused"] == seen.refused > 0
    assert (work["new"], work["reused"]) == (len(seen.outcomes) - seen.refused, 0)


def test_an_operator_lists_how_pictures_ended(first_night: FirstNight) -> None:
    found, rows = first_night.seen.outcomes, first_night.listed
    assert first_night.told["counts"] == dict(Counter(status for status, _ in found.values()))
    assert {row["uri"].split("/", -1)[-1]: row["status"] for row in rows} == {
        Path(path).name: status for path, (status, _) in found.items()
    }
    assert all(row["reason"] for row in rows if row["status"] not in ("embedded", "no_face"))
    assert first_night.listed_again == 2


def test_the_metrics_say_the_same(night: Night, first_night: FirstNight) -> None:
    numbers, counts = first_night.metrics, first_night.result["counts"]
    by_status: Counter[str] = Counter()
    for (name, *labels), value in numbers.items():
        by_status.update({labels[0]: int(value)} if name == "images" else {})
    assert by_status == counts["statuses"]
    assert numbers["faces",] == numbers["embedded_faces",] == numbers["faces_embedded_total",] == counts["faces"]
    assert numbers["images_processed_total",] == numbers["embedded_images",] == numbers["gated_images", "accepted", ""]
    undecoded = sum(by_status[status] for status in ("refused", "unreadable"))
    assert 0 < numbers["images_decoded_total",] <= len(night.chosen) - undecoded
    assert numbers["image_read_bytes_total",] == first_night.stored_bytes
    assert numbers["recall_ratio",] >= 0.95
    assert numbers["run_state", "done"] == 1


def test_no_bystander_is_embedded(night: Night, first_night: FirstNight) -> None:
    """Guarantee 16: more faces than recorded principals yields nothing; a face-level record yields just its face."""
    found = first_night.seen.outcomes
    kinds = {p.path: p.kind for p in night.chosen}
    assert {found[path] for path, kind in kinds.items() if kind == "bystanders"} == {("uncovered_faces", 0)}
    assert {found[path] for path, kind in kinds.items() if kind == "face_level"} == {("embedded", 1)}


def test_the_next_night_embeds_nothing_twice(first_night: FirstNight, second_night: Passed) -> None:
    # The one that could not be read is tried again; no face is computed twice.
    assert "1 image embedded (0 faces)" in second_night.result["message"]
    assert second_night.seen.faces == first_night.seen.faces
    assert second_night.seen.live == "faces_n2"


def test_a_dry_run_changes_nothing(rehearsed: Rehearsed) -> None:
    faces, plan = rehearsed.seen.faces, rehearsed.load["plan"]
    assert (plan["rows"], plan["files"]) == (faces, 1)
    assert f"{faces} faces by insert, file by file" in rehearsed.load["message"]
    assert rehearsed.reindex["refused"]
    assert rehearsed.runs[0] == rehearsed.runs[1]


def test_a_plan_counts_what_is_there_and_changes_nothing(rehearsed: Rehearsed) -> None:
    plan, again, large = rehearsed.plans
    seen, work = rehearsed.seen, plan["work"]
    kept = len(seen.outcomes) - seen.refused - seen.unreadable
    assert (work["new"], work["changed"], work["refused"]) == (0, seen.unreadable, seen.refused)
    assert work["reused"] == kept
    assert work["faces_reused"] == seen.faces
    assert work["faces_each"] == pytest.approx(seen.faces / kept)
    assert plan["fits"] is True
    assert plan["message"].startswith("fits 8 h: needs ")
    assert (again["work"]["changed"], again["work"]["reused"]) == (len(seen.outcomes) - seen.refused, 0)
    assert (large["fits"], large["machines"]["cores"]) == (False, 768)
    assert large["import"]["by_import"], "planned for a server"
    assert "the GPU's rate is the benchmark's card's" in large["message"]
    assert rehearsed.versions[0] == rehearsed.versions[1]


def test_steps_record_what_a_later_plan_takes_its_rates_from(rehearsed: Rehearsed) -> None:
    told = rehearsed.steps
    embedded = [step for step in told if step.startswith("embed/")]
    assert {told[step]["cores"] for step in ("gate", *embedded, "stage")} == {2}
    assert {(told[step]["by_import"], told[step]["data_nodes"]) for step in ("import", "index")} == {(False, 1)}


def test_a_withdrawal_takes_the_face_out_everywhere(
    single: Picture, record: dict[str, Any], rehearsed: Rehearsed, withdrawn: Passed
) -> None:
    assert withdrawn.seen.outcomes[single.path] == ("refused", 0)
    gone = rehearsed.seen.faces - withdrawn.seen.faces
    assert gone == single.persons * len(set(record["images"]))
    assert withdrawn.result["proof"]["rows_found"] == rehearsed.seen.faces - gone


def test_rollback_goes_back_without_what_was_withdrawn(rolled_back: tuple[Passed, int, bool]) -> None:
    passed, rows, first_is_there = rolled_back
    assert (passed.result["current"], passed.seen.live) == ("faces_n2", "faces_n2")
    assert passed.result["removed"] > 0
    assert rows == passed.seen.faces
    # Two proven collections are kept: the first night's is gone.
    assert not first_is_there


def test_a_revoked_source_leaves_nothing(night: Night, revoked: Passed) -> None:
    """Guarantee 6: revoking a batch removes every descendant."""
    assert revoked.result["counts"]["statuses"] == {"refused": len(night.chosen)}
    assert revoked.seen.faces == 0
    status = night.said("status")
    assert status["live"] == "faces_n4"
    assert status["runs"][0]["run_id"] == "n4"


def test_no_name_no_vector_in_what_a_run_leaves(night: Night, revoked: Passed) -> None:
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
