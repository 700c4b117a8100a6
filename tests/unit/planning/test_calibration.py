"""`calibrate`: what follows from what an executor did, by hand; which rates come first; what the photographs are."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pyspark import SparkConf

from jobs.embedding.measuring import TaskMeasured, an_executor, check_limits, part_arrow, photographs
from jobs.errors import SettingsError
from jobs.index.protocol import IndexSpec
from jobs.planning.calibration import Calibration, calibrated_rates, derived
from jobs.planning.model import CORES, GPUS, Rates
from jobs.planning.rates import Measured, PastRun, choose, defaults
from jobs.runs.machines import EmbeddingExecutors, Machines, embedding_executors
from jobs.runs.results import Calibrated
from jobs.settings import load_settings
from tests.golden.support import model_path
from udfs.fingerprint import model_fingerprint
from udfs.nets import read_model_file
from udfs.params import PipelineParams
from udfs.spark import EmbedSpec

pytestmark = pytest.mark.unit

# 50 ms an image, and 25 ms a crop with 1 ms to cut it; four decoding threads do an image in 10 ms.
ON_CORES = Calibrated(
    images=20, decoded=100, cut=1000, embedded=40, dtype="float32", devices=("cpu",), executors=3, tasks=2, threads=4,
    measured_s=60, machines=Machines(cores=2),
)  # fmt: skip
# 2 ms an image, and half of one a crop, on two GPUs.
ON_GPUS = replace(
    ON_CORES, images=500, embedded=2000, devices=("cuda:0", "cuda:1"), machines=Machines(cores=24, gpus=2)
)
WHEN = datetime(2026, 1, 31, tzinfo=UTC)


def test_a_cores_rate_is_an_images_time_and_that_of_its_faces_over_the_cores() -> None:
    rates = derived(ON_CORES, 2)
    assert rates == {
        "embed_cores_float32": pytest.approx(1000 / (50 + 2 * (25 + 1)) / 2),
        # Two cores, though four threads.
        "host_float32": pytest.approx(1000 / (10 + 2) / 2),
    }
    assert derived(ON_CORES, 0)["embed_cores_float32"] == pytest.approx(10)


def test_a_gpus_rate_leaves_the_cutting_to_the_cores_that_its_threads_use() -> None:
    assert derived(ON_GPUS, 2) == {
        "embed_gpus": pytest.approx(1000 / (2 + 2 * 0.5) / 2),
        # Four threads keep four of the 24 cores busy.
        "host_float32": pytest.approx(1000 / (10 + 2) / 4),
    }


@pytest.mark.parametrize(
    ("result", "names"),
    [
        # FACE_REINDEX_DEVICE: Spark counts no GPU.
        (replace(ON_GPUS, machines=Machines(cores=2)), {"host_float32"}),
        # A task that had no GPU and went on on its processor is no measure of one, nor of cores.
        (replace(ON_GPUS, devices=("cpu (a GPU was asked for and Spark assigned none)", "cuda:0")), {"host_float32"}),
        (replace(ON_CORES, machines=Machines()), set[str]()),
    ],
)
def test_nothing_is_said_of_machines_that_were_not_counted(result: Calibrated, names: set[str]) -> None:
    assert set(derived(result, 1)) == names


def chosen(*found: Calibration, runs: tuple[PastRun, ...] = (), overrides: tuple[str, ...] = ()) -> Rates:
    settings = load_settings(overrides=["milvus.uri=http://milvus:19530", *overrides], environ={})
    calibrated = calibrated_rates(found, settings.model.dtype, 2)
    return choose(settings, runs, IndexSpec("HNSW"), 10**6, by_import=True, calibrated=calibrated)


def a_run(gpus: int) -> PastRun:
    machine_s = {CORES: 400.0, GPUS: 100.0 * gpus}
    return PastRun("n1", {"embed": Measured("embed", 100, 1_700_000_000.0, 8000, machine_s=machine_s)})


def test_a_calibration_comes_before_the_benchmarks_and_is_named() -> None:
    rates = chosen(Calibration("c1", WHEN, ON_CORES), Calibration("c0", WHEN, ON_GPUS))
    assert rates.embed_cores is not None
    assert rates.embed_cores.value == derived(ON_CORES, 2)["embed_cores_float32"]
    assert rates.embed_cores.source == (
        "calibrate, run c1, 2026-01-31: an executor of 2 cores searches 20.0 images/s for faces and embeds "
        "40.0 crops/s (cpu); with 2.00 faces an image"
    )
    # What the newest does not say, an earlier one may.
    assert rates.embed_gpus is not None
    assert (rates.embed_gpus.value, rates.embed_gpus.assumed) == (derived(ON_GPUS, 2)["embed_gpus"], False)
    assert "run c0, 2026-01-31: an executor of 2 GPUs and 24 cores" in rates.embed_gpus.source
    assert rates.host is not None
    assert "run c1" in rates.host.source


def test_a_real_run_comes_before_a_calibration_for_what_it_measured() -> None:
    found = Calibration("c1", WHEN, ON_CORES), Calibration("c0", WHEN, ON_GPUS)
    on_cores, on_gpus = chosen(*found, runs=(a_run(0),)), chosen(*found, runs=(a_run(2),))
    sources = [rate.source.split(",")[0] for rate in (on_cores.embed_cores, on_cores.embed_gpus) if rate]
    assert sources == ["run n1", "calibrate"]
    sources = [rate.source.split(",")[0] for rate in (on_gpus.embed_cores, on_gpus.embed_gpus) if rate]
    assert sources == ["calibrate", "run n1"]


def test_a_setting_comes_before_a_calibration_and_another_dtype_says_nothing() -> None:
    found = Calibration("c1", WHEN, ON_CORES), Calibration("c0", WHEN, ON_GPUS)
    rates = chosen(*found, overrides=("planning.images_per_s_per_core=12", "planning.images_per_s_per_gpu=900"))
    assert [rate.value for rate in (rates.embed_cores, rates.embed_gpus) if rate] == [12, 900]
    other = chosen(*found, overrides=("model.dtype=bfloat16",))
    bench = defaults()
    assert [rate.value for rate in (other.embed_cores, other.embed_gpus, other.host) if rate] == [
        bench["embed_cores_bfloat16"]["value"], bench["embed_gpus_bfloat16"]["value"], bench["host_bfloat16"]["value"]
    ]  # fmt: skip


# --- What is measured, and on what -----------------------------------------------------------------------------------


def test_an_executors_rate_is_that_of_all_its_tasks_from_the_first_to_the_last() -> None:
    at_once = [TaskMeasured("a/1", 0, 10, 30), TaskMeasured("a/1", 0, 10, 50)]
    assert an_executor(at_once) == 8
    # One after the other: no faster for it.
    assert an_executor([at_once[0], replace(at_once[1], began=10, ended=20)]) == 4
    # Clocks of two machines have nothing to do with each other.
    assert an_executor([*at_once, TaskMeasured("b/7", 900, 910, 40)]) == 6


def test_the_photographs_are_of_the_sizes_that_photographs_have_and_the_same_each_time() -> None:
    made = photographs()
    sizes = []
    for data in made:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            sizes.append(image.size)
    areas = [width * height / 1e6 for width, height in sizes]
    assert {(640, 480), (480, 640)} < set(sizes)
    assert sorted(areas)[2] == pytest.approx(0.5, abs=0.01)
    assert max(areas) == pytest.approx(4, abs=0.01)
    # As much to decode as a camera's file.
    assert 0.2 < sum(map(len, made)) / sum(areas) / 1e6 < 0.4
    photographs.cache_clear()
    assert photographs() == made


def test_limits_that_refuse_a_photograph_are_said_before_anything_is_measured() -> None:
    check_limits(PipelineParams())
    with pytest.raises(SettingsError, match=r"TOO_MANY_PIXELS.*Next step: raise the limit of `detection`"):
        check_limits(PipelineParams(max_pixels=3_000_000))


@pytest.mark.parametrize("part", ["images", "decoded", "cut", "embedded"])
def test_each_part_does_its_work_until_its_time_is_over(part: Any) -> None:
    path, params = model_path(), PipelineParams()
    spec = EmbedSpec(str(path), model_fingerprint(read_model_file(path).state_dicts, params), params, cpu_threads=1)
    (batch,) = part_arrow(spec, part, 0.5)([])
    (row,) = batch.to_pylist()
    assert row["amount"] > 0
    assert 0.5 <= row["ended"] - row["began"] < 30
    assert row["devices"] == ([] if part in {"decoded", "cut"} else ["cpu"])


def spark_of(executors: int, parallelism: int, **properties: str) -> Any:
    conf = SparkConf(loadDefaults=False).setAll([(k.replace("_", "."), v) for k, v in properties.items()])
    tracker = SimpleNamespace(getExecutorInfos=lambda: [None] * (executors + 1))
    java = SimpleNamespace(sc=lambda: SimpleNamespace(statusTracker=lambda: tracker))
    return SimpleNamespace(
        sparkContext=SimpleNamespace(getConf=lambda: conf, _jsc=java, defaultParallelism=parallelism)
    )


GPU = {"spark_executor_resource_gpu_amount": "2"}


@pytest.mark.parametrize(
    ("spark", "gpus_per_task", "expected"),
    [
        (spark_of(0, 8, spark_master="local[8]", spark_executor_cores="4"), 0, (1, 8, 0, 8)),
        (spark_of(3, 12), 0, (3, 4, 0, 4)),
        (spark_of(3, 12, spark_executor_cores="4", spark_task_cpus="2"), 0, (3, 4, 0, 2)),
        (spark_of(2, 48, spark_executor_cores="24", **GPU), 0.5, (2, 24, 2, 4)),
        (spark_of(2, 48, spark_executor_cores="24", **GPU), 0.1, (2, 24, 2, 20)),
        # As many tasks as it has cores.
        (spark_of(2, 48, spark_executor_cores="3", **GPU), 0.5, (2, 3, 2, 3)),
        (spark_of(2, 48, spark_executor_cores="24", **GPU), 2, (2, 24, 2, 1)),
        # Its own executors come when its tasks do.
        (spark_of(5, 20, spark_executor_cores="4", spark_dynamicAllocation_enabled="true"), 1, (1, 4, 1, 1)),
    ],
)
def test_how_many_tasks_an_executor_of_the_stage_has_at_once(
    spark: Any, gpus_per_task: float, expected: tuple[int, int, int, int]
) -> None:
    settings = load_settings(overrides=[f"executor.gpus_per_task={gpus_per_task}"], environ={})
    count, cores, gpus, tasks = expected
    found = embedding_executors(spark, settings)
    assert found == EmbeddingExecutors(count=count, each=Machines(cores=cores, gpus=gpus), tasks=tasks)


def test_cores_that_cannot_be_told_are_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"set spark\.executor\.cores"):
        embedding_executors(spark_of(3, 100, spark_default_parallelism="100"), load_settings(environ={}))
