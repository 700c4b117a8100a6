"""Reports of runs that never were: a good night, a failed one, one that is still embedding, one that did nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.reporting import flow, timings
from jobs.reporting.collect import Report, RunFacts
from jobs.reporting.drift import Drift, NewFaces
from jobs.reporting.permissions import Permissions
from jobs.runs.results import Imported, Indexed, Promoted, Screened, Verified
from jobs.runs.step_result import StepResult

BEGAN = 1_780_000_000.0
REASONS = {"NO_BASIS": 100, "CONSENT_ENDED": 48}
GATE = {"images": 1_000, "accepted": 852, "refused": 148, "reasons": REASONS, "fingerprint": "f" * 64}
PROOF: dict[str, Any] = {
    "collection": "faces_night", "rows_expected": 800, "rows_found": 800, "keys_missing": 0, "keys_unexpected": 0,
    "keys_duplicated": 0, "canaries_found": 0, "recall": 0.9981, "self_hit": 1.0, "sample_size": 200,
    "latency_p50_ms": 3.4, "latency_p99_ms": 9.2, "passed": True, "faults": [], "implausible": "",
    "distances": {
        "faces": 200, "nearest": [0] * 8 + [2, 9, 14, 11, 6, 4, 8, 19, 38, 51, 29, 9], "low": -0.1512, "median": 0.1694,
        "high": 0.5103, "spread": 0.1713,
    },
    "counts": {
        "images": 1_000, "faces": 800, "faults": [],
        "statuses": {"embedded": 750, "no_face": 90, "broken": 10, "left_for_next_run": 2, "refused": 148},
        "reasons": {**{f"refused:{r}": n for r, n in REASONS.items()}, "no_face:NO_FACE": 90, "broken:TRUNCATED": 10},
    },
}  # fmt: skip
_PLACES = {
    "alias": "faces",
    "current": "faces_nightly_2026_05_28",
    "previous": "faces_nightly_2026_05_27",
    "dropped": [],
    "watched": {"searches": 1_140, "p50_ms": 3.1, "p99_ms": 8.8},
}
#: As they stand in `run_steps`; of `plan` and `stage` only the sums are read.
RESULTS: dict[str, dict[str, Any]] = {
    "gate": GATE, "plan": {"images": 202}, "stage": {"rows": 805}, "import": {"collection": "faces_night", "rows": 805},
    "index": {"index": "HNSW"}, "verify": PROOF, "promote": _PLACES,
}  # fmt: skip


def recorded(results: Mapping[str, Mapping[str, Any]], like: flow.Recorded | None = None) -> flow.Recorded:
    """What a report is made from, of steps with these ``results`` on record; else as ``like`` another."""
    kinds: dict[str, type[StepResult]] = {
        "screened": Screened, "imported": Imported, "indexed": Indexed, "verified": Verified, "promoted": Promoted
    }  # fmt: skip
    typed: dict[str, Any] = {
        name: kind.of_record(results[kind.name()]) if kind.name() in results else None for name, kind in kinds.items()
    }
    sums: dict[str, Any] = {
        "planned": results.get("plan", {}).get("images"),
        "staged": results.get("stage", {}).get("rows"),
    }
    return replace(like or flow.Recorded(), **typed, **sums)


_COMPUTED = timings.Computed(
    202, 171, 100.0, {"embedded": 152, "no_face": 40, "broken": 10}, ("cuda:0", "cuda:1"), 0.83
)
_IMPORTS = timings.ImportTotals(8, 805, 1_700_000, 99, 102, 8, 805, 4, 1, False, (1.2, 2.8, 9.0))
_FACTS = RunFacts(
    run_id="nightly-2026-05-28-with-a-rather-long-name",
    job="reindex", state="done", exit_code=0, started=BEGAN, ended=BEGAN + 300, last_sign=BEGAN + 300, starts=2,
    last_step="promote", message="alias faces → faces_nightly_2026_05_28: 800 faces of 1000 images", next_step="",
    weights="random(seed=0), UNTRAINED", fingerprint="3fa9c1d2" * 8, collection="faces_nightly_2026_05_28",
    settings_digest="ab12" * 16, policy_digest="cd34" * 16, inputs={"images": 4, "processing_basis": 9},
)  # fmt: skip
_STEPS = {
    "gate": 12, "plan": 2, "embed": 100, "stage": 20, "import": 30, "index": 9, "remove-unpermitted-loaded": 1,
    "verify": 44, "promote": 61,
}  # fmt: skip


def _step_timings(names: list[str], lasted: Mapping[str, float] = _STEPS, chunks: int = 2) -> list[timings.StepTiming]:
    found, at = [], BEGAN
    for name in names:
        found.append(timings.StepTiming(name, at, at + lasted[name], lasted[name], chunks if name == "embed" else 1))
        at += lasted[name]
    return found


def _throughput(share: float) -> list[timings.Throughput]:
    begins = [BEGAN + 14 + 5 * n for n in range(20)]
    return [
        timings.Throughput(begin, begin + 5, 10 + n % 4, 8, 5, share + 0.02 * (n % 5)) for n, begin in enumerate(begins)
    ]


_RECORDED = recorded(RESULTS, flow.Recorded(computed=_COMPUTED, imports=_IMPORTS, removed=5))
_LAST = NewFaces("nightly-2026-05-27", 190, 160, (0.944, 0.9994, 1.0), 0.99999, 1.0, 1.00001)
_THIS = NewFaces(_FACTS.run_id, 202, 171, (0.941, 0.9993, 1.0), 0.99999, 1.0, 1.00001)
_PERMISSIONS = Permissions(
    at=datetime.fromtimestamp(BEGAN + 400, UTC),
    bases=(("eu-gdpr:A6-1-a", 700), ("dpv:ExplicitlyExpressedConsent", 90), ("eu-gdpr:A6-1-c", 10)),
    within_30_days=12,
    months=(12, 30, 0, 52, 80, 91, 30, 28, 61, 55, 49, 72),
    later=240,
    not_in_force=148,
)

GOOD = Report(
    made_at=BEGAN + 400,
    run=_FACTS,
    recorded=_RECORDED,
    links=flow.links(_RECORDED),
    checks=flow.checks(_RECORDED),
    dropped={"too_small": 41, "low_confidence": 12, "over_limit": 0, "uncovered": 9},
    step_timings=_step_timings(list(_STEPS)),
    throughput=_throughput(0.78),
    drift=Drift(_THIS, _LAST, 0.9987, ""),
    permissions=_PERMISSIONS,
    data_nodes=4,
    recall_floor=0.95,
)

_FAULTY = recorded(
    {
        **{name: result for name, result in RESULTS.items() if name != "promote"},
        "verify": {**PROOF, "rows_found": 799, "keys_missing": 1, "passed": False, "faults": ["1 keys are missing"]},
    },
    _RECORDED,
)
FAILED = replace(
    GOOD,
    run=replace(
        _FACTS,
        state="failed",
        exit_code=4,
        last_step="verify",
        message="Collection faces_nightly_2026_05_28 is not proven: 1 keys are missing. The alias was not switched.",
        next_step="run the same command with the same --run-id, or a new reindex; `status` shows the counts.",
    ),
    recorded=_FAULTY,
    checks=flow.checks(_FAULTY),
    step_timings=_step_timings([name for name in _STEPS if name != "promote"]),
    drift=Drift(_THIS, None, None, "No earlier run of this model is on record, so there is nothing to compare with."),
)

_SOME = recorded(
    {"gate": GATE, "plan": {"images": 202}},
    flow.Recorded(computed=timings.Computed(60, 70, 40.0, {"embedded": 60}, ("cpu",), 0.93)),
)
EARLY = replace(
    GOOD,
    run=replace(_FACTS, state="running", exit_code=None, ended=None, last_step="embed", message="", collection=""),
    recorded=_SOME,
    links=flow.links(_SOME),
    checks=flow.checks(_SOME),
    step_timings=_step_timings(["gate", "plan", "embed"]),
    throughput=_throughput(0.88)[:8],
    data_nodes=None,
    recall_floor=None,
)

NOTHING = Report(
    made_at=BEGAN,
    run=replace(
        _FACTS,
        state="failed",
        exit_code=3,
        starts=1,
        last_step="",
        message="There is no basis record, so every image is refused and nothing was read.",
        next_step="write a template.",
        weights="",
        fingerprint="",
        collection="",
        inputs={},
    ),
    recorded=flow.Recorded(),
    links=[],
    checks=[],
    dropped={},
    step_timings=[],
    throughput=[],
    drift=None,
    permissions=Permissions(datetime.fromtimestamp(BEGAN, UTC), (), 0, (0,) * 12, 0, 0),
    data_nodes=None,
    recall_floor=None,
)

# A night of three billion images: 6,000 chunks on 64 GPUs, 3,000 files into 16 data nodes, eight hours.
_BN = 10**9
_MANY = {f"REASON_{number}": 40_000_000 // number for number in range(1, 12)}
_REFUSED = sum(_MANY.values())
_LARGE_STATUSES = {"embedded": 2_104_338_911, "no_face": 611_204_004, "broken": 61_337_210, "refused": _REFUSED}
_LEFT = 3 * _BN - sum(_LARGE_STATUSES.values())
_LARGE_RESULTS: dict[str, dict[str, Any]] = {
    **RESULTS,
    "gate": {
        "images": 3 * _BN, "accepted": 3 * _BN - _REFUSED, "refused": _REFUSED, "reasons": _MANY,
        "fingerprint": "f" * 64,
    },
    "plan": {"images": 3 * _BN - _REFUSED - _LEFT},
    "stage": {"rows": 2_711_000_412}, "import": {"collection": "faces_night", "rows": 2_711_000_412},
    "index": {"index": "IVF_SQ8"},
    "verify": {
        **PROOF, "rows_expected": 2_711_000_400, "rows_found": 2_711_000_400, "latency_p50_ms": 41.3,
        "latency_p99_ms": 130.9, "counts": {
            "images": 3 * _BN, "faces": 2_711_000_400, "faults": [],
            "statuses": {**_LARGE_STATUSES, "left_for_next_run": _LEFT},
            "reasons": {
                **{f"refused:{reason}": n for reason, n in _MANY.items()}, "no_face:NO_FACE": 611_204_004,
                "broken:TRUNCATED": 61_337_210,
            },
        },
    },
}  # fmt: skip
_LARGE = recorded(_LARGE_RESULTS, flow.Recorded(
    computed=timings.Computed(
        3 * _BN - _REFUSED - _LEFT, 2_711_000_412, 6.1 * 3600,
        {"embedded": 2_104_338_911, "no_face": 611_204_004, "broken": 61_337_210},
        tuple(f"cuda:{n}" for n in range(8)), 0.83,
    ),
    imports=timings.ImportTotals(2_712, 2_711_000_412, 5_700 * 2**30, 999_100, 1_000_000, 2_712, 2_711_000_412, 170,
                 12, False, (91.0, 240.0, 1_900.0)),
    removed=12,
))  # fmt: skip
_HOURS = {
    "gate": 0.4, "plan": 0.2, "embed": 6.1, "stage": 0.5, "import": 1.1, "index": 0.9, "remove-unpermitted-loaded": 0.1,
    "verify": 0.3, "promote": 0.02,
}  # fmt: skip

LARGE = replace(
    GOOD,
    made_at=BEGAN + 10 * 3600,
    run=replace(_FACTS, ended=BEGAN + 3600 * sum(_HOURS.values()), message=_FACTS.message, starts=4),
    recorded=_LARGE,
    links=flow.links(_LARGE),
    checks=flow.checks(_LARGE),
    dropped={"too_small": 410_330_007, "low_confidence": 120_004_111, "over_limit": 88, "uncovered": 9_441_200},
    step_timings=_step_timings(list(_HOURS), {name: 3600 * hours for name, hours in _HOURS.items()}, chunks=6_000),
    throughput=[
        timings.Throughput(BEGAN + 2_160 + 366 * n, BEGAN + 2_526 + 366 * n, 45_000_000 + n % 7 * 10**6, 43_000_000,
                  366, 0.7 + 0.03 * (n % 6))
        for n in range(60)
    ],
    data_nodes=16,
)  # fmt: skip
