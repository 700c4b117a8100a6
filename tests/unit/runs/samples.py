"""A metrics file, as Prometheus's own parser reads it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

LABELS = ("run_id", "step", "status", "reason", "state")


def read(path: Path) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, but for the command."""
    found = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        for sample in family.samples:
            labels = [sample.labels[name] for name in LABELS if name in sample.labels]
            found[(sample.name.removeprefix("face_reindex_"), *labels)] = sample.value
    return found
