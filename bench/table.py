"""The tables of figures in docs/speed.md and docs/operations.md: from the JSON files in bench/results/, and no others.

python -m bench.table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import scaling
from bench.index_types import shown
from bench.pipeline import NAMES
from bench.rates import images_per_s_of_gpu
from bench.record import RESULTS, result
from udfs.arrays import EMBEDDING_DIM

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- figures: python -m bench.table -->\n", "<!-- end of figures -->\n"

_FRAME, _MIXED = "640 x 480", "mixed 0.5 to 4 MP"


def main() -> None:
    """Write the tables between the two marks of each page."""
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    scaling.main()


def with_figures(page: str) -> str:
    """The page's text with the tables of the committed results."""
    before, rest = page.split(BEGIN)
    return (
        before
        + BEGIN
        + "\n"
        + "\n".join([_pipeline(), _growth(), _recall(), *_loading(), *_index_types(), *_erasing(), *_gpu()])
        + "\n"
        + END
        + rest.split(END)[1]
    )


def _on(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['cores']} cores of {machine['cpu']} ({machine['vector']}), {result['date'][:10]}"


def _pipeline() -> str:
    measured = result("pipeline")
    figures, setting = measured["figures"], measured["setting"]
    best = figures["ours_spark_ms_an_image"]["median"]
    lines = [
        f"Stored JPEGs ({setting['photographs']}, {setting['mean_megapixels']} MP on average) to embeddings, on "
        f"{_on(measured)}; medians of {setting['rounds']} rounds in turns:",
        "",
        "| | ms an image | ours in Spark is |",
        "| --- | ---: | ---: |",
    ]
    for name, label in NAMES.items():
        cost = figures[f"{name}_ms_an_image"]["median"]
        lines.append(f"| {label} | {cost:.0f} | {cost / best:.2f} x |")
    return "\n".join(lines) + "\n"


def _growth() -> str:
    measured = result("growth")
    cost, workers = measured["figures"]["ms_an_image"], measured["figures"]["ms_an_image_by_workers"]
    sizes = ", ".join(f"{value:.1f} ms with {int(size):,}" for size, value in cost.items())
    return (
        f"An image ({measured['setting']['photographs']}) costs {sizes} images in the job; {workers['1']:.1f} ms "
        f"with one worker and {workers['2']:.1f} ms with two. On {_on(measured)}.\n"
    )


def _recall() -> str:
    figures = result("recall")["figures"]
    return (
        f"Of {figures['faces_in_scope']} faces of at least 0.05 of the long side that detection at full size finds, "
        f"{figures['found_in_scope']} are found at the size that `detection.smallest_face` gives.\n"
    )


def _loading() -> list[str]:
    if not (RESULTS / "loading.json").exists():
        return []
    measured = result("loading")
    figures, ratios, rows = measured["figures"], measured["ratios"], measured["setting"]["rows"]
    lines = [
        f"{rows:,} faces of {EMBEDDING_DIM} numbers from Delta into {measured['setting']['server']}, searchable, on "
        f"{_on(measured)}; medians of {measured['setting']['rounds']} rounds in turns. Bulk import is "
        f"{ratios['bulk_to_rpc_end_to_end']:.2f} x RPC insert.",
        "",
        "| seconds | bulk import | RPC insert |",
        "| --- | ---: | ---: |",
        f"| stage with all checks | {figures['bulk_s']['stage']:.1f} | |",
        f"| import, or insert | {figures['bulk_s']['import']:.1f} | {figures['rpc_s']['insert']:.1f} |",
        f"| index and load | {figures['bulk_s']['index and load']:.1f} | {figures['rpc_s']['index and load']:.1f} |",
    ]
    return ["\n".join(lines) + "\n"]


def _index_types() -> list[str]:
    if not (RESULTS / "index_types.json").exists():
        return []
    measured = result("index_types")
    setting = measured["setting"]
    lines = [
        f"Index types over {setting['rows']:,} faces ({setting['vectors']}) in {setting['server']}, on "
        f"{_on(measured)}. Searched for: {setting['queries']}. Bytes are what the plan counts with.",
        "",
        "| index | built with | searched with | recall@10 | median, ms | 99 % within, ms | build, s | bytes a face |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in measured["figures"].items():
        how = f"{shown(found['parameters'])} | {shown(found['search'])}"
        speed = f"{found['p50_ms']:.1f} | {found['p99_ms']:.1f} | {found['build_s']:.1f}"
        size = f"{found['bytes_a_row']['planned']:,}"
        lines.append(f"| {name} | {how} | {found['recall_at_10']:.3f} | {speed} | {size} |")
    return ["\n".join(lines) + "\n"]


def _erasing() -> list[str]:
    if not (RESULTS / "erasing.json").exists():
        return []
    measured = result("erasing")
    figures, rows = measured["figures"], measured["setting"]["rows"]
    passes = ", ".join(
        f"{sum(found['seconds'].values()):.0f} s for {int(people):,} {'person' if people == '1' else 'people'} "
        f"({sum(found['bytes_rewritten'].values()) / 1e6:,.0f} MB rewritten)"
        for people, found in figures["erasure"].items()
    )
    stored, gate, audit = measured["setting"], figures["gate"]["seconds"], figures["audit"]["seconds_a_million_events"]
    share = 100 * measured["ratios"]["gate_to_a_run_that_embeds_all"]
    return [
        f"The gate decides {rows:,} images in {gate:.0f} s ({share:.2f} % of embedding them). Erasing from the tables "
        f"of {rows:,} faces, in one pass: {passes}. One out of {stored['pictures']:,} stored images of "
        f"{stored['picture_bytes'] / 1e3:.0f} kB: {figures['images']['mb_rewritten_an_image']:.0f} MB rewritten. A "
        f"million audit events are verified in {audit:.0f} s. On {_on(measured)}.\n"
    ]


def _gpu() -> list[str]:
    if not (RESULTS / "gpu.json").exists():
        return []
    measured = result("gpu")
    figures, machine = measured["figures"], measured["machine"]
    versions = measured["versions"]
    head = (
        f"On one {machine['gpu']} with {machine['cores']} cores (torch {versions['torch']}), {measured['date'][:10]}; "
        "made photographs, random weights. JPEGs in memory to embeddings, by all processes together; *busy*: the part "
        "of the time in which a process has a batch on the device, by the host's clock, not the device's counters."
    )
    return [
        head + "\n",
        _table(["way", "images/s", "busy"], _ways(figures["end_to_end"]) + _ways(figures["with_mps"], ", under MPS")),
        _table(
            ["detection", "ms an image", "of it on the device", "launches a batch", "waits a batch"],
            _detection(figures),
        ),
        _table(
            ["P-Net, 640 x 480", "ms an image"],
            [[name.removesuffix(" ms an image"), f"{value:.3f}"] for name, value in figures["pnet"].items()
             if name.endswith(" ms an image")],
        ),
        _table(["embedding, crops a second", "eager", "as a graph"], _embedding(figures["passes"])),
        _bounds(figures, machine["cores"]),
    ]  # fmt: skip


def _bounds(figures: dict[str, Any], cores: int) -> str:
    end, mps, copies = figures["end_to_end"], figures["with_mps"], figures["copies"]
    frame = "640 x 480, {} images/s"
    one = end[frame.format("1 processes of 6 threads")]
    eight, half = (mps[frame.format(f"8 processes of 2 threads{dtype}")] for dtype in ("", ", bfloat16"))
    alone, beside = (
        figures["host"][f"detection by 2 threads beside {count} that decode, images/s"] for count in (0, 8)
    )
    mixed = mps["mixed 0.5 to 4 MP, 8 processes of 2 threads, bfloat16 images/s"]
    decoded = {kind: copies[f"decoded and shrunk, {kind}, 16 threads, images/s"] for kind in (_FRAME, _MIXED)}
    rates = images_per_s_of_gpu(figures, _FRAME)
    return (
        f"What bounds it there: at 640 x 480 one process does {one:,.0f} images/s, for its threads share Python's "
        f"lock: detection alone, by two threads, does {alone:,}, beside eight threads that decode {beside:,}. Eight "
        f"processes under NVIDIA's multi-process service (MPS) do {eight:,.0f} (float32) and {half:,.0f} (bfloat16), "
        f"where the device's own time would allow {rates['float32']:,.0f} and {rates['bfloat16']:,.0f}. Photographs "
        f"of 0.5 to 4 MP are bounded by decoding on {cores} cores: {mixed:,.0f} images/s, where decoding and shrinking "
        f"them, with nothing beside it, does {decoded[_MIXED]:,.0f} (of 640 x 480: {decoded[_FRAME]:,.0f}).\n"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ways(part: dict[str, Any], where: str = "") -> list[list[str]]:
    rows = []
    for name, rate in part.items():
        if name.endswith(" images/s"):
            way = name.removesuffix(" images/s")
            shown_way = way if way.endswith("bfloat16") else f"{way}, float32"
            busy = f"{part[f'{way}: busy']:.2f}"
            rows.append([shown_way.replace("1 processes", "1 process") + where, f"{rate:,.0f}", busy])
    return rows


def _detection(figures: dict[str, Any]) -> list[list[str]]:
    seen, was = figures["profile"], figures.get("before", {}).get("detection", {})
    rows = []
    for key in [name.removesuffix(": ms an image") for name in was if name.endswith(": ms an image")]:
        launches = f"{was[f'{key}: launches an image'] * 32:,.0f}"
        rows.append([f"{key}, as it was", f"{was[f'{key}: ms an image']:.2f}", "", launches, f"{was[f'{key}: waits']}"])
    for key in [name.removesuffix(": ms an image") for name in seen if name.endswith(": ms an image")]:
        device = f"{seen[f'{key}: device us an image'] / 1000:.2f}"
        launches, waits = seen[f"{key}: launches"], seen[f"{key}: waits"]
        rows.append([key, f"{seen[f'{key}: ms an image']:.2f}", device, f"{launches:,}", f"{waits}"])
    return rows


def _embedding(passes: dict[str, Any]) -> list[list[str]]:
    rows = []
    for dtype in ("float32", "bfloat16"):
        for count in (64, 256, 1024):
            name = f"embedding, {dtype} {count}"
            eager, graph = passes[f"{name}, crops/s"], passes[f"{name}, as a graph, crops/s"]
            rows.append([f"{dtype}, passes of {count:,}", f"{eager:,}", f"{graph:,}"])
    return rows


if __name__ == "__main__":
    main()
