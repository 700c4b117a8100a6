"""Killed with SIGKILL at a step and started again with its run id, a run ends as if it had not been killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.pictures import Picture
from jobs.index.milvus.connect import connect
from jobs.settings import load_settings
from tests.e2e.commands import command, environment, job
from tests.e2e.line import prepare

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

# Every step of the nightly job; `started` kills before its work, `done` after it and its record.
STEPS = (
    "gate: started", "gate: done", "remove-unpermitted: done", "plan: done", "embed/0-0: started", "embed/0-0: done",
    "resolve-id-collisions: done", "stage: started", "stage: done", "import: started", "import: done", "index: started",
    "index: done", "remove-unpermitted-loaded: done", "verify: done", "promote: started", "promote: done",
)  # fmt: skip


@pytest.fixture(scope="module")
def ingested(pictures: tuple[Path, list[Picture]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and a warehouse that holds some pictures; copied for every kill."""
    home = tmp_path_factory.mktemp("killed") / "line"
    kinds: Counter[str] = Counter(p.kind for p in pictures[1])
    chosen = [next(p for p in pictures[1] if p.kind == kind) for kind in kinds]
    for picture in chosen:
        (home / "pictures" / picture.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0] / picture.path, home / "pictures" / picture.path)
    prepare(home, chosen, warehouse="./warehouse", milvus={"uri": "./index.db"})
    job(home, "ingest", "--source", "pictures", "--batch", "demo.batch.yaml", "--basis", "basis.jsonl")
    return home


def kill_at(home: Path, line: str, name: str, *arguments: str) -> None:
    """Start a job in a session of its own and SIGKILL all of it (Python, JVM, workers) when it prints ``line``."""
    process = subprocess.Popen(
        command(name, *arguments), cwd=home, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr as lines:
        met = any(line in text for text in lines)
        # The group holds the JVM and the workers too; gone already if the job ended by itself.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert met, f"{name} never printed {line!r}"
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def unkilled(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("unkilled") / "line"
    shutil.copytree(ingested, home)
    result = job(home, "reindex", "--run-id", "night")
    return {"counts": result["counts"], "rows": result["proof"]["rows_found"], "keys": keys(home)}


def keys(home: Path) -> list[int]:
    """The face ids behind the alias, sorted: they are deterministic, so two runs agree on every one."""
    settings = load_settings(home / "settings.yaml", [f"milvus.uri={home / 'index.db'}"])
    index = connect(settings)
    try:
        target = index.alias_target("faces")
        assert target == "faces_night"
        index.load(target, replicas=1, timeout=60)
        return sorted(int(k) for bucket in range(4) for page in index.keys(target, bucket) for k in page)
    finally:
        index.close()


@pytest.mark.parametrize("line", STEPS)
def test_killed_at_a_step_and_resumed(ingested: Path, unkilled: dict[str, Any], tmp_path: Path, line: str) -> None:
    home = tmp_path / "line"
    shutil.copytree(ingested, home)
    kill_at(home, line, "reindex", "--run-id", "night")
    result = job(home, "reindex", "--run-id", "night")
    assert {**result["counts"], "faults": []} == {**unkilled["counts"], "faults": []}
    assert result["proof"]["rows_found"] == unkilled["rows"]
    assert (result["proof"]["keys_missing"], result["proof"]["keys_duplicated"]) == (0, 0)
    assert keys(home) == unkilled["keys"]
