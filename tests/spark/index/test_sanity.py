"""The proof's floor for trained weights, in a night: the warehouse's vectors are random numbers, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import NotProvenError
from jobs.index import distances
from jobs.schemas import RUN_STEPS
from tests.spark.indexed import Indexed, reindex

pytestmark = pytest.mark.spark


def alias_of(made: Indexed) -> str | None:
    index = made.index()
    try:
        return index.alias_target(made.settings.milvus.alias)
    finally:
        index.close()


def proof_on_record(made: Indexed, run_id: str) -> dict[str, Any]:
    steps = made.warehouse.read(RUN_STEPS).where(f"run_id = '{run_id}' AND step = 'verify' AND state = 'done'")
    (row,) = steps.select("result").collect()
    return dict(json.loads(row["result"]))


def test_vectors_that_no_trained_network_made_are_not_promoted(
    indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fifteen faces are too few to be judged, and their spread is known less well.
    monkeypatch.setattr(distances, "LEAST_FACES", 10)
    monkeypatch.setattr(distances, "_NOISE", 0.1)
    made = indexed.copy_to(tmp_path / "w")
    with pytest.raises(NotProvenError, match=r"look like noise.*The alias was not switched.*verify\.sanity=false"):
        reindex(made, "night-2", weights="casia-webface")
    assert alias_of(made) == "faces_night_1"
    proof = proof_on_record(made, "night-2")
    assert (proof["passed"], proof["faults"]) == (False, [proof["implausible"]])

    # The very same vectors pass where nothing else is expected of them, and how far apart they are is told.
    reindex(made, "night-3")
    assert alias_of(made) == "faces_night_3"
    proof = proof_on_record(made, "night-3")
    assert proof["implausible"] == ""
    assert sum(proof["distances"]["nearest"]) == proof["distances"]["faces"] == proof["rows_found"]
