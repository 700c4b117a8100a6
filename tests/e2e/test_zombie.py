"""A run that sleeps through an erasure wakes up to find that nothing of it can be committed (Guarantee 11)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.pictures import Picture
from jobs.errors import LeaseLost
from jobs.schemas import EMBEDDINGS, IMAGE_STATUS, IMAGES
from jobs.settings import load_settings
from tests.e2e.commands import environment, job
from tests.e2e.line import prepare
from tests.spark.helpers import warehouse_for

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

TTL_S = 20
# `embed`, which falls asleep in front of its first commit of faces: behind every look at its lease.
SLEEPER = """
import os, signal, sys
from pathlib import Path
from jobs.tables.store import Warehouse

append = Warehouse._append

def asleep(self, frame, spec, transaction):
    if spec.name == "embeddings" and not Path("asleep").exists():
        Path("asleep").touch()
        os.killpg(os.getpgrp(), signal.SIGSTOP)
    return append(self, frame, spec, transaction)

Warehouse._append = asleep
from jobs.embed import main
main(["--config", "settings.yaml", "--json"], prog_name="embed")
"""


def test_guarantee_11_a_run_that_sleeps_through_an_erasure_commits_nothing(
    spark: SparkSession, pictures: tuple[Path, list[Picture]], tmp_path: Path
) -> None:
    home = tmp_path / "line"
    # Of two people, so that a record is left when one of them is gone.
    shown = {p.recorded: p for p in pictures[1] if p.expected == "embedded" and len(p.recorded) == p.persons == 1}
    chosen = list(shown.values())[:2]
    for picture in chosen:
        (home / "pictures" / picture.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0] / picture.path, home / "pictures" / picture.path)
    prepare(home, chosen, warehouse="./warehouse", milvus={"uri": "./index.db"}, lease={"ttl_s": TTL_S})
    record = json.loads((home / "basis.jsonl").read_text().splitlines()[0])
    (home / "requests.txt").write_text(record["pii_principal_id"] + "\n")
    job(home, "ingest", "--source", "pictures", "--batch", "demo.batch.yaml", "--basis", "basis.jsonl")
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(home / "asleep", sleeper)
        # Until its lease has run out; what it had renewed last is at most a third older.
        time.sleep(TTL_S)
        done = job(home, "erase", "--subject-file", "requests.txt")
        assert [receipt["erased"]["images"] for receipt in done["receipts"]] == [1]
        os.killpg(sleeper.pid, signal.SIGCONT)
        out, _ = sleeper.communicate(timeout=300)
    finally:
        if sleeper.poll() is None:
            os.killpg(sleeper.pid, signal.SIGKILL)
            sleeper.wait()
    said = json.loads(out.strip().splitlines()[-1])
    assert (sleeper.returncode, said["error"], said["retry_helps"]) == (LeaseLost.exit_code, "LeaseLost", True)
    warehouse = warehouse_for(spark, load_settings(home / "settings.yaml", [f"warehouse={home / 'warehouse'}"]))
    assert [warehouse.read(spec).count() for spec in (EMBEDDINGS, IMAGE_STATUS, IMAGES)] == [0, 0, 1]
    job(home, "verify", "--erased")
    # And the warehouse goes on.
    assert "1 image embedded" in job(home, "embed")["message"]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
