"""What steps record, and a metrics file as Prometheus's own parser reads it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

LABELS = ("run_id", "step", "status", "reason", "state")
GATE = {"images": 10, "accepted": 7, "refused": 3, "reasons": {"NO_BASIS": 2, "CONSENT_ENDED": 1}}
COUNTS = {
    "images": 10, "faces": 6, "faults": [],
    "statuses": {"embedded": 5, "broken": 2, "refused": 3},
    "reasons": {"broken:TRUNCATED": 2, "refused:NO_BASIS": 2, "refused:CONSENT_ENDED": 1},
}  # fmt: skip
VERIFY = {
    "collection": "faces_night_1", "rows_expected": 6, "rows_found": 6, "keys_missing": 0, "keys_unexpected": 0,
    "keys_duplicated": 0, "canaries_found": 0, "recall": 0.99, "self_hit": 1.0, "sample_size": 6, "latency_p50_ms": 2.0,
    "latency_p99_ms": 4.5, "passed": True, "faults": [], "counts": COUNTS,
}  # fmt: skip


def read(path: Path) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, but for the command."""
    found = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        for sample in family.samples:
            labels = [sample.labels[name] for name in LABELS if name in sample.labels]
            found[(sample.name.removeprefix("face_reindex_"), *labels)] = sample.value
    return found
