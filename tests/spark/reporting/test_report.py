"""The report of a run: what it says about nights that ended well, badly or not at all, and that it names nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from jobs.errors import BadInput, NotProvenError, SettingsError
from jobs.index.staged_files import StagedFile
from jobs.report import main
from jobs.reporting import drift as drifting
from jobs.reporting.collect import Report, collect
from jobs.reporting.html import render
from jobs.reporting.timings import import_totals
from jobs.runs.record import JobContext, open_run
from jobs.runs.results import Device, Embedded, FileImported, Planned, Screened, Staged
from jobs.schemas import EMBEDDINGS, IMAGES, PROCESSING_BASIS
from tests.spark.helpers import NOW, job_for, settings_for, warehouse_for
from tests.spark.indexed import FINGERPRINT, PEOPLE, Indexed, run_of
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.spark

FACES = {"older": 40, "night-2": 35}


def vectors_of(run_id: str) -> np.ndarray:
    """Vectors of a run's new faces: unit length, around a direction of the run's own."""
    rng = np.random.default_rng(len(run_id) * 1000 + FACES[run_id])
    vectors = np.eye(EMBEDDING_DIM)[0] + 0.05 * rng.standard_normal((FACES[run_id], EMBEDDING_DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def new_faces(made: Indexed, run_id: str) -> None:
    """Rows as `embed` would have written them."""
    key = 9_000_000_000 + 1000 * FACES[run_id]
    rows = [
        (FINGERPRINT, key + n, f"picture-of-{run_id}-{n}", f"digest-of-{n}", 0, [0.0] * 4, [0.0] * 10, 0.9 + n / 1000,
         vector.tolist(), ["r1"], run_id)
        for n, vector in enumerate(vectors_of(run_id))
    ]  # fmt: skip
    made.warehouse.append(made.spark.createDataFrame(rows, EMBEDDINGS.columns), EMBEDDINGS)


def embed(made: Indexed, run_id: str, *, images: int = 50, planned: int = 50) -> None:
    """A night that gates, embeds one chunk, and stages nothing more."""
    statuses = {"embedded": FACES[run_id], "no_face": images - FACES[run_id]}
    device = Device(names=("cuda:0",), network_s=3.0, elapsed_s=4.0)
    reasons = {"NO_BASIS": 7, "CONSENT_ENDED": 3}
    gate = Screened(images=70, accepted=60, refused=10, reasons=reasons, fingerprint=FINGERPRINT)
    with run_of(made, run_id, "reindex") as run:
        run.facts.update(model_fingerprint=FINGERPRINT, weights="random(seed=0), UNTRAINED")
        run.once(Screened, lambda: gate)
        run.once(Planned, lambda: Planned(chunks=((0, 9),), images=planned))
        chunk = Embedded(images=images, faces=FACES[run_id], statuses=statuses, device=device)
        run.once(Embedded, lambda: chunk, "0-9")
        new_faces(made, run_id)


@pytest.fixture(scope="module")
def made(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    """The indexed warehouse with its night-1, and two nights that embedded."""
    made = indexed.copy_to(tmp_path_factory.mktemp("reported") / "w")
    embed(made, "older")
    embed(made, "night-2")
    return made


def report_of(made: Indexed, run_id: str | None = None) -> Report:
    reader = warehouse_for(made.spark, made.settings, read_only=True)
    return collect(reader, made.settings, run_id, datetime.now(UTC))


@pytest.fixture(scope="module")
def first(made: Indexed) -> Report:
    return report_of(made, "night-1")


@pytest.fixture(scope="module")
def second(made: Indexed) -> Report:
    return report_of(made, "night-2")


def test_a_proven_night_is_told_with_its_proof_and_its_sums(first: Report) -> None:
    page = render(first)
    images = PEOPLE + 2
    assert [(link.group, link.outcome, link.images) for link in first.links] == [("reused", "embedded", images)]
    assert first.recorded.imports is not None
    assert first.recorded.imports.loaded_rows == first.recorded.imports.rows == PEOPLE + 3
    assert (first.reconciles, first.run.state, first.run.collection) == (True, "done", "faces_night_1")
    assert {check.name for check in first.checks} >= {"Images at the proof", "Faces staged", "Faces of all images"}
    assert {stage.name for stage in first.step_timings} >= {"gate", "stage", "import", "index", "verify", "promote"}
    # What is computed before a step records itself belongs to it, so nothing of the run is unaccounted for.
    end = max(stage.end for stage in first.step_timings)
    assert sum(stage.seconds for stage in first.step_timings) == pytest.approx(end - first.run.started, rel=0.2)
    assert "✓ proven" in page
    assert "recall@10" in page
    assert "the proof's sample has too few faces" in page
    assert first.permissions.in_force == PEOPLE + 2
    assert dict(first.permissions.bases) == {"eu-gdpr:A6-1-a": PEOPLE + 2}
    # Given 60 days ago for five years.
    assert (first.permissions.within_30_days, first.permissions.later) == (0, PEOPLE + 2)


def test_a_night_that_embedded_is_told_with_pace_use_of_the_gpu_and_drift(second: Report) -> None:
    page = render(second)
    assert [(link.group, link.outcome, link.images) for link in second.links] == [
        ("computed", "embedded", 35),
        ("computed", "no_face", 15),
        ("reused", "", 10),
        ("refused", "NO_BASIS", 7),
        ("refused", "CONSENT_ENDED", 3),
    ]
    assert second.reconciles
    assert (second.recorded.computed.share, second.recorded.computed.devices) == (0.75, ("cuda:0",))
    assert [(point.images, point.faces, point.share) for point in second.throughput] == [(50, 35, 0.75)]
    assert "Use of the GPU" in page
    assert "75.0 %" in page
    assert "Untrained weights" in page


def test_drift_compares_with_the_last_run_of_the_same_model(second: Report) -> None:
    drift = second.drift
    assert drift is not None
    assert drift.this is not None
    assert drift.last is not None
    assert (drift.this.run_id, drift.this.faces, drift.last.run_id, drift.last.faces) == ("night-2", 35, "older", 40)
    assert drift.this.faces_an_image == pytest.approx(35 / 50)
    assert drift.this.confidence == pytest.approx((0.901, 0.917, 0.933), abs=2e-3)
    assert (drift.this.norm_low, drift.this.norm_high) == pytest.approx((1.0, 1.0), abs=1e-5)
    a, b = (vectors_of(run).mean(axis=0, dtype=np.float64) for run in ("night-2", "older"))
    assert drift.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert drift.cosine is not None
    assert drift.cosine < 0.999


def test_guarantee_14_a_report_names_nobody_and_shows_no_number_of_a_vector(
    made: Indexed, first: Report, second: Report
) -> None:
    pages = render(first) + render(second)
    secrets = set()
    named = (
        (IMAGES, ("image_id", "content_sha256", "uri")),
        (PROCESSING_BASIS, ("record_id", "pii_principal_id", "content_digest")),
        (EMBEDDINGS, ("image_id", "input_digest", "face_id")),
    )
    for spec, columns in named:
        secrets |= {str(value) for row in made.warehouse.read(spec).select(*columns).collect() for value in row}
    vectors = [row["embedding"] for row in made.warehouse.read(EMBEDDINGS).select("embedding").collect()]
    means = [vectors_of(run).mean(axis=0) for run in ("older", "night-2")]
    # Four digits of each number; the first of a vector is not among them, for it is near 1.
    secrets |= {f"{abs(value):.6f}"[1:6] for vector in (*vectors, *means) for value in vector[1:]} - {".0000"}
    assert len(secrets) > 1_000

    def found(text: str) -> set[str]:
        """Long ones anywhere; short ones, such as record r1, as words."""
        words = set(re.findall(r"[\w.:/-]+", text))
        return {secret for secret in secrets if (secret in text if len(secret) > 4 else secret in words)}

    assert found(pages) == set()
    planted = ("r7", f"{abs(vectors[3][5]):.6f}", "picture-of-night-2-3")
    assert len(found(pages + " " + " ".join(planted))) == len(planted)


def test_a_mean_of_few_faces_is_not_compared(made: Indexed, second: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifting, "LEAST_FACES", FACES["night-2"] + 1)
    found = drifting.drift(made.warehouse, "night-2", FINGERPRINT, datetime.fromtimestamp(second.run.started, UTC))
    assert (found.this and found.this.faces, found.last and found.last.run_id) == (35, "older")
    assert found.cosine is None
    assert "fewer than 36 faces" in found.note


def failing(bad: JobContext) -> Iterator[str]:
    """A night that gives the page of its first step, loses an image, and ends badly."""
    with open_run(bad, "reindex") as run:
        run.record(Screened(images=9, accepted=8, refused=1, reasons={"NO_BASIS": 1}))
        yield render(collect(bad.warehouse, bad.settings, "bad", datetime.now(UTC)))
        run.record(Planned(chunks=((0, 0),), images=8))
        run.record_parts({"0-0": Embedded(images=7, faces=7, statuses={"embedded": 7})})
        run.record(Staged(path="", rows=7, files=(), buckets=4))
        raise NotProvenError("Recall is low.", hint="look at milvus.index_type.")


def test_a_failed_night_says_where_it_stopped_and_what_to_do(spark: SparkSession, tmp_path: Path) -> None:
    bad = job_for(spark, settings_for(tmp_path), "bad")
    night = failing(bad)
    page = next(night)
    assert "Not ended" in page
    assert "--run-id bad" in page
    with pytest.raises(NotProvenError):
        next(night)
    # The last reindex that has ended is this one.
    report = collect(bad.warehouse, bad.settings, None, datetime.now(UTC))
    page = render(report)
    assert (report.run.run_id, report.run.exit_code) == ("bad", 4)
    assert "exit code 4" in page
    assert "Recall is low." in page
    assert "look at milvus.index_type." in page
    assert "Not measured" in page
    assert not report.reconciles
    assert "The sums do not agree" in page
    assert "1 missing" in page


def test_the_job_writes_the_page_and_says_where(
    made: Indexed, second: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[int, dict[str, object]]:
        options = ["--set", f"warehouse={made.settings.warehouse}", "--json", *arguments]
        with pytest.raises(SystemExit) as ended:
            main.main(options, prog_name="report")
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.chdir(tmp_path)
    code, result = run()
    target = tmp_path / "report-night-2.html"
    assert (code, result["run_id"], result["file"], result["reconciles"]) == (0, "night-2", target.name, True)
    assert target.as_uri() in str(result["message"])
    assert target.read_text().startswith("<!doctype html>")
    code, result = run("--run-id", "night-9")
    assert (code, result["error"]) == (2, "SettingsError")
    # What follows is about the file alone.
    monkeypatch.setattr("jobs.report.collect", lambda *_: second)
    target.unlink()
    assert run("--dry-run")[0] == 0
    assert list(tmp_path.iterdir()) == []
    code, result = run("--out", str(tmp_path / "nowhere" / "r.html"))
    assert (code, result["error"]) == (1, "BadInput")


def test_an_imports_seconds_are_those_of_its_jobs_and_not_of_their_record(spark: SparkSession) -> None:
    files = tuple(StagedFile(f"f{n}", 10, 100, "0", n) for n in range(2))
    start = int(NOW.timestamp())

    def told(state: str, began: float | None = None, ended: float | None = None) -> FileImported:
        return FileImported(job_id="7", state=state, collection="faces_r1", began=began, ended=ended)

    outcomes = [
        (Staged.name(), 0, Staged(path="s", rows=20, buckets=4, files=files)),
        # Noted in one commit, and done in another a minute later.
        (FileImported.name("0"), 1, FileImported(job_id="", state="started", collection="faces_r1")),
        (FileImported.name("0"), 70, told("done", began=start + 9.0, ended=start + 12.0)),
        # Of an earlier release: a commit each, at once.
        (FileImported.name("1"), 20, told("started")),
        (FileImported.name("1"), 25, told("done")),
    ]
    at = [NOW + timedelta(seconds=seconds) for _, seconds, _ in outcomes]
    rows = [("r1", o[0], "done", at[n], at[n], json.dumps(o[2].record())) for n, o in enumerate(outcomes)]
    columns = "run_id string, step string, state string, started_at timestamp, ended_at timestamp, result string"
    totals = import_totals(spark.createDataFrame(rows, columns))
    assert totals is not None
    assert totals.seconds is not None
    assert (totals.loaded_files, totals.seconds[0], totals.seconds[2]) == (2, 3.0, 5.0)


def test_without_a_run_there_is_no_report(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    reader = warehouse_for(spark, settings, read_only=True)
    with pytest.raises(BadInput, match="No reindex has ended yet"):
        collect(reader, settings, None, datetime.now(UTC))
    with pytest.raises(SettingsError, match="no run 'x'"):
        collect(reader, settings, "x", datetime.now(UTC))
