"""Erasure on a real server: its own files are scanned; and a server out of reach leaves the request open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from jobs.erasure.byte_scan import scan
from jobs.erasure.kinds import Target
from jobs.erasure.receipts import receipts
from jobs.erasure.requests import request
from jobs.erasure.run import erase_pending
from jobs.errors import DependencyUnavailable
from jobs.governance.tombstones import key_ring
from jobs.schemas import ERASURE_ITEMS, IMAGES
from tests.milvus.server import MilvusStandalone, temporary
from tests.spark.indexed import Indexed, principal, reindex, run_of, vector_of

pytestmark = [pytest.mark.milvus, pytest.mark.spark, pytest.mark.faults]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStandalone]:
    # Its garbage collection waits for seconds and not for hours, so that its end can be seen.
    server = MilvusStandalone(tmp_path_factory.mktemp("erased"), gc_s=2)
    with temporary(server, server.kill):
        yield server


def stored(made: Indexed, server: MilvusStandalone, needles: dict[str, bytes]) -> set[str]:
    """Which needles stand in the server's object storage (not its queue, which has a date of its own)."""
    places = [str(path) for path in server.folder.rglob("*_log") if path.is_dir()]
    assert any(place.endswith("insert_log") for place in places)
    return {row["needle"] for row in scan(made.spark, places, needles).collect()}


def test_guarantees_10_and_12_on_a_server(indexed: Indexed, server: MilvusStandalone, tmp_path: Path) -> None:
    made = indexed.copy_to(
        tmp_path / "w", f"milvus.uri={server.uri}", "milvus.watch_s=0", "milvus.ready_timeout_s=60"
    )  # fmt: skip
    reindex(made, "night-2")
    gone, kept = made.faces_of(5), made.faces_of(6)
    needles = {f"vector {key}": vector_of(key).tobytes() for key in gone | kept}
    needles |= {f"key {key}": np.int64(key).tobytes() for key in gone | kept}
    assert stored(made, server, needles) == set(needles)
    live = made.live_keys()
    ring, now = key_ring(made.settings), datetime.now(UTC)
    request(made.warehouse, [Target("subject", principal(5))], ring, run_id="asked", now=now)
    # Out of reach: nothing is said to be complete, and the ledger still knows what has to go.
    index = made.index()
    server.kill()
    with pytest.raises(DependencyUnavailable), run_of(made, None, "erase") as run:
        erase_pending(run, index)
    index.close()
    assert receipts(made.warehouse, made.settings) == []
    assert made.warehouse.read(ERASURE_ITEMS).where("kind = 'face'").count() == 1
    server.start()
    index = made.index()
    with run_of(made, None, "erase") as run:
        assert erase_pending(run, index).completed == 1
    index.close()
    assert made.live_keys() == live - gone
    assert made.warehouse.read(IMAGES).count() == 13
    deadline = time.monotonic() + 60
    while stored(made, server, needles) & {f"vector {key}" for key in gone} and time.monotonic() < deadline:
        time.sleep(2)
    left = stored(made, server, needles)
    assert left & {f"vector {key}" for key in gone} == set()
    assert left >= {f"vector {key}" for key in kept}
