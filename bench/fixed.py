"""What a job costs however little there is to do: seconds, Spark jobs and Delta commits, each job as a command.

    python -m bench.fixed       # about ten minutes on a quiet machine of two cores; writes bench/results/fixed.json

A warehouse of a handful of pictures is filled and indexed; then each job runs in a process of its own, as cron would
run it. Spark jobs are counted in Spark's event log, commits in the tables' logs. Seconds are medians; they include the
start of Python and of the JVM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from bench import record
from bench.demo import BATCH, PURPOSE
from bench.weights import demo_weights

PICTURES: Final = 5
ROUNDS: Final = 3
_EVENT: Final = '"Event":"SparkListenerJobStart"'


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.fixed")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name:
        figures = FixedCosts(Path(name)).measure(rounds)
    night = figures["reindex, nothing new"]["seconds"]
    ratios = {f"{what} to reindex": found["seconds"] / night for what, found in figures.items()}
    path = record.write("fixed", figures, ratios, setting={"pictures": PICTURES, "rounds": rounds})
    print(path)


class FixedCosts:
    """A small indexed warehouse, and the jobs on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config, self._properties = folder / "settings.yaml", folder / "spark.conf"
        self._events = folder / "events"
        self._basis: list[dict[str, Any]] = []

    def measure(self, rounds: int) -> dict[str, Any]:
        """Each job's figures; the first round of all is thrown away, for it fills the system's caches."""
        self._prepare()
        self._job("ingest", *self._source(), "--basis", str(self._folder / "basis.jsonl"))
        self._job("reindex")
        found: dict[str, list[dict[str, float]]] = {}
        for number in range(rounds + 1):
            for what, one in self._round(number).items():
                if number:
                    found.setdefault(what, []).append(one)
        return {
            what: {name: statistics.median(one[name] for one in ones) for name in ones[0]}
            for what, ones in found.items()
        }

    def _round(self, number: int) -> dict[str, dict[str, float]]:
        measured = {
            "status": self._job("status"),
            "verify --audit": self._job("verify", "--audit"),
            "sync --dry-run": self._job("sync", "--dry-run"),
            "sync, nothing new": self._job("sync"),
        }
        self._withdraw(number)
        measured["sync, one withdrawal"] = self._job("sync")
        measured["reindex, nothing new"] = self._job("reindex")
        return measured

    def _prepare(self) -> None:
        from bench.pictures import make_pictures, write_basis
        from jobs.session import packaged_conf

        self._events.mkdir()
        kept = make_pictures(self._folder / "all", kinds={"single_face"})[:PICTURES]
        for picture in kept:
            place = self._folder / "pictures" / picture.path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._folder / "all" / picture.path, place)
        write_basis(kept, self._folder / "basis.jsonl", now=datetime.now(UTC) - timedelta(days=1))
        self._basis = [json.loads(line) for line in (self._folder / "basis.jsonl").read_text().splitlines()]
        (self._folder / "bench.batch.yaml").write_text(yaml.safe_dump(BATCH), encoding="utf-8")
        settings = {
            "warehouse": str(self._folder / "warehouse"),
            "governance": {"purposes": [PURPOSE], "allowed_purposes": [PURPOSE]},
            "model": {"weights": demo_weights()},
            "milvus": {"uri": str(self._folder / "index.db")},
        }
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        local = packaged_conf("spark-local.conf").read_text(encoding="utf-8")
        events = f"spark.eventLog.enabled true\nspark.eventLog.compress false\nspark.eventLog.dir file:{self._events}\n"
        self._properties.write_text(f"{local}\n{events}", encoding="utf-8")

    def _source(self) -> Sequence[str]:
        return "--source", str(self._folder / "pictures"), "--batch", str(self._folder / "bench.batch.yaml")

    def _withdraw(self, number: int) -> None:
        """Somebody withdraws: a version of their record with one more event."""
        line = self._basis[number % len(self._basis)]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {**line["events"][-1], "event_time": now, "event_type": "withdrawal", "event_state": "ConsentWithdrawn"}
        line["events"].append(event)
        file = self._folder / "withdrawn.jsonl"
        file.write_text(json.dumps(line) + "\n", encoding="utf-8")
        self._job("ingest", "--batch", str(self._folder / "bench.batch.yaml"), "--basis", str(file))

    def _job(self, name: str, *arguments: str) -> dict[str, float]:
        """Run a job to its end: its seconds, and how many Spark jobs and commits it took."""
        shutil.rmtree(self._events)
        self._events.mkdir()
        before = self._commits()
        command = [sys.executable, "-m", f"jobs.{name}", "--config", str(self._config), "--quiet",
                   "--properties-file", str(self._properties), *arguments]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        texts = [file.read_text(encoding="utf-8") for file in self._events.rglob("*") if file.is_file()]
        jobs = sum(text.count(_EVENT) for text in texts)
        return {"seconds": round(seconds, 2), "spark_jobs": jobs, "commits": self._commits() - before}

    def _commits(self) -> int:
        return len(list(self._folder.glob("warehouse/*/_delta_log/*.json")))


if __name__ == "__main__":
    main()
