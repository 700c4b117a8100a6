"""Rates that `plan` counts with where no run has measured its own: conf/rates.yaml, from the results and nowhere else.

python -m bench.rates
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.record import RESULTS, result

TARGET = Path(__file__).parents[1] / "conf" / "rates.yaml"
HEAD = """\
# Rates that `plan` counts with where no run has measured its own. Made by `python -m bench.rates` from the results of
# the benchmarks; a test compares them. `embed_gpus_…` are of the card that their source names.
"""
NETWORKS = {"float32": ("pnet", "rnet", "onet", "resnet"), "bfloat16": ("pnet", "rnet", "onet", "resnet_bf16")}
# As `udfs.pipeline` does it on a GPU where the settings say nothing: pictures in a batch, faces in a pass.
_DETECTED, _EMBEDDED = 64, 256


def main() -> None:
    """Write the file."""
    TARGET.write_text(text(), encoding="utf-8")


def text() -> str:
    """The file of the committed results."""
    rates = {**_pipeline(), **_gpu(), **_loading(), **_index_types(), **_gate()}
    return HEAD + str(yaml.safe_dump(rates, sort_keys=False, width=110, allow_unicode=True))


def _rate(value: float, unit: str, measured: dict[str, Any], what: str) -> dict[str, Any]:
    machine = measured["machine"]
    where = f"{machine['cores']} cores of {machine['cpu']} ({machine['vector']})"
    source = f"bench/results/{measured['name']}.json, {measured['date'][:10]}, {where}: {what}"
    return {"value": float(f"{value:.4g}"), "unit": unit, "source": source}


def _pipeline() -> dict[str, Any]:
    measured = result("pipeline")
    figures, setting = measured["figures"], measured["setting"]
    photographs = f"{setting['photographs']} ({setting['mean_megapixels']} MP on average)"
    rates: dict[str, Any] = {}
    for dtype, networks in NETWORKS.items():
        name = "ours_spark_ms_an_image" if dtype == "float32" else "ours_spark_bf16_ms_an_image"
        whole = figures[name]["median"]
        parts = sum(figures["limit_parts_ms_an_image"][part] for part in networks)
        rates[f"embed_cores_{dtype}"] = _rate(
            1000 / (whole * setting["workers"]), "images/s", measured, f"{dtype}, {photographs}"
        )
        # With a GPU all of it but the networks is taken to stay on the cores: more than will, so no plan is too short.
        rates[f"host_{dtype}"] = _rate(
            1000 / ((whole - parts) * setting["workers"]),
            "images/s",
            measured,
            f"all of an image but the networks' passes, {photographs}",
        )
    faces = figures["faces"]["ours"]
    rates["faces_each"] = _rate(
        faces / setting["images"], "faces/image", measured, f"{faces:.0f} faces in {setting['images']} photographs"
    )
    return rates


def images_per_s_of_gpu(figures: dict[str, Any], photographs: str) -> dict[str, float]:
    """By dtype, what the device's own time allows: detection of an image, and the embeddings of its faces.

    ``figures``: of bench/results/gpu.json.
    """
    detection_us = figures["profile"][f"{photographs}, batch {_DETECTED}: device us an image"]
    rates = {}
    for dtype in NETWORKS:
        crops_per_s = figures["passes"][f"embedding, {dtype} {_EMBEDDED}, as a graph, crops/s"]
        rates[dtype] = 1e6 / (detection_us + 1e6 * _faces_each(figures, photographs) / crops_per_s)
    return rates


def _faces_each(figures: dict[str, Any], photographs: str) -> float:
    ways = figures["end_to_end"].items()
    return next(float(n) for name, n in ways if name.startswith(photographs) and name.endswith(": faces an image"))


def _gpu() -> dict[str, Any]:
    """With cores enough to feed it, for `plan` counts decoding on cores by itself."""
    measured = result("gpu")
    figures, card, photographs = measured["figures"], measured["machine"]["gpu"], "mixed 0.5 to 4 MP"
    source = f"bench/results/gpu.json, {measured['date'][:10]}, one {card} (another card has another rate): "
    faces = _faces_each(figures, photographs)
    return {
        f"embed_gpus_{dtype}": {
            "value": float(f"{value:.4g}"),
            "unit": "images/s",
            "source": f"{source}the device's time, {dtype}, {photographs}, {faces:.2f} faces an image",
        }
        for dtype, value in images_per_s_of_gpu(figures, photographs).items()
    }


def _loading() -> dict[str, Any]:
    measured = result("loading")
    cores, server = measured["machine"]["cores"], measured["setting"]["server"]
    growth = measured["figures"]["growth"]["us_a_row"]
    rows = max(int(size) for size in growth)
    cost = growth[str(rows)]
    return {
        "stage": _rate(1e6 / (cost["stage"] * cores), "rows/s", measured, f"{rows:,} rows"),
        "load": _rate(1e6 / cost["import"], "rows/s", measured, f"{rows:,} rows, {server} as one data node"),
        # FLAT has nothing to build: what is left is loading.
        "warm": _rate(1e6 / cost["index and load"], "rows/s", measured, f"{rows:,} rows, FLAT, {server} as one node"),
    }


def _index_types() -> dict[str, Any]:
    measured = result("index_types")
    cores, setting, figures = measured["machine"]["cores"], measured["setting"], measured["figures"]
    rows = setting["rows"]
    index = {
        name: _rate(rows / (found["build_s"] * cores), "rows/s", measured, f"{rows:,} rows, {setting['server']}")
        for name, found in figures.items()
        if found["build_s"]
    }
    lists = figures["IVF_SQ8"]["parameters"]["nlist"]
    return {"index": index, "index_measured": {"rows_a_segment": rows // setting["shards"], "nlist": lists}}


def _gate() -> dict[str, Any]:
    if not (RESULTS / "erasing.json").exists():
        return {}
    measured = result("erasing")
    rows, seconds = measured["setting"]["rows"], measured["figures"]["gate"]["seconds"]
    return {"gate": _rate(rows / (seconds * measured["machine"]["cores"]), "images/s", measured, f"{rows:,} images")}


if __name__ == "__main__":
    main()
