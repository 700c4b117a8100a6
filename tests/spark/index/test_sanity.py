"""What the proof refuses in a night: vectors that no trained network made, and faces that are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.errors import NotProvenError
from jobs.index import distances
from jobs.runs.results import Imported, Verified
from jobs.schemas import ERASURE_ITEMS, REMOVED_FACES, RUN_STEPS
from jobs.steps.load import load_steps
from jobs.steps.verify import verify_steps
from tests.milvus.rows import make_table
from tests.spark.helpers import NOW
from tests.spark.indexed import Indexed, image, opened, reindex, screened, vector_of

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


def gone(made: Indexed, *keys: int, asked_for: int) -> None:
    """As a night leaves them that has removed faces from the table; and as a request that is open has found one."""
    removed = [(key, image(3), ["r3"], NOW) for key in keys]
    made.warehouse.append(made.spark.createDataFrame(removed, REMOVED_FACES.columns), REMOVED_FACES)
    item = ("er-open", "face", str(asked_for), image(3))
    made.warehouse.append(made.spark.createDataFrame([item], ERASURE_ITEMS.columns), ERASURE_ITEMS)


def test_guarantee_9_the_proof_asks_by_key_for_faces_that_are_gone(indexed: Indexed, tmp_path: Path) -> None:
    made = indexed.copy_to(tmp_path / "w")
    # The last one's person came back with the same picture: its face is permitted again, and not asked for.
    gone(made, 1, 2, min(made.faces()), asked_for=3)
    reindex(made, "night-2")
    assert alias_of(made) == "faces_night_2"
    assert proof_on_record(made, "night-2")["canaries_found"] == 0

    with opened(made, "reindex", "night-3") as (run, index):
        screened(run)
        load_steps(run, index)
        keys = np.array([2, 3])
        index.insert(run.result(Imported).collection, make_table(keys, np.stack([vector_of(int(k)) for k in keys])))
        with pytest.raises(NotProvenError, match="2 erased keys are still there"):
            verify_steps(run, index)
        assert run.result(Verified).proof.canaries_found == 2
    assert alias_of(made) == "faces_night_2"
