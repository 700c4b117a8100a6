"""The metrics file: what Prometheus's own parser reads in it, and what survives a failed night."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.runs.metrics import RunMetrics
from jobs.runs.step_watcher import ActiveStep
from tests.unit.runs.samples import GATE, VERIFY, read

pytestmark = pytest.mark.unit


def test_a_run_in_numbers(tmp_path: Path) -> None:
    watch = ActiveStep("embed/3-5", "", "group", 0.0, done=4, total=9, stalled=True)
    metrics = RunMetrics(f"{tmp_path}/{{job}}.prom", "reindex", "night-1", active=lambda: [watch])
    metrics.step_done("gate", GATE, 1.5)
    metrics.step_done("embed/0-1", {"images": 4, "faces": 5}, 10.0)
    metrics.step_done("embed/2-2", {"images": 1, "faces": 1}, 2.0)
    metrics.also({"images_decoded": lambda: 5, "image_read_bytes": lambda: 4096})
    assert metrics.write() is None
    found = read(tmp_path / "reindex.prom")
    expected = {
        ("run_info", "night-1"): 1, ("run_state", "running"): 1, ("run_state", "done"): 0, ("run_state", "failed"): 0,
        ("step_duration_seconds", "gate"): 1.5, ("step_duration_seconds", "embed"): 12.0,
        ("step_tasks", "embed"): 9, ("step_tasks_done", "embed"): 4, ("step_stalled", "embed"): 1,
        ("gated_images", "accepted", ""): 7, ("gated_images", "refused", "NO_BASIS"): 2,
        ("embedded_images",): 5, ("embedded_faces",): 6,
        ("images_decoded_total",): 5, ("image_read_bytes_total",): 4096,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert ("last_success_timestamp_seconds",) not in found

    metrics.step_done("verify", VERIFY)
    metrics.ended("done")
    metrics.write()
    found = read(tmp_path / "reindex.prom")
    images = {key[1:]: value for key, value in found.items() if key[0] == "images"}
    assert images == {
        ("embedded", ""): 5, ("broken", "TRUNCATED"): 2, ("refused", "NO_BASIS"): 2, ("refused", "CONSENT_ENDED"): 1,
    }  # fmt: skip
    assert (found["faces",], found["recall_ratio",], found["search_latency_p99_seconds",]) == (6, 0.99, 0.0045)
    assert found["run_state", "done"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["reindex.prom"]


def test_what_comes_due_is_told(tmp_path: Path) -> None:
    metrics = RunMetrics(f"{tmp_path}/m.prom", "expire", "night-1")
    metrics.step_done("outlook", {"records": 900, "ending": 40, "open_requests": 1, "oldest_request": 1767225600.0})
    metrics.write()
    found = read(tmp_path / "m.prom")
    assert (found["records_in_force",], found["records_ending_30d",]) == (900, 40)
    assert (found["erasure_requests_open",], found["oldest_open_erasure_timestamp_seconds",]) == (1, 1767225600)
    # Carried out: none is overdue, though the series was there.
    metrics.step_done("outlook", {"records": 900, "ending": 40, "open_requests": 0, "oldest_request": None})
    metrics.write()
    found = read(tmp_path / "m.prom")
    assert found["erasure_requests_open",] == 0
    assert ("oldest_open_erasure_timestamp_seconds",) not in found


def test_the_names_are_as_prometheus_asks_for(tmp_path: Path) -> None:
    metrics = RunMetrics(f"{tmp_path}/m.prom", "reindex", "night-1")
    metrics.also({"images_decoded": lambda: 5})
    steps: dict[str, dict[str, Any]] = {"gate": GATE, "embed/0-0": {"images": 1, "faces": 1}, "verify": VERIFY}
    for name, result in steps.items():
        metrics.step_done(name, result, 1.0)
    metrics.ended("done")
    metrics.write()
    for family in text_string_to_metric_families((tmp_path / "m.prom").read_text()):
        assert re.fullmatch(r"face_reindex_[a-z][a-z0-9_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|percent|count|minutes)$", family.name)
        assert all(sample.name.endswith("_total") for sample in family.samples if family.type == "counter")
        assert all("job" not in sample.labels and "instance" not in sample.labels for sample in family.samples)


def test_a_night_that_fails_does_not_hide_the_last_that_did_not(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    good = RunMetrics(str(path), "reindex", "night-1")
    good.ended("done")
    good.write()
    at = read(path)["last_success_timestamp_seconds",]
    bad = RunMetrics(str(path), "reindex", "night-2")
    bad.ended("failed")
    bad.write()
    found = read(path)
    assert (found["run_info", "night-2"], found["run_state", "failed"]) == (1, 1)
    assert found["last_success_timestamp_seconds",] == at
    other = RunMetrics(str(path), "sync", "noon")
    other.write()
    assert ("last_success_timestamp_seconds",) not in read(path)


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    metrics = RunMetrics(f"{tmp_path}/nowhere/m.prom", "reindex", "night-1")
    assert "cannot be written" in str(metrics.write())
    assert metrics.write() is None


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    path.write_text("face_reindex_last_success{ 12 junk")
    RunMetrics(str(path), "reindex", "night-1").write()
    assert read(path)["run_info", "night-1"] == 1
