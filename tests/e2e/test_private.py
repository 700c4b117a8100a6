"""What whole jobs leave on a disk, and show to other users of the machine: under umask 022, killed and to the end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.pictures import Picture
from jobs.governance.basis_files import CSV_COLUMNS
from jobs.session import read_properties
from tests.e2e.line import prepare

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

NAME = "Zsuzsanna Qwertzfeld"
KEY = "an-hmac-key-of-a-test-and-of-nothing-else"
SECRET = "marked-for-an-object-store"  # noqa: S105
# Everything that Spark writes is plain, so that a name would be seen.
PLAIN = {
    "spark.master": "local[2]",
    "spark.io.encryption.enabled": "false",
    "spark.shuffle.compress": "false",
    "spark.shuffle.spill.compress": "false",
    "spark.broadcast.compress": "false",
    "spark.eventLog.enabled": "true",
    "spark.eventLog.compress": "false",
    "spark.hadoop.fs.s3a.secret.key": SECRET,
}


class Onlooker:
    """Reads whatever appears below some folders, and the arguments of all processes, for as long as a job runs."""

    def __init__(self, *folders: Path) -> None:
        self._folders, self._read, self._over = folders, dict[Path, tuple[int, int]](), threading.Event()
        self.files, self.found = 0, set[str]()

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._over.clear()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self.look()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.look()

    def look(self) -> None:
        for path in (path for folder in self._folders for path in folder.rglob("*")):
            try:
                seen = path.stat()
                if not path.is_file() or self._read.get(path) == (seen.st_size, seen.st_mtime_ns):
                    continue
                self._read[path] = (seen.st_size, seen.st_mtime_ns)
                text = path.read_bytes()
            except OSError:
                continue  # gone meanwhile
            self.files += 1
            self.found |= {f"{word} in {path.name}" for word in (NAME, KEY, SECRET) if word.encode() in text}
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = arguments.read_bytes()
            except OSError:
                continue
            self.found |= {f"{word} in arguments" for word in (NAME, KEY, SECRET) if word.encode() in text}


class Place:
    """A folder with pictures, a CSV that names a person, and properties; jobs are processes of their own in it."""

    def __init__(self, home: Path, chosen: list[Picture], pictures: Path) -> None:
        self.home, self.local, self.pictures = home, home / "local", pictures
        self.config = prepare(home, chosen, metrics={"file": str(home / "{job}.prom")})
        (home / "events").mkdir()
        self.properties = home / "spark.conf"
        values = {
            **read_properties(),
            **PLAIN,
            "spark.local.dir": str(self.local),
            "spark.eventLog.dir": f"file:{home}/events",
        }
        self.properties.write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        self._as_csv([json.loads(line) for line in (home / "basis.jsonl").read_text().splitlines()])
        self.given = set(home.rglob("*"))
        self.onlooker = Onlooker(self.local, home / "events", home / "warehouse")

    def _as_csv(self, records: list[dict[str, Any]]) -> None:
        with (self.home / "basis.csv").open("w", newline="") as target:
            writer = csv.DictWriter(target, CSV_COLUMNS)
            writer.writeheader()
            for number, record in enumerate(records):
                processing, (event, *_) = record["processing"], record["events"]
                row = {
                    **{key: value for key, value in {**record, **processing, **event}.items() if key in CSV_COLUMNS},
                    "pii_principal_id": "",
                    "subject": f"{NAME} {number}",
                    "images": ";".join(record["images"]),
                    "purposes": ";".join(processing["purposes"]),
                    "pii_controllers": ";".join(processing["pii_controllers"]),
                }
                writer.writerow(row)
            # Set aside with a reason, which is not what the cell said.
            writer.writerow({**row, "record_id": "r-unreadable", "event_time": NAME, "images": NAME})

    def start(self, job: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"jobs.{job}", "--config", str(self.config), "--json"]
        command += ["--properties-file", str(self.properties), *arguments]
        return subprocess.Popen(
            command, env={**os.environ, "FACE_REINDEX_HMAC_KEY": KEY, "TMPDIR": str(self.home / "tmp")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, umask=0o022, start_new_session=True,
        )  # fmt: skip

    def ingest(self) -> subprocess.Popen[str]:
        batch, basis = str(self.home / "demo.batch.yaml"), str(self.home / "basis.csv")
        return self.start(
            "ingest", "--run-id", "one", "--source", str(self.pictures), "--batch", batch, "--basis", basis
        )

    def ended(self, process: subprocess.Popen[str], code: int = 0) -> None:
        with self.onlooker.watching():
            out, err = process.communicate(timeout=1200)
        assert process.returncode == code, err[-3000:]
        said = out + err
        assert not [word for word in (NAME, KEY, SECRET) if word in said]

    def readable_by_others(self) -> list[str]:
        """What jobs made and somebody else could read, list or write."""
        # Spark opens its event log to the group, whatever the umask: who turns it on closes its folder.
        made = {path for path in self.home.rglob("*") if "events" not in path.parts} - self.given
        assert len(made) > 100
        return sorted(str(path.relative_to(self.home)) for path in made if path.stat().st_mode & 0o066)


def test_guarantee_14_names_keys_and_faces_are_shown_to_no_other_user(
    pictures: tuple[Path, list[Picture]], tmp_path: Path
) -> None:
    chosen = [p for p in pictures[1] if p.kind == "single_face" and p.expected == "embedded"][:3]
    folder = tmp_path / "pictures"
    for picture in chosen:
        (folder / picture.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / picture.path).write_bytes((pictures[0] / picture.path).read_bytes())
    (tmp_path / "line" / "tmp").mkdir(parents=True)
    place = Place(tmp_path / "line", chosen, folder)

    # Killed once basis records are written: what Spark keeps on its disk stays there, and is no name.
    killed = place.ingest()
    with place.onlooker.watching():
        deadline = time.monotonic() + 900
        while not (place.home / "warehouse" / "processing_basis" / "_delta_log" / f"{1:020}.json").exists():
            assert killed.poll() is None, killed.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
    left = list(place.local.iterdir())
    assert len(left) == 1
    assert [path for path in left[0].rglob("*") if path.is_file() and "blockmgr" in str(path)], "something was seen"
    assert place.onlooker.found == set()
    assert place.readable_by_others() == []

    # The next start takes it away; and leaves nothing itself.
    os.utime(left[0], (time.time() - 3600,) * 2)
    # A line that is not read names a record that nobody knows.
    place.ended(place.ingest(), 1)
    assert list(place.local.iterdir()) == []
    place.ended(place.start("reindex"))
    assert place.onlooker.files > 200
    assert place.onlooker.found == set()
    assert list(place.local.iterdir()) == list((place.home / "tmp").glob("face-reindex-*")) == []
    # Counts alone, for a monitoring system's own user.
    assert place.readable_by_others() == ["reindex.prom"]
