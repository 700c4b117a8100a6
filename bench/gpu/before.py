"""What the former way on a GPU cost, and the ratios to it: that code is gone, so its figures stand here.

The former way: P-Net level by level through cuDNN, summed-area tables, torchvision's suppression, one batch at a time.
"""

from __future__ import annotations

from typing import Any

BEFORE: dict[str, Any] = {
    "code": "before commit 35c21cb",
    "measured_on": "one NVIDIA H200 with 16 cores, torch 2.11.0+cu130, 2026-11-27; by scripts that were not kept",
    "gpu": "NVIDIA H200",
    "end_to_end": {
        "way": "1 process of 12 threads, float32, each photograph met before; no other way was measured",
        "640 x 480, batch 8 images/s": 185.8,
        "640 x 480, batch 32 images/s": 238.2,
        "640 x 480, batch 64 images/s": 194.6,
        "mixed 0.5 to 4 MP, batch 32 images/s": 107.5,
    },
    "detection": {
        "640 x 480, batch 32: ms an image": 2.513,
        "640 x 480, batch 32: launches an image": 139.8,
        "640 x 480, batch 32: waits": 70,
        "640 x 480, batch 32: copies": 137,
        "640 x 480, batch 32: last step of torchvision's nms, us an image": 502.7,
        "mixed 0.5 to 4 MP, batch 32: ms an image": 4.761,
        "mixed 0.5 to 4 MP, batch 32: launches an image": 200.5,
        "mixed 0.5 to 4 MP, batch 32: waits": 118,
    },
    "pnet": {
        "three convolutions on a shape not met before, ms": 4.831,
        "the same on one that was, ms": 0.259,
    },
}
_WHERE = "640 x 480, batch 32: "


def with_before(parts: dict[str, Any], gpu: str | None) -> tuple[dict[str, Any], dict[str, float]]:
    """The figures of ``parts``, and the ratios that they allow; on the card of `BEFORE` with what was before."""
    ratios = _own(parts)
    if gpu != BEFORE["gpu"]:
        return dict(parts), ratios
    seen, was = parts.get("profile", {}), BEFORE["detection"]
    # A profiler that may not run counts nothing.
    if all(seen.get(_WHERE + name) for name in ("ms an image", "launches", "waits")):
        launches = seen[_WHERE + "launches"] / 32
        ratios |= {
            "launches_an_image_before_to_now": was[_WHERE + "launches an image"] / launches,
            "waits_a_batch_before_to_now": was[_WHERE + "waits"] / seen[_WHERE + "waits"],
            "detection_ms_an_image_before_to_now": was[_WHERE + "ms an image"] / seen[_WHERE + "ms an image"],
        }
    former = BEFORE["end_to_end"]["640 x 480, batch 32 images/s"]
    # Of float32 alone: nothing else was measured before.
    rates = [
        (name, rate)
        for part in ("end_to_end", "with_mps")
        for name, rate in parts.get(part, {}).items()
        if name.startswith("640 x 480") and name.endswith("threads images/s")
    ]
    one = [rate for name, rate in rates if " 1 processes " in name]
    if one:
        ratios["images_per_s_now_to_before_in_one_process"] = max(one) / former
        ratios["images_per_s_now_to_before_best_way"] = max(rate for _, rate in rates) / former
    return {**parts, "before": BEFORE}, ratios


def _own(parts: dict[str, Any]) -> dict[str, float]:
    pnet, passes = parts.get("pnet", {}), parts.get("passes", {})
    found = {}
    ours = pnet.get("pyramid and P-Net, ours ms an image")
    by_level = [value for name, value in pnet.items() if "by level" in name]
    if ours and by_level:
        found["pnet_by_level_to_ours_with_the_pyramid"] = min(by_level) / ours
    for dtype in ("float32", "bfloat16"):
        eager, graph = (passes.get(f"embedding, {dtype} 256{how}, crops/s") for how in ("", ", as a graph"))
        if eager and graph:
            found[f"embedding_crops_per_s_graph_to_eager_{dtype}_256"] = graph / eager
    return found
