"""One JSON file for each benchmark, with what is needed to judge its figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
#: What a copy without git says of its commit: see `bench.gpu.kit`.
CARRIED_COMMIT = _ROOT / "COMMIT"
_PACKAGES = (
    "torch",
    "torchvision",
    "cuda-bindings",
    "facenet-pytorch",
    "pyspark",
    "delta-spark",
    "pillow",
    "simplejpeg",
    "pi-heif",
    "numba",
    "numpy",
    "ray",
    "daft",
)


class Stopwatch:
    """Laps by name, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begin = time.monotonic()

    def lap(self, name: str) -> None:
        """The time since the last lap goes to ``name``."""
        now = time.monotonic()
        self.laps[name], self._begin = now - self._begin, now


def write(
    name: str,
    figures: dict[str, Any],
    ratios: dict[str, float],
    *,
    setting: dict[str, Any],
    folder: Path = RESULTS,
    on: dict[str, Any] | None = None,
) -> Path:
    """Write ``bench/results/NAME.json``; ``setting`` says what was measured on (pictures, counts, threads).

    ``on``: the machine, where another process measured; left out, it is this process's `machine`.
    """
    content = {
        "name": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "machine": machine() if on is None else on,
        "versions": {"python": platform.python_version()} | {p: v for p in _PACKAGES if (v := _version(p))},
        "setting": setting,
        "figures": figures,
        "ratios": {key: round(value, 3) for key, value in ratios.items()},
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def result(name: str) -> dict[str, Any]:
    """A committed result."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def canvas(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure that needs no screen, and its axes, without a frame."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(ncols=columns, figsize=(width, height), layout="constrained")
    for one in axes if columns > 1 else [axes]:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPU; no host name."""
    import torch

    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    vector = torch.backends.cpu.get_cpu_capability()
    return {"cpu": model, "vector": vector, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "gpu": gpu}


def commit() -> str:
    """The commit, and "-dirty" where anything but earlier results has changed since; "unknown" without git."""
    if CARRIED_COMMIT.exists():
        return CARRIED_COMMIT.read_text(encoding="utf-8").strip()
    head = _git("rev-parse", "--short", "HEAD") or "unknown"
    return head + ("-dirty" if _git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs/speed.md") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S607
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
