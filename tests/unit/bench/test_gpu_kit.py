"""The kit that measures a GPU: what it says of its figures, how tests that fail count, and that it runs elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.gpu import decisions, kit, parts
from bench.gpu.before import BEFORE, with_before

pytestmark = pytest.mark.unit

RESULTS: dict[str, Any] = {
    "tests": {"passed": 30, "failed_tests": 1, "skipped": 0, "names": ["a"], "failed": "1 of 31 tests failed"},
    "pnet": {"cells an image": 9, "ours ms an image": 0.0641, "by level ms an image": 0.16, "seconds": 1.0},
    "end_to_end": {
        "640 x 480, 1 processes of 12 threads images/s": 600.0,
        "640 x 480, 1 processes of 12 threads: busy": 0.9,
        "640 x 480, 4 processes of 4 threads images/s": 1500.4,
        "mixed 0.5 to 4 MP, 4 processes of 4 threads images/s": 580.0,
    },
}
FAILED = {"failed": "exit code 1", "said": "no device", "seconds": 1.0}


def test_the_best_of_each_way_is_named() -> None:
    assert list(decisions.lines(RESULTS)) == [
        "Equality: 30 tests passed, 1 failed.",
        "P-Net: ours is fastest, 0.064 ms an image.",
        "640 x 480: 4 processes of 4 threads is fastest, 1,500 images/s.",
        "mixed 0.5 to 4 MP: 4 processes of 4 threads is fastest, 580 images/s.",
    ]


@pytest.mark.parametrize("name", [*RESULTS])
def test_a_part_that_failed_decides_nothing_and_takes_nothing_from_the_others(name: str) -> None:
    without = list(decisions.lines({key: value for key, value in RESULTS.items() if key != name}))
    assert list(decisions.lines(RESULTS | {name: FAILED})) == without
    assert len(without) < len(list(decisions.lines(RESULTS)))


def test_parts_that_all_failed_decide_nothing() -> None:
    assert list(decisions.lines(dict.fromkeys(parts.PARTS, FAILED))) == []
    assert with_before(dict.fromkeys(parts.PARTS, FAILED), BEFORE["gpu"])[1] == {}
    assert list(decisions.lines({"end_to_end": {"seconds": 1.0}, "pnet": {"seconds": 1.0}, "copies": {}})) == []


@pytest.mark.parametrize(
    ("counts", "rehearse", "failed"),
    [
        ({"passed": 29}, False, None),
        ({"passed": 29, "failed": 2}, False, "2 of 31 tests failed: see tests.txt"),
        ({"error": 1}, False, "1 of 1 tests failed: see tests.txt"),
        ({"skipped": 29}, False, "no test passed: see tests.txt"),
        ({}, False, "pytest ended with exit code 1: see tests.txt"),
        ({}, True, "pytest ended with exit code 1: see tests.txt"),
        ({"skipped": 29}, True, None),
        ({"skipped": 28, "error": 1}, True, "1 of 1 tests failed: see tests.txt"),
    ],
)
def test_tests_that_fail_or_do_not_run_fail_their_part(
    counts: dict[str, int], rehearse: bool, failed: str | None
) -> None:
    assert parts.verdict(counts, [], code=0 if counts else 1, rehearse=rehearse).get("failed") == failed


def test_what_was_before_is_compared_on_its_own_card_only() -> None:
    measured = record.result("gpu")["figures"]
    own = {name: measured[name] for name in parts.PARTS if name in measured}
    figures, ratios = with_before(own, BEFORE["gpu"])
    assert figures["before"] == BEFORE
    assert {name: round(value, 3) for name, value in ratios.items()} == record.result("gpu")["ratios"]
    # By hand: 139.8 launches an image were 372 / 32; 238.2 images/s are 778.3 in one process, 2,001.8 in eight and MPS.
    assert ratios["launches_an_image_before_to_now"] == pytest.approx(139.8 * 32 / 372)
    assert ratios["images_per_s_now_to_before_in_one_process"] == pytest.approx(778.3 / 238.2)
    assert ratios["images_per_s_now_to_before_best_way"] == pytest.approx(2001.8 / 238.2)
    elsewhere, fewer = with_before(own, "another card")
    assert "before" not in elsewhere
    assert not any("before" in name for name in fewer)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit") / "gpu-kit"
    size = kit.build(folder, lambda _: None, photographs=2)
    assert 0 < size <= kit.MOST_BYTES
    return folder


def run(built: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the kit as on a bare machine: nothing of this checkout on the path, no git; its record."""
    out = built.parent
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PATH": str(out), "TMPDIR": str(out), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(built / "run.py"), "--out", str(out / "results"), *arguments]
    done = subprocess.run(command, env=env, cwd=out, capture_output=True, text=True, check=False)
    return done, json.loads((out / "results" / "gpu.json").read_text(encoding="utf-8"))


def test_the_kit_runs_from_its_folder_and_writes_a_record(built: Path) -> None:
    (built / "source" / record.CARRIED_COMMIT.name).write_text("carried\n", encoding="utf-8")
    assert len(list((built / "photos").rglob("*.jpg"))) == 4
    done, told = run(built, "--rehearse", "--only", "machine")
    assert done.returncode == 0, done.stderr
    assert [*told] == ["name", "date", "commit", "machine", "versions", "setting", "figures", "ratios"]
    assert [*told] == [*record.result("gpu")]
    assert (told["name"], told["commit"], told["machine"]["gpu"]) == ("gpu", "carried", None)
    assert told["machine"]["cores"] == os.cpu_count()
    assert told["setting"]["rehearsal"]
    assert told["figures"]["machine"]["python"] == sys.version.split()[0]


def test_a_part_without_a_device_fails_alone_and_so_does_the_kit(built: Path) -> None:
    done, told = run(built, "--only", "machine")
    assert done.returncode == 1
    assert "1 of 1 parts failed: machine" in done.stderr
    assert told["figures"]["machine"]["failed"] == "exit code 1"
    assert told["machine"] == {}


def test_a_record_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert record.commit() != "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.commit() == "unknown"
