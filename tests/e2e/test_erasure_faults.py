"""Erasure that meets a run, or is killed: at every step, and started again, it converges (Guarantees 11 and 12).

A sample of what cuts it off runs with the other tests; the whole matrix in `make test-faults`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.erasure import receipts as evidence_of
from jobs.erasure import run as erasing
from jobs.erasure.byte_scan import scan
from jobs.erasure.kinds import Target
from jobs.erasure.receipts import receipts
from jobs.erasure.requests import request
from jobs.erasure.run import erase_pending
from jobs.governance import audit
from jobs.governance.tombstones import key_ring
from jobs.runs.console import Console
from jobs.runs.record import JobContext, open_run
from jobs.schemas import (
    AUDIT_EVENTS,
    BASIS_LINKS,
    EMBEDDINGS,
    ERASURE_ITEMS,
    ERASURE_REQUESTS,
    IMAGE_STATUS,
    IMAGES,
    PROCESSING_BASIS,
    TOMBSTONES,
)
from jobs.steps.load import load_steps
from jobs.steps.night import erase_meanwhile
from jobs.steps.promote import promote_steps
from jobs.steps.verify import verify_steps
from jobs.tables.store import Warehouse
from tests.spark.helpers import job_for
from tests.spark.indexed import KEY, Indexed, digest_of, image, principal, screened, write_settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TABLES = (IMAGES, EMBEDDINGS, IMAGE_STATUS, BASIS_LINKS, PROCESSING_BASIS)
NIGHT = ("resolve-id-collisions", "stage", "import", "index", "remove-unpermitted-loaded", "verify", "promote")
RACES = [f"{step}: {state}" for step in NIGHT for state in ("started", "done")]
ERASURE = ("find", "index", "staged", "tables", "shared", "purge")
KILLS = [f"erase-{step}: {state}" for step in ERASURE for state in ("started", "done")]


class Injecting(Console):
    """A console that, at one line of a run, does something else first."""

    def __init__(self, line: str, action: Any) -> None:
        super().__init__(quiet=True)
        self._line, self._action, self.met = line, action, False

    def step(self, name: str, state: str, **facts: Any) -> None:
        if f"{name}: {state}" == self._line and not self.met:
            self.met = True
            self._action()
        super().step(name, state, **facts)


@pytest.mark.faults
@pytest.mark.parametrize("line", RACES)
def test_guarantee_11_an_erasure_that_meets_a_night_at_any_step_is_carried_out(
    indexed: Indexed, tmp_path: Path, line: str
) -> None:
    """What `erase` does while another run holds the lease; that run carries it out at its end."""
    made = indexed.copy_to(tmp_path / "w")
    gone = made.faces_of(5) | made.faces_of(1)
    targets = [Target("subject", principal(person)) for person in (5, 1)]

    def ask() -> None:
        ring = key_ring(made.settings)
        request(made.warehouse, targets, ring, run_id="asked", now=datetime.now(UTC))

    console = Injecting(line, ask)
    index = made.index()
    with open_run(
        JobContext(**{**vars(job_for(made.spark, made.settings, "night-2")), "console": console}), "reindex"
    ) as run:
        screened(run)
        erase_pending(run, index)
        load_steps(run, index)
        verify_steps(run, index)
        erase_meanwhile(run, index, promote_steps(run, index).current)
    index.close()
    assert console.met
    assert made.live_keys() == made.faces() == indexed.faces() - gone
    assert made.warehouse.read(ERASURE_ITEMS).count() == 0
    left = {row["image_id"] for row in made.warehouse.read(IMAGES).select("image_id").collect()}
    assert left & {image(5), image(1)} == set()


@pytest.fixture(scope="module")
def unkilled(indexed: Indexed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = indexed.copy_to(tmp_path_factory.mktemp("unkilled") / "w")
    write_settings(made)
    assert erase(made)["receipts"]
    return state_of(made)


class Cut(BaseException):
    """Ends a run where it stands."""


def cut(*_: object, **__: object) -> None:
    raise Cut


def ends_of(warehouse: Warehouse, run_id: str) -> int:
    """How often the trail says that a pass of this run has ended."""
    return warehouse.read(AUDIT_EVENTS).where(f"kind = 'erasure-ended' AND run_id = '{run_id}'").count()


def cut_off_at_its_end(made: Indexed, run_id: str, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that closes requests and tells the trail of no end; then one that does, and writes no receipts."""
    told = audit.append

    def no_end(w: Any, kind: str, *rest: Any, now: datetime) -> Any:
        return cut() if kind == "erasure-ended" else told(w, kind, *rest, now=now)

    for place, name, by, of in ((audit, "append", no_end, run_id), (evidence_of, "write_text", cut, None)):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, by)
            with pytest.raises(Cut), open_run(job_for(made.spark, made.settings, of), "erase") as run:
                erase_pending(run, index)


def test_guarantee_12_cut_off_anywhere_and_run_again_it_converges(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample in one process: while it is asked for, when all by which targets are found is gone, and at its end."""
    made = indexed.copy_to(tmp_path / "w")
    gone = made.faces_of(5) | made.faces_of(1)
    targets = [Target("subject", principal(person)) for person in (5, 1)]
    ring, warehouse = key_ring(made.settings), made.warehouse

    def ask() -> list[str]:
        return request(warehouse, targets, ring, run_id="asked", now=datetime.now(UTC))

    append = warehouse.append
    for table in (TOMBSTONES, ERASURE_ITEMS):
        with monkeypatch.context() as patched:
            patched.setattr(warehouse, "append", lambda rows, t, at=table: cut() if t is at else append(rows, t))
            with pytest.raises(Cut):
                ask()
    ids = ask()
    assert warehouse.read(ERASURE_REQUESTS).count() == warehouse.read(ERASURE_ITEMS).count() == 2
    index = made.index()
    job = JobContext(**{**vars(job_for(made.spark, made.settings)), "console": Injecting("erase-tables: done", cut)})
    with pytest.raises(Cut), open_run(job, "erase") as run:
        erase_pending(run, index)
    assert warehouse.read(ERASURE_ITEMS).count() > 2
    assert ask() == ids
    job = job_for(made.spark, made.settings, "e2")
    with monkeypatch.context() as patched:
        patched.setattr(erasing, "_settle", cut)
        with pytest.raises(Cut), open_run(job, "erase") as run:
            erase_pending(run, index)
    index.close()
    assert made.live_keys() == made.faces() == indexed.faces() - gone
    index = made.index()
    # Everything is erased, and nobody has cleaned up: the next pass does, though nothing is asked of it.
    evidence = made.folder / "warehouse" / "_evidence" / "receipts"
    assert not evidence.exists()
    items = made.spark.createDataFrame([("er-of-none", "image", image(1), None)], ERASURE_ITEMS.columns)
    warehouse.append(items, ERASURE_ITEMS)
    with open_run(job_for(made.spark, made.settings), "sync") as run:
        assert erase_pending(run, index).completed == 0
    assert warehouse.read(ERASURE_ITEMS).count() == 0
    names = {"person 5": principal(5).encode(), "person 1": principal(1).encode(), "image 1": image(1).encode()}
    assert scan(made.spark, [f"{made.folder}/warehouse/erasure_items"], names).count() == 0
    said = receipts(warehouse, made.settings, "e2")
    assert (evidence / "e2.jsonl").read_text() == "".join(json.dumps(receipt) + "\n" for receipt in said)
    assert ends_of(warehouse, "e2") == 1
    # A later pass of the same run has receipts of its own, and leaves these as they are. It is cut off before its end
    # is in the trail, and who adds that before the receipts are written.
    request(warehouse, [Target("subject", principal(7))], ring, run_id="asked", now=datetime.now(UTC))
    cut_off_at_its_end(made, "e2", index, monkeypatch)
    with open_run(job_for(made.spark, made.settings), "sync") as run:
        assert erase_pending(run, index).completed == 0
    index.close()
    assert ends_of(warehouse, "e2") == 2
    both = receipts(warehouse, made.settings, "e2")
    written = [(evidence / name).read_text().splitlines() for name in ("e2.jsonl", "e2(2).jsonl")]
    assert [len(lines) for lines in written] == [2, 1]
    assert sorted(written[0] + written[1]) == sorted(json.dumps(receipt) for receipt in both)
    assert [json.loads(line) for line in written[0]] == said


@pytest.mark.faults
@pytest.mark.parametrize("line", KILLS)
def test_guarantee_12_killed_at_any_step_and_run_again_it_converges(
    indexed: Indexed, unkilled: dict[str, Any], tmp_path: Path, line: str
) -> None:
    made = indexed.copy_to(tmp_path / "w")
    write_settings(made)
    kill_at(made, line)
    # Written down before anything was destroyed, and not complete.
    assert made.warehouse.read(ERASURE_ITEMS).count() > 0
    done = erase(made)
    assert sum(receipt["erased"]["images"] for receipt in done["receipts"]) == 2
    assert state_of(made) == unkilled


def command(made: Indexed) -> list[str]:
    return [sys.executable, "-m", "jobs.erase", "--config", "settings.yaml", "--json", "--subject-file", "requests.txt"]


def environment() -> dict[str, str]:
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", "FACE_REINDEX_HMAC_KEY": KEY,
    }  # fmt: skip


def erase(made: Indexed) -> dict[str, Any]:
    done = subprocess.run(
        command(made), cwd=made.folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def kill_at(made: Indexed, line: str) -> None:
    process = subprocess.Popen(
        command(made), cwd=made.folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr as lines:
        met = any(line in text for text in lines)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert met, f"erase never printed {line!r}"
    assert process.returncode == -signal.SIGKILL


def state_of(made: Indexed) -> dict[str, Any]:
    """What is left everywhere, so that two warehouses can be compared."""
    # A shared picture's status says when it was settled.
    tables = {spec.name: digest_of(made, spec, "decided_at") for spec in TABLES}
    return {**tables, "live": made.live_keys(), "items": made.warehouse.read(ERASURE_ITEMS).count()}
