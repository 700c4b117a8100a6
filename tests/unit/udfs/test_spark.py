"""Spark's side without a JVM: Arrow batches and frames in, Arrow batches and frames out."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from tests.golden.support import encoded, group, model, model_path, small_astronaut
from udfs import spark as module
from udfs.device import DeviceUnavailable, Placement
from udfs.fingerprint import FingerprintMismatch, model_fingerprint
from udfs.params import PipelineParams
from udfs.results import ImageResult
from udfs.spark import EmbedSpec, embed_arrow, embed_frames, results_to_arrow, worker_pipeline

pytestmark = pytest.mark.unit

PARAMS = PipelineParams()
COVERED = pa.list_(pa.struct([("record_id", pa.string()), ("principal", pa.string()), ("box", pa.list_(pa.float32()))]))
INPUT = pa.schema(
    [("image_id", pa.string()), ("content", pa.binary()), ("uri", pa.string()), ("content_sha256", pa.string()),
     ("covered", COVERED), ("root", pa.string())]
)  # fmt: skip


def spec(**changes: object) -> EmbedSpec:
    fingerprint = model_fingerprint(model().state_dicts, PARAMS)
    return EmbedSpec(**{"model_name": str(model_path()), "fingerprint": fingerprint, "cpu_threads": 2, **changes})  # type: ignore[arg-type]


def rows(tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(small_astronaut(200)))
    me = {"record_id": "r1", "principal": "p1", "box": None}
    other = {"record_id": "r2", "principal": "p2", "box": [1.0, 2.0, None, 4.0]}
    return [
        {
            "image_id": "a",
            "content": None,
            "uri": str(path),
            "content_sha256": None,
            "covered": [me],
            "root": str(tmp_path),
        },
        {"image_id": "b", "content": b"junk", "uri": None, "content_sha256": "x", "covered": [me]},
        {"image_id": "c", "content": encoded(group(2)), "uri": None, "content_sha256": None, "covered": [me]},
        {"image_id": "d", "content": encoded(group(2)), "uri": None, "content_sha256": None, "covered": [me, other]},
        {"image_id": "e", "content": encoded(group(1)), "uri": None, "content_sha256": None, "covered": None},
        {"image_id": "f", "content": encoded(group(1)), "uri": None, "content_sha256": None, "covered": [me]},
    ]


EXPECTED = [
    ("a", "embedded", "", 1), ("b", "broken", "NOT_AN_IMAGE", 0), ("c", "uncovered_faces", "UNCOVERED_FACES", 0),
    ("d", "uncovered_faces", "UNCOVERED_FACES", 0), ("e", "uncovered_faces", "NO_COVERED_RECORD", 0),
    ("f", "embedded", "", 1),
]  # fmt: skip


def test_arrow_in_arrow_out(tmp_path: Path) -> None:
    batches = pa.Table.from_pylist(rows(tmp_path), INPUT).to_batches(max_chunksize=2)
    out = pa.Table.from_batches(embed_arrow(spec())(iter(batches))).to_pylist()
    assert [(r["image_id"], r["status"], r["reason"], len(r["faces"])) for r in out] == EXPECTED
    face = out[0]["faces"][0]
    assert face["basis_record_ids"] == ["r1"]
    assert (len(face["box"]), len(face["landmarks"]), len(face["embedding"])) == (4, 10, 512)
    assert abs(sum(v * v for v in face["embedding"]) - 1) < 1e-5
    assert (out[0]["width"], out[1]["width"]) == (200, None)
    assert out[2]["dropped"] == {"too_small": 0, "low_confidence": 0, "over_limit": 0, "uncovered": 2}


def test_arrow_types_are_those_of_the_schema() -> None:
    from pyspark.sql.pandas.types import from_arrow_schema

    batch = results_to_arrow([ImageResult("a", "broken", "X")])
    # Spark prints the same type that the schema text names.
    spark_type = from_arrow_schema(batch.schema).simpleString()
    written = ",".join(part.strip().replace(" ", ":", 1) for part in split_top(module.RESULT_SCHEMA))
    assert spark_type == f"struct<{written.replace(': ', ':').replace(', ', ',')}>"
    assert batch.num_rows == 1


def split_top(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "<") - (char == ">")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def test_frames_in_frames_out(tmp_path: Path) -> None:
    frame = pd.DataFrame(rows(tmp_path))
    frames = [frame.iloc[:1], frame.iloc[:0], frame.iloc[1:5], frame.iloc[5:], frame.iloc[:0]]
    out = list(embed_frames(spec(), iter(frames)))
    assert sum(len(f) for f in out) == 6
    joined = pd.concat(out, ignore_index=True)
    assert [(r.image_id, r.status, r.reason, len(r.faces)) for r in joined.itertuples()] == EXPECTED
    assert isinstance(joined.faces[0][0]["embedding"], np.ndarray)


def test_output_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_PER_BATCH", 3)
    junk = [{"image_id": str(i), "content": b"x", "covered": [{"record_id": "r", "principal": "p"}]} for i in range(10)]
    out = list(embed_arrow(spec())(iter(pa.Table.from_pylist(junk, INPUT).to_batches())))
    assert [b.num_rows for b in out] == [3, 3, 3, 1]
    assert [v for b in out for v in b.column("image_id").to_pylist()] == [str(i) for i in range(10)]


def test_model_is_loaded_once_a_worker_and_checked() -> None:
    pickled = pickle.loads(pickle.dumps(spec()))  # noqa: S301 - our own bytes
    assert worker_pipeline(spec()) is worker_pipeline(pickled)
    with pytest.raises(FingerprintMismatch, match="expected 000"):
        worker_pipeline(spec(fingerprint="0" * 64))
    with pytest.raises(FingerprintMismatch):
        next(embed_arrow(spec(params=PipelineParams(max_faces=1)))(iter([])), None)


def test_a_worker_keeps_a_pipeline_for_each_gpu_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Placement] = []
    placements = [Placement("cpu", (address,)) for address in ("0", "1", "0", "1", "1")]
    turns = iter([*placements, placements[0]])
    monkeypatch.setattr(module, "pick_device", lambda *_, **__: next(turns))

    left: list[object] = []

    class Built:
        def rest(self) -> None:
            left.append(self)

    def noted(spec: EmbedSpec, path: Path, placement: Placement) -> Built:
        built.append(placement)
        return Built()

    monkeypatch.setattr(module, "_built", noted)
    monkeypatch.setattr(module, "_pipelines", {})
    given = [worker_pipeline(spec()) for _ in placements]
    assert built == placements[:2]
    assert given[0] is given[2]
    assert given[1] is given[3] is given[4]
    # A GPU that is left is another worker's: what can be had again in no time is given back.
    assert left == [given[0], given[1], given[0]]
    # Another spec is another run's: what is left of the former goes.
    assert worker_pipeline(spec(detect_batch=3)) is not given[0]
    assert len(module._pipelines) == 1


def test_a_task_that_was_to_have_a_gpu_ends_or_computes_with_a_note(tmp_path: Path) -> None:
    batches = pa.Table.from_pylist(rows(tmp_path)[:1], INPUT).to_batches()
    with pytest.raises(DeviceUnavailable, match="Spark assigned none"):
        next(embed_arrow(spec(gpu_share=0.5))(iter(batches)))
    (out,) = embed_arrow(spec(gpu_share=0.5, without_gpu="processor"))(iter(batches))
    assert out.column("device").to_pylist() == ["cpu (a GPU was asked for and Spark assigned none)"]
    assert out.column("status").to_pylist() == ["embedded"]


def test_missing_columns_are_named() -> None:
    batch = pa.RecordBatch.from_pydict({"image_id": ["a"], "content": [b""]})
    with pytest.raises(ValueError, match="covered"):
        list(embed_arrow(spec())(iter([batch])))


def test_works_from_a_zip_and_imports_neither_jobs_nor_milvus(tmp_path: Path) -> None:
    archive = tmp_path / "pyfiles.zip"
    package = Path(module.__file__).parent
    with zipfile.ZipFile(archive, "w") as target:
        for path in package.glob("*.py"):
            target.write(path, f"udfs/{path.name}")
    Image.fromarray(small_astronaut(200)).save(tmp_path / "a.png")
    code = f"""
import sys
sys.path.insert(0, {str(archive)!r})
from udfs import CoveredPrincipal, ImageInput, Pipeline
from udfs.spark import EmbedSpec, embed_arrow
import udfs
assert {str(archive)!r} in udfs.__file__
(result,) = Pipeline({str(model_path())!r}).run(
    [ImageInput("a", uri={str(tmp_path / "a.png")!r}, covered=(CoveredPrincipal("r", "p"),), root={str(tmp_path)!r})])
assert result.status == "embedded", result
bad = sorted(m for m in sys.modules if m.split(".")[0] in ("jobs", "pymilvus", "delta"))
assert not bad, bad
assert "pyspark.sql" not in sys.modules
print("done")
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "done", out.stderr[-2000:]


def test_light_names_do_not_load_torch() -> None:
    code = "import sys, udfs; udfs.PipelineParams(); udfs.CoveredPrincipal; assert 'torch' not in sys.modules"
    root = Path(module.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    import udfs

    assert all(getattr(udfs, name) is not None for name in udfs.__all__)
    with pytest.raises(AttributeError):
        _ = udfs.identify
