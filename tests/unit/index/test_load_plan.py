"""The plan of a load: the server's limits kept, files even over nodes, and figures that add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import SettingsError
from jobs.index.collections import default_index
from jobs.index.load_plan import FILE_BYTES_LIMIT, LoadPlan, check_load, index_bytes, plan_load, uses_bulk_import
from jobs.index.milvus.versions import detect
from jobs.index.protocol import Features, IndexSpec
from jobs.settings import Settings
from tests.milvus.servers.profiles import TASKS
from tests.milvus.serving import served, settings_of
from udfs.arrays import EMBEDDING_DIM

pytestmark = pytest.mark.unit

OLD, NEW = detect("v2.3.5"), detect("v3.0.2")
EMBEDDED = Features("lite", bulk_import=False)
ROW = 4 * EMBEDDING_DIM + 8 * 4


def settings(rows_per_file: int = 250_000, **milvus: object) -> Settings:
    return Settings.model_validate(
        {"milvus": {"uri": "http://milvus:19530", **milvus}, "staging": {"rows_per_file": rows_per_file}}
    )


@given(
    rows=st.integers(0, 4_000_000_000),
    nodes=st.integers(1, 64),
    jobs=st.integers(1, 64),
    memory=st.floats(0.5, 512),
    per_file=st.integers(1_000, 50_000_000),
    features=st.sampled_from([OLD, NEW]),
)
def test_limits_are_kept_and_nothing_is_left_out(
    rows: int, nodes: int, jobs: int, memory: float, per_file: int, features: Features
) -> None:
    plan = plan_load(
        rows, settings(per_file, data_nodes=nodes, import_jobs=jobs, data_node_memory_gib=memory), features
    )
    assert plan.files * plan.rows_per_file >= rows
    assert plan.rows_per_file <= per_file
    assert plan.rows_per_file * ROW <= FILE_BYTES_LIMIT
    assert 1 <= plan.files_per_job <= features.files_per_job
    assert plan.jobs * plan.files_per_job >= plan.files > (plan.jobs - 1) * plan.files_per_job
    assert plan.waves * plan.jobs_in_flight >= plan.jobs
    # As many files being read at once on a node as its memory holds, three times over, in half of it.
    at_once = 1 if features is OLD else -(-max(jobs, nodes) // nodes)
    assert plan.rows_per_file * ROW * 3 * at_once <= memory * 2**30 / 2 + 3 * ROW * at_once


@given(rows=st.integers(1_000_000, 3_000_000_000), nodes=st.integers(1, 32))
def test_no_node_gets_more_than_a_fifth_above_its_share(rows: int, nodes: int) -> None:
    plan = plan_load(rows, settings(data_nodes=nodes, data_node_memory_gib=32), OLD)
    assert plan.files % nodes == 0
    most = plan.files // nodes * plan.rows_per_file
    assert most <= 1.2 * rows / nodes


def test_later_servers_take_several_files_a_job_and_fill_every_node_twice() -> None:
    old, new = (plan_load(30_000_000, settings(data_nodes=4, import_jobs=4), features) for features in (OLD, NEW))
    assert (old.files, old.files_per_job, old.jobs, old.waves) == (120, 1, 120, 30)
    assert (new.files, new.files_per_job, new.jobs, new.waves) == (120, 15, 8, 2)


def test_a_billion_faces() -> None:
    plan = plan_load(1_000_000_000, settings(2_000_000, data_nodes=8, import_jobs=8, replicas=2), OLD)
    assert plan.index == IndexSpec("IVF_SQ8", params={"nlist": 2048})
    assert plan.staging_bytes == 1_000_000_000 * ROW
    assert plan.memory_bytes == 2 * 1_000_000_000 * (EMBEDDING_DIM + 8 + 32)
    assert plan.seconds == pytest.approx(1_000_000_000 / (8 * 10_000))
    assert "3.5 h" in plan.lines()[-1]


def test_without_bulk_import_files_are_written_one_by_one() -> None:
    plan = plan_load(600_000, Settings.model_validate({"staging": {"rows_per_file": 250_000}}), EMBEDDED)
    assert (plan.by_import, plan.files, plan.index.index_type) == (False, 3, "FLAT")
    assert "by insert, file by file: 3 files of about 200,000 rows" in plan.lines()[0]
    assert "waves" not in plan.lines()[0]
    assert plan_load(0, settings(), OLD).files == 1


@pytest.mark.parametrize(
    ("load_by", "features", "by_import"),
    [
        ("auto", OLD, True),
        ("auto", EMBEDDED, False),
        ("insert", NEW, False),
        ("insert", EMBEDDED, False),
        ("import", OLD, True),
    ],
)
def test_plan_and_load_decide_alike_how_rows_come_in(load_by: str, features: Features, by_import: bool) -> None:
    chosen = settings(load_by=load_by)
    assert uses_bulk_import(chosen, features) is by_import
    assert plan_load(10, chosen, features).by_import is by_import


def test_bulk_import_where_there_is_none_is_a_setting_that_cannot_be_met() -> None:
    by_import, said = settings(load_by="import"), r"load_by is 'import'.*\(lite\) has no bulk import.*load_by=auto"
    with pytest.raises(SettingsError, match=said):
        uses_bulk_import(by_import, EMBEDDED)
    with pytest.raises(SettingsError, match=said):
        plan_load(10, by_import, EMBEDDED)


@pytest.mark.parametrize(
    "index_type", ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "DISKANN", "SCANN", "GPU_CAGRA"]
)
def test_every_index_has_a_size(index_type: str) -> None:
    assert 64 <= index_bytes(IndexSpec(index_type), 1) <= 4096


def test_quantised_indexes_are_as_large_as_their_codes() -> None:
    sizes = {}
    for index_type in ("IVF_SQ8", "IVF_PQ"):
        chosen = Settings.model_validate({"milvus": {"uri": "http://x:1", "index_type": index_type}})
        sizes[index_type] = index_bytes(default_index(chosen, 1_000_000, embedded=False), 1_000_000)
    assert sizes == {"IVF_SQ8": 1_000_000 * (EMBEDDING_DIM + 8), "IVF_PQ": 1_000_000 * (256 + 8)}
    assert index_bytes(IndexSpec("IVF_PQ"), 1) == 256 + 8  # what is built where nothing is said
    assert index_bytes(IndexSpec("IVF_PQ", params={"m": 64, "nbits": 8}), 1) == 64 + 8
    assert index_bytes(IndexSpec("IVF_PQ", params={"m": 512, "nbits": 4}), 1) == 256 + 8


def test_an_index_type_that_a_release_refuses_is_said_before_anything_is_staged() -> None:
    settings = Settings.model_validate({"milvus": {"uri": "http://h:19530", "index_type": "GPU_CAGRA"}})
    for version, refused in (("2.4.13", True), ("2.5.27", False)):
        features = detect(version)
        if refused:
            with pytest.raises(SettingsError, match=r"GPU_CAGRA.*\(2\.4\.13\).*COSINE"):
                plan_load(1_000, settings, features)
        else:
            assert plan_load(1_000, settings, features).index.index_type == "GPU_CAGRA"


@pytest.mark.parametrize("vector_type", ["float16", "bfloat16"])
def test_a_type_of_vectors_that_a_server_does_not_store_is_refused_before_anything_is_staged(vector_type: str) -> None:
    chosen = settings(vector_type=vector_type)
    for features in (OLD, EMBEDDED, detect("milvus-lite 3.2.2"), detect("v2.3.22"), detect("v2.4.0")):
        with pytest.raises(SettingsError, match=rf"vector_type is {vector_type}.*does not store") as caught:
            plan_load(1_000, chosen, features)
        assert "from 2.4.1 on" in str(caught.value.hint)
    for version in ("2.4.13", "2.5.27", "2.6.0", "3.0.2"):
        assert plan_load(1_000, chosen, detect(version)).vector_type == vector_type


def test_an_index_type_that_is_not_built_over_a_type_of_vectors_is_refused_with_what_would_be() -> None:
    float16, bfloat16 = (settings(vector_type=each, index_type="GPU_CAGRA") for each in ("float16", "bfloat16"))
    for version in ("2.5.27", "2.6.7", "3.0.2"):
        with pytest.raises(SettingsError, match=r"GPU_CAGRA.*bfloat16") as caught:
            plan_load(1_000, bfloat16, detect(version))
        assert "float32 or float16" in str(caught.value.hint)
        assert plan_load(1_000, float16, detect(version)).rows == 1_000
    for index_type in ("AUTO", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "DISKANN", "SCANN"):
        for vector_type in ("float16", "bfloat16"):
            plan_load(1_000, settings(vector_type=vector_type, index_type=index_type), detect("2.4.13"))


def test_16_bits_halve_what_is_staged_and_stored_of_the_vectors_and_what_an_index_keeps_of_them() -> None:
    def planned(vector_type: str, index_type: str) -> LoadPlan:
        return plan_load(10_000_000, settings(vector_type=vector_type, index_type=index_type), NEW)

    for index_type, memory in (("HNSW", 0.54), ("IVF_SQ8", 1.0), ("SCANN", 1.0)):
        whole, half = planned("float32", index_type), planned("bfloat16", index_type)
        assert half == replace(planned("float16", index_type), vector_type="bfloat16")
        assert half.staging_bytes / whole.staging_bytes == pytest.approx(0.51, abs=0.01)
        assert half.memory_bytes / whole.memory_bytes == pytest.approx(memory, abs=0.01)
        # Rows pass from executor to executor before they are rounded.
        assert half.shuffle_bytes == whole.shuffle_bytes == whole.staging_bytes
    assert planned("float16", "IVF_FLAT").index.params["nlist"] > planned("float32", "IVF_FLAT").index.params["nlist"]


def test_a_load_is_refused_where_the_server_does_not_store_the_type_of_vectors() -> None:
    with served(TASKS) as server, pytest.raises(SettingsError, match="does not store"):
        check_load(settings_of(server.double, vector_type="float16"), server.index)


def test_what_takes_imports_is_asked_before_a_load_and_only_for_imports() -> None:
    with served() as server:
        check_load(settings_of(server.double), server.index)
        check_load(settings_of(server.double, load_by="insert"), server.index)
        assert [route for route, *_ in server.core.asked] == ["list"]
