"""`plan`: the arithmetic by hand, what would make a night fit, and where each rate comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import rates as bench_rates
from bench.record import RESULTS
from jobs.cli import Count
from jobs.index.collections import segment_rows
from jobs.index.protocol import EMBEDDED, Features, IndexSpec, VectorType
from jobs.plan import main
from jobs.planning import inputs
from jobs.planning.inputs import PlanInputs
from jobs.planning.model import CORES, GPUS, NODES, Fit, Pools, Rate, Rates, Work, fit, index_growth, rate_needed
from jobs.planning.needs import needs
from jobs.planning.rates import Measured, PastRun, choose, defaults
from jobs.planning.text import machines, notes, show, verdict
from jobs.runs.console import Console
from jobs.settings import Settings, load_settings

pytestmark = pytest.mark.unit

SERVER = Features("2.3", bulk_import=True, files_per_job=1)
M = 1_000_000


def per_s(value: float, **more: Any) -> Rate:
    return Rate(value, "things/s", "a test", **more)


RATES = Rates(
    gate=per_s(8000),
    embed_cores=per_s(1000),
    embed_gpus=per_s(1000),
    host=per_s(2000),
    stage=per_s(2000),
    load=per_s(4000),
    index=per_s(8000),
    warm=per_s(16000),
    verify=per_s(4000),
)
WORK = Work(new=7 * M, changed=M // 5, faces_each=2)


def planned(*overrides: str) -> Settings:
    return load_settings(overrides=["milvus.uri=http://milvus:19530", *overrides], environ={})


def view(work: Work = WORK, rates: Rates = RATES, features: Features = SERVER, *overrides: str) -> PlanInputs:
    return PlanInputs(planned(*overrides), features, work, rates, ())


def seconds(inputs: PlanInputs, **pools: int) -> dict[str, float]:
    return inputs.night(Pools(**{CORES: 2, GPUS: 0, NODES: 1} | pools)).by_step()


def test_a_night_on_cores_is_the_sum_of_its_steps() -> None:
    # 7.2 million images, 14.4 million faces, 2 cores, 1 data node.
    assert seconds(view()) == {
        "gate": 450,
        "embed": 3600,
        "stage": 3600,
        "import": 3600,
        "index": 1800,
        "load": 900,
        "verify": 1800,
        "promote": 60,
    }
    assert view().night(Pools(2, 0, 1)).seconds == 15_810


def test_inside_embedding_the_slower_of_decoding_and_networks_counts() -> None:
    assert seconds(view(), gpus=1)["embed"] == 7200  # one GPU at 1,000 images/s; two cores would keep up with 4,000
    assert seconds(view(), gpus=8)["embed"] == 1800  # eight would do 8,000
    plan = view().night(Pools(2, 8, 1))
    assert [(line.name, line.seconds) for line in plan.stages if line.step == "embed"] == [
        ("embed decode", 1800),
        ("embed networks", 900),
    ]
    assert (plan.busy(GPUS), plan.busy(CORES)) == (0, 450 + 1800 + 3600 + 1800)


def test_what_is_reused_is_gated_and_loaded_but_not_embedded() -> None:
    work = Work(new=0, changed=10, reused=990, refused=1000, faces_reused=2000, faces_each=2)
    assert (work.gated, work.embedded, work.faces) == (2000, 10, 2020)
    # Two thousand faces are searched as they are: an index is not built.
    assert set(seconds(view(replace(work, changed=0)))) == {"gate", "stage", "import", "load", "verify", "promote"}


def test_a_step_without_a_rate_counts_nothing_and_is_named() -> None:
    plan = view(rates=replace(RATES, gate=None, verify=None)).night(Pools(2, 0, 1))
    assert plan.unknown == ("gate", "verify")
    assert plan.seconds == 15_810 - 450 - 1800
    assert "at least" in verdict(plan, None, None)
    assert verdict(plan, None, None).endswith("not counted, for want of a rate: gate, verify")


def test_an_index_that_was_measured_with_its_load_is_one_line_and_flat_needs_no_building() -> None:
    assert "load" not in seconds(view(rates=replace(RATES, index_loads=True)))
    flat = view(WORK, RATES, SERVER, "milvus.index_type=FLAT")
    assert "index" not in seconds(flat)
    assert seconds(flat)["load"] == 900


def test_an_embedded_index_is_loaded_by_the_driver_whatever_the_machines() -> None:
    inputs = PlanInputs(load_settings(environ={}), EMBEDDED, WORK, RATES, ())
    few, many = (inputs.night(Pools(2, 0, nodes)) for nodes in (1, 64))
    assert few.by_step()["import"] == many.by_step()["import"] == 3600
    assert "promote" not in few.by_step()  # nobody reads it, so nobody watches


def test_a_night_with_nothing_to_do_fits() -> None:
    plan = view(Work(new=0), RATES, SERVER, "milvus.watch_s=0").night(Pools(2, 0, 1))
    assert verdict(plan, 8, None) == "fits 8 h: needs under 1 s; cores limit it (gate, under 1 s)"


def test_what_one_kind_of_machine_would_have_to_be() -> None:
    # Cores: 18,900 / n + 6,360 <= 12,000. Data nodes: 6,300 / n + 9,510 <= 12,000.
    would = fit(view().night, Pools(2, 0, 1), 12_000)
    assert would == Fit({CORES: 4, NODES: 3}, None)
    plan = view().night(Pools(2, 0, 1))
    text = verdict(plan, 12_000 / 3600, would)
    assert text.startswith("does not fit 3.33333 h: needs 4.4 h; cores limit it (embed, 60 min); ")
    assert text.endswith("fits with 4 cores, or 3 data nodes")


def test_where_one_kind_is_not_enough_all_are_named() -> None:
    would = fit(view().night, Pools(2, 1, 1), 4000)
    assert would.alone == {}
    assert would.together is not None
    assert view().night(would.together).seconds <= 4000
    for pool in (CORES, GPUS, NODES):
        fewer = would.together.grown(pool, would.together.of(pool) - 1)
        assert view().night(fewer).seconds > 4000, pool
    text = verdict(view().night(Pools(2, 1, 1)), 4000 / 3600, would)
    assert f"{would.together.gpus:,} GPUs and {would.together.data_nodes:,} data nodes" in text


def test_the_clock_cannot_be_bought() -> None:
    would = fit(view().night, Pools(2, 0, 1), 59)
    assert would == Fit({}, None)
    assert verdict(view().night(Pools(2, 0, 1)), 59 / 3600, would).endswith("no number of machines is enough")


def test_the_verdict_of_a_night_that_fits() -> None:
    text = verdict(view().night(Pools(2, 0, 1)), 8, None)
    assert text == "fits 8 h: needs 4.4 h; cores limit it (embed, 60 min)"


# Below 10,000 rows a data node, a load is one file, and more nodes are of no use to it.
machine_counts = st.builds(Pools, st.integers(1, 5000), st.integers(0, 500), st.integers(1, 200))
works = st.builds(
    Work,
    new=st.integers(0, 3 * 10**9),
    changed=st.integers(0, 10**6),
    reused=st.integers(0, 10**9),
    faces_reused=st.integers(20 * M, 10**9),
    faces_each=st.floats(0, 4),
)


@given(work=works, pools=machine_counts, pool=st.sampled_from([CORES, GPUS, NODES]), more=st.integers(1, 1000))
def test_more_machines_never_take_longer_and_more_work_never_less(
    work: Work, pools: Pools, pool: str, more: int
) -> None:
    inputs = view(work)
    if pools.of(pool):  # the first GPU takes the networks off the cores, which is another night
        assert inputs.night(pools.grown(pool, pools.of(pool) + more)).seconds <= inputs.night(pools).seconds + 1e-6
    assert view(replace(work, new=work.new + more)).night(pools).seconds >= inputs.night(pools).seconds - 1e-6


@given(work=works, pools=machine_counts, hours=st.floats(0.5, 24))
def test_what_is_said_to_fit_fits_and_one_machine_less_does_not(work: Work, pools: Pools, hours: float) -> None:
    inputs = view(work)
    would = fit(inputs.night, pools, 3600 * hours)
    for pool, number in would.alone.items():
        assert inputs.night(pools.grown(pool, number)).seconds <= 3600 * hours
        if number > pools.of(pool):
            assert inputs.night(pools.grown(pool, number - 1)).seconds > 3600 * hours
    assert would.together is None or inputs.night(would.together).seconds <= 3600 * hours
    assert would.alone or would.together, "minutes of watching leave room for any work"


# --- Where rates come from -------------------------------------------------------------------------------------------


def test_the_shipped_rates_are_those_of_the_committed_results() -> None:
    assert bench_rates.TARGET.read_text(encoding="utf-8") == bench_rates.text()
    # By hand: 54.8 ms an image on 2 cores; 26.2 us a row on one node; 43.9 s for 100,000 rows on 2 cores.
    names = ("pipeline", "index_types")
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names}
    whole = results["pipeline"]["figures"]["ours_spark_ms_an_image"]["median"]
    hnsw = results["index_types"]["figures"]["HNSW"]["build_s"]
    shipped = defaults()
    assert shipped["embed_cores_float32"]["value"] == pytest.approx(1000 / whole / 2, rel=1e-3)
    assert shipped["host_float32"]["value"] > shipped["embed_cores_float32"]["value"]
    assert shipped["index"]["HNSW"]["value"] == pytest.approx(100_000 / hnsw / 2, rel=1e-3)
    assert all("bench/results/" in shipped[name]["source"] for name in ("stage", "load", "warm", "faces_each"))


def test_the_rate_of_a_gpu_is_its_own_time_and_names_its_card() -> None:
    shipped, measured = defaults(), json.loads((RESULTS / "gpu.json").read_text())
    card = measured["machine"]["gpu"]
    # By hand: 244.6 us of the device for detection, and 1.42 faces at 6,913 or 35,010 a second.
    for dtype, expected in (("float32", 2222), ("bfloat16", 3507)):
        rate = shipped[f"embed_gpus_{dtype}"]
        assert rate["value"] == pytest.approx(expected, rel=1e-3)
        assert f"one {card} (another card has another rate)" in rate["source"]
        chosen_rate = chosen(settings=planned(f"model.dtype={dtype}")).embed_gpus
        assert chosen_rate is not None
        assert (chosen_rate.value, chosen_rate.assumed, chosen_rate.other_card) == (rate["value"], False, True)


def test_a_plan_by_another_card_says_so_and_what_yours_must_do() -> None:
    rates = chosen()
    inputs = view(rates=rates)
    plan, hours = inputs.night(Pools(4000, 64, 64)), 8.0
    assert verdict(plan, hours, None).endswith(
        "the GPU's rate is the benchmark's card's, none of yours has been measured"
    )
    remarks = notes(plan, planned(), hours)
    assert "No run here has measured a GPU" in remarks[0]
    needed = rate_needed(plan, 3600 * hours)
    assert needed is not None
    assert f"64 GPUs are enough for 8 h if each embeds {needed:,.0f} images/s." in remarks[1]
    enough = replace(rates, embed_gpus=per_s(needed))
    assert view(rates=enough).night(Pools(4000, 64, 64)).seconds == pytest.approx(3600 * hours)


def chosen(*runs: PastRun, spec: str = "HNSW", by_import: bool = True, settings: Settings | None = None) -> Rates:
    settings = settings or planned()
    return choose(settings, runs, IndexSpec(spec, params={"nlist": 1024}), 10 * M, by_import=by_import)


def past(run_id: str = "n1", seconds: float = 100, *, gpus: float = 0, **changes: Any) -> PastRun:
    """A run of 4 cores and 2 data nodes whose steps each did 8,000 images or rows in ``seconds``."""
    machine_s = {CORES: 4 * seconds, GPUS: gpus * seconds, NODES: 2 * seconds}
    steps = {}
    for number, kind in enumerate(("gate", "embed", "stage", "import", "index", "verify")):
        ended = 1_700_000_000.0 + number * seconds
        step = Measured(kind, seconds, ended, 8000, 8000, machine_s, "HNSW", True)
        steps[kind] = replace(step, **changes.get(kind, {}))
    return PastRun(run_id, steps)


def test_a_run_that_measured_it_comes_before_the_benchmarks() -> None:
    rates = chosen(past())
    values = {name: getattr(rates, name).value for name in ("gate", "embed_cores", "stage", "load", "index", "verify")}
    assert values == {"gate": 20, "embed_cores": 20, "stage": 20, "load": 40, "index": 40, "verify": 20}
    assert rates.embed_cores is not None
    assert rates.embed_cores.source == "run n1, 2023-11-14: 8,000 images in 100 s on 4 cores"
    assert rates.index_loads
    assert rates.embed_gpus is not None
    assert rates.embed_gpus.other_card


def test_the_newest_run_counts_and_one_that_was_too_short_does_not() -> None:
    rates = chosen(past("short", 59), past("newer", 200), past("older", 100))
    assert rates.stage is not None
    assert "run newer" in rates.stage.source
    only_short = chosen(past("short", 59)).stage
    assert only_short is not None
    assert "bench/results/loading.json" in only_short.source


def test_a_run_with_gpus_gives_a_gpus_rate_and_what_cores_kept_up_with() -> None:
    rates = chosen(past(gpus=2, embed={"images": 80_000.0}))
    assert rates.embed_gpus is not None
    assert rates.embed_cores is not None
    assert rates.host is not None
    assert (rates.embed_gpus.value, rates.embed_gpus.assumed, rates.embed_gpus.other_card) == (400, False, False)
    assert "bench/" in rates.embed_cores.source  # of cores alone it says nothing
    assert (rates.host.value, "run n1" in rates.host.source) == (200, True)
    slow = chosen(past(gpus=2)).host
    assert slow is not None
    assert "bench/" in slow.source  # the cores may have waited for the GPUs


@pytest.mark.parametrize(
    ("kind", "changes", "name"),
    [
        ("import", {"one_process": False}, "load"),  # resumed: its last process had less to do
        ("import", {"by_import": False}, "load"),
        ("index", {"index": "IVF_SQ8"}, "index"),
        ("verify", {"machine_s": {}}, "verify"),
        ("embed", {"machine_s": {}}, "embed_cores"),  # a release that did not record its cores
    ],
)
def test_what_is_not_comparable_is_not_taken(kind: str, changes: dict[str, Any], name: str) -> None:
    step: dict[str, Any] = {kind: changes}
    rate = getattr(chosen(past(**step)), name)
    assert rate is None or "run n1" not in rate.source


def test_looking_for_shared_ids_is_part_of_staging() -> None:
    run = past()
    id_check = replace(run.steps["stage"], kind="resolve-id-collisions", seconds=300)
    rate = chosen(PastRun("n1", {**run.steps, "resolve-id-collisions": id_check})).stage
    assert rate is not None
    assert rate.value == 8000 / 400 / 4


def test_a_setting_wins_over_both() -> None:
    given_ = planned(
        "planning.images_per_s_per_gpu=1500",
        "planning.images_per_s_per_core=12",
        "planning.host_images_per_s_per_core=90",
        "planning.index_rows_per_s_per_core=500",
        "planning.node_cores=4",
        "milvus.import_rows_per_s=7000",
    )
    rates = chosen(past(index={"index": "FLAT"}), settings=given_)
    found = [rates.embed_gpus, rates.embed_cores, rates.host, rates.index, rates.load]
    assert [rate.value for rate in found if rate] == [1500, 12, 90, 2000, 7000]
    assert all("the setting" in rate.source and not (rate.assumed or rate.other_card) for rate in found if rate)


def test_an_embedded_index_has_no_rate_from_a_server() -> None:
    rates = chosen(by_import=False, settings=load_settings(environ={}))
    assert (rates.index, rates.warm) == (None, None)
    assert rates.load is not None
    assert rates.load.assumed


@pytest.mark.parametrize("vector_type", ["float32", "float16", "bfloat16"])
def test_a_server_that_nobody_asked_is_assumed_to_store_the_type_of_vectors(vector_type: VectorType) -> None:
    settings, features, _ = inputs._server(planned(f"milvus.vector_type={vector_type}"), 10**6, None, True)
    assert vector_type in features.vector_types
    assert PlanInputs(settings, features, WORK, RATES, ()).load(2).vector_type == vector_type


def test_bfloat16_has_a_rate_of_its_own() -> None:
    rate = chosen(settings=planned("model.dtype=bfloat16")).embed_cores
    assert rate is not None
    assert rate.value == defaults()["embed_cores_bfloat16"]["value"]


def test_rows_are_dearer_to_index_in_fuller_segments() -> None:
    at = {"segment_rows": segment_rows("float32"), "measured_rows": 50_000, "measured_lists": 1024}
    assert index_growth(IndexSpec("HNSW"), 50_000, **at) == 1
    assert index_growth(IndexSpec("HNSW"), 10**9, **at) == pytest.approx(1.216, abs=1e-3)  # ln 516,222 / ln 50,000
    wide = IndexSpec("IVF_SQ8", params={"nlist": 65_536})
    assert index_growth(wide, 10**9, **at) == (516_222 // 39) / 1024
    assert index_growth(IndexSpec("IVF_SQ8", params={"nlist": 4096}), 10**9, **at) == 4
    assert index_growth(IndexSpec("DISKANN"), 10**9, **at) == 1
    # Of 16-bit numbers nearly twice as many rows fill one.
    assert index_growth(IndexSpec("HNSW"), 10**9, **at | {"segment_rows": segment_rows("float16")}) > 1.27
    rate = chosen(spec="IVF_SQ8").index
    assert rate is not None
    assert "ASSUMED: 2 cores a data node" in rate.source
    assert chosen(spec="DISKANN").index is None


# --- What it needs ---------------------------------------------------------------------------------------------------


def test_storage_and_cost_by_hand() -> None:
    settings = planned("planning.gpu_hour=2", "planning.core_hour=0.5", "planning.gib_month=0.02")
    inputs = PlanInputs(settings, SERVER, WORK, RATES, ())
    plan, load = inputs.night(Pools(2, 8, 1)), inputs.load(1)
    found = needs(plan, WORK, load, settings.planning, keep=2, models=1)
    faces = 14_400_000
    assert (found.staging_bytes, found.collection_bytes) == (faces * 2080, faces * (2080 + 2048 + 128 + 8))
    assert found.embeddings_bytes == faces * 2298
    assert found.peak_bytes == found.staging_bytes + 3 * found.collection_bytes + found.embeddings_bytes
    assert found.memory_bytes == 2 * faces * (2048 + 128 + 8 + 32)
    hours = plan.seconds / 3600
    assert found.gpu_hours == 8 * hours
    assert found.gpu_hours_embedding == 8 * 1800 / 3600
    assert found.night_cost == pytest.approx(16 * hours + hours)
    kept = found.embeddings_bytes + 2 * found.collection_bytes
    assert found.month_cost == pytest.approx(kept / 2**30 * 0.02)
    assert found.unpriced == ("node_hour",)
    assert needs(plan, WORK, load, planned().planning, keep=2, models=1).night_cost is None
    assert needs(plan, WORK, load, settings.planning, keep=2, models=2).embeddings_bytes == 2 * found.embeddings_bytes


def test_limits_of_the_settings_that_such_a_night_would_meet() -> None:
    inputs = view(Work(new=3 * 10**9), chosen())
    plan = inputs.night(Pools(768, 64, 1))
    text = " ".join(notes(plan, inputs.settings, None))
    assert "64 tasks of executor.decode_threads 2 use 192 of 768 cores" in text


# --- What a person sees ----------------------------------------------------------------------------------------------


def test_three_billion_images_on_64_gpus_in_8_hours(capsys: pytest.CaptureFixture[str]) -> None:
    settings = planned("planning.images_per_s_per_gpu=2000", "planning.node_cores=16", "planning.gpu_hour=2")
    work = Work(new=3 * 10**9, faces_each=1)
    probe = PlanInputs(
        settings, SERVER, work, choose(settings, [], IndexSpec("IVF_SQ8"), work.faces, by_import=True), ()
    )
    pools = Pools(768, 64, 8)
    plan, load = probe.night(pools), probe.load(8)
    would = fit(probe.night, pools, 8 * 3600)
    # 104,167 images a second leave no time for anything else: 64 GPUs at 2,000 take 6.5 h of the 8.
    assert plan.by_step()["embed"] == 3e9 / (768 * defaults()["host_float32"]["value"])
    text = verdict(plan, 8, would)
    assert text.startswith("does not fit 8 h: needs at least ")
    assert would.together is not None
    assert machines(GPUS, would.together.gpus) in text
    show(Console(), work, plan, load, needs(plan, work, load, settings.planning, keep=2, models=1), settings)
    out = capsys.readouterr().out
    words = " ".join(out.replace("│", " ").split())
    for part in ("3.00 bn", "64 GPUs", "h *", "index IVF_SQ8", "USD a night (without planning.core_hour", "not known"):
        assert part in words, part
    assert "…" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_machines_are_counted_where_there_may_be_more_of_them() -> None:
    assert [machines(GPUS, 1), machines(NODES, 2), machines("clock", 1)] == ["1 GPU", "2 data nodes", "the clock"]


@pytest.mark.parametrize(("text", "value"), [("3e9", 3 * 10**9), ("20000", 20_000), ("1.5e3", 1500), ("2_000", 2000)])
def test_a_count_may_be_written_with_an_exponent(text: str, value: int) -> None:
    assert Count().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["many", "-1", "0.5", "inf", "nan"])
def test_what_is_no_count_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Count().convert(text, None, None)


def test_help_shows_the_question_that_it_answers() -> None:
    assert main.help is not None
    assert "--images 3e9 --gpus 64 --hours 8" in main.help
    shown = main.get_help(click.Context(main))
    assert all(option in shown for option in ("--faces-per-image", "--data-nodes", "--recompute", "--cores"))


def test_prices_and_rates_are_no_part_of_a_runs_settings() -> None:
    assert planned().digest() == planned("planning.gpu_hour=3", "planning.images_per_s_per_gpu=900").digest()
    assert planned().digest() != planned("milvus.shards=2").digest()


def test_the_shipped_rates_travel_with_the_wheel() -> None:
    assert (Path(bench_rates.__file__).parents[1] / "conf" / "rates.yaml") == bench_rates.TARGET
