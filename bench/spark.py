"""The Spark side of the benchmarks: a local session with warm Python workers, images in Delta, results in Parquet."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.naive import BATCH, predictor
from bench.photos import Photo
from bench.weights import demo_weights, resolved


class SparkSide:
    """A session with ``workers`` cores. Each Python worker has one thread, and none that spins, as conf/ sets it."""

    def __init__(self, folder: Path, model: str, workers: int) -> None:
        os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        from jobs.session import open_session, packaged_conf

        properties = folder / "spark.conf"
        local = packaged_conf("spark-local.conf").read_text(encoding="utf-8")
        properties.write_text(f"{local}\nspark.master local[{workers}]\n", encoding="utf-8")
        self._spark = open_session("bench", str(properties))
        self._folder, self._model = folder, model

    def table(self, name: str, photos: Sequence[Photo], *, times: int = 1, files: int = 8) -> str:
        """A Delta table with ``photos``, each ``times`` times under ids of its own, in ``files`` Parquet files."""
        write_parquet(self._folder / f"{name}-source", photos, times=times, files=files)
        path = str(self._folder / name)
        self._spark.read.parquet(str(self._folder / f"{name}-source")).write.format("delta").save(path)
        shutil.rmtree(self._folder / f"{name}-source")
        return path

    def ours(self, table: str, dtype: str = "float32") -> float:
        """Seconds for `mapInArrow` with this pipeline, to embeddings in Parquet files."""
        from udfs.fingerprint import model_fingerprint
        from udfs.nets import read_model_file
        from udfs.params import PipelineParams
        from udfs.spark import RESULT_SCHEMA, EmbedSpec, embed_arrow

        params = PipelineParams(dtype=dtype)
        spec = EmbedSpec(self._model, model_fingerprint(read_model_file(self._model).state_dicts, params), params)
        images = self._spark.read.format("delta").load(table)
        return self._timed(images.mapInArrow(embed_arrow(spec), RESULT_SCHEMA))

    def predict_batch(self, table: str) -> float:
        """Seconds for facenet-pytorch's networks by `predict_batch_udf`."""
        from pyspark.ml.functions import predict_batch_udf
        from pyspark.sql import functions as F
        from pyspark.sql.types import ArrayType, FloatType

        predict = predict_batch_udf(predictor, return_type=ArrayType(FloatType()), batch_size=BATCH)
        images = self._spark.read.format("delta").load(table)
        return self._timed(images.select("image_id", predict(F.col("content")).alias("embedding")))

    def _timed(self, frame: Any) -> float:
        from jobs.tables.store import reading_images

        begin = time.perf_counter()
        with reading_images(self._spark):
            frame.write.mode("overwrite").parquet(str(self._folder / "out"))
        return time.perf_counter() - begin

    def stop(self) -> None:
        """End the session."""
        self._spark.stop()


def model_file(folder: Path) -> str:
    """A model file with the weights that all is shown with."""
    from udfs.weights import build_model_file

    return str(build_model_file(resolved(demo_weights()), folder / "model.pt"))


def write_parquet(folder: Path, photos: Sequence[Photo], *, times: int = 1, files: int = 8) -> None:
    """Parquet files with the columns that the pipeline asks for; a record covers every face."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    everybody = [{"record_id": f"r{n}", "principal": f"p{n}", "box": None} for n in range(32)]
    covered = pa.list_(
        pa.struct([("record_id", pa.string()), ("principal", pa.string()), ("box", pa.list_(pa.float32()))])
    )
    folder.mkdir()
    count = times * len(photos)
    for part in range(files):
        shown = range(part, count, files)
        columns = {
            "image_id": pa.array([str(n) for n in shown], pa.string()),
            "content": pa.array([photos[n % len(photos)].content for n in shown], pa.binary()),
            "covered": pa.array([everybody] * len(shown), covered),
        }
        pq.write_table(pa.table(columns), folder / f"{part:04d}.parquet", row_group_size=256)
