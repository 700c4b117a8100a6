"""The parts of a plan brought together: the work, the machines, the server, the rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.errors import DependencyUnavailable
from jobs.index.collections import default_index
from jobs.index.load_plan import LoadPlan, plan_load, uses_bulk_import
from jobs.index.milvus.connect import connect
from jobs.index.protocol import EMBEDDED, NUMBER_BYTES, Features
from jobs.planning.calibration import calibrated_rates, calibrations
from jobs.planning.model import NightPlan, Pools, Rate, Rates, Work, night
from jobs.planning.rates import choose, defaults, recorded
from jobs.planning.work import faces_each
from jobs.runs.machines import cluster_resources
from jobs.runs.record import JobContext
from jobs.settings import Settings

# An embedded index is searched by brute force in one process; beyond this a server is planned.
_EMBEDDED_FACES = 1_000_000
_ASSUMED_SERVER = Features("2.3", bulk_import=True, files_per_job=1)
_ASSUMED_OF_16_BITS = replace(_ASSUMED_SERVER, version="2.4.1", vector_types=frozenset(NUMBER_BYTES))


@dataclass(frozen=True)
class PlanInputs:
    """All that a night follows from, but the number of machines. ``assumptions``: what was not known, in words."""

    settings: Settings
    features: Features
    work: Work
    rates: Rates
    assumptions: tuple[str, ...]

    def load(self, nodes: int) -> LoadPlan:
        """The import onto so many data nodes, at the chosen rate."""
        changed: dict[str, int] = {"data_nodes": nodes}
        if self.rates.load is not None:
            changed["import_rows_per_s"] = max(1, round(self.rates.load.value))
        milvus = self.settings.milvus.model_copy(update=changed)
        return plan_load(self.work.faces, self.settings.model_copy(update={"milvus": milvus}), self.features)

    def night(self, pools: Pools) -> NightPlan:
        """The night on these machines."""
        # An embedded index has no readers but the job: its alias is not watched.
        watch_s = 0.0 if self.settings.embedded else self.settings.milvus.watch_s
        return night(self.work, pools, self.rates, self.load(pools.data_nodes), watch_s=watch_s)


def plan_inputs(job: JobContext, work: Work, *, data_nodes: int | None, hypothetical: bool) -> PlanInputs:
    """What a plan of ``work`` follows from. The server is asked what it can do, unless it is ``hypothetical``."""
    settings, features, assumptions = _server(job.settings, work.faces, data_nodes, hypothetical)
    by_import = uses_bulk_import(settings, features)
    spec = default_index(settings, work.faces, embedded=settings.embedded)
    calibrated = calibrated_rates(calibrations(job.warehouse), settings.model.dtype, work.faces_each)
    runs = recorded(job.warehouse)
    rates = choose(settings, runs, spec, work.faces, by_import=by_import, calibrated=calibrated)
    return PlanInputs(settings, features, work, rates, assumptions)


def faces_rate(job: JobContext, given: float | None, fingerprint: str | None) -> Rate:
    """Faces an image: as given, else as in the warehouse, else as in the benchmark's photographs."""
    if given is not None:
        return Rate(given, "faces/image", "--faces-per-image")
    bench = defaults()["faces_each"]
    return faces_each(job.warehouse, fingerprint) or Rate(**bench, assumed=True)


def pools_for(job: JobContext, settings: Settings, gpus: int | None, cores: int | None) -> tuple[Pools, str]:
    """The machines: as given, else this session's; and where their number comes from."""
    here = cluster_resources(job.spark, settings)
    if cores is None and gpus:
        cores, source = gpus * settings.planning.cores_per_gpu, "cores by planning.cores_per_gpu"
    elif cores is None:
        cores, source = max(1, here.cores), "cores of this session"
    else:
        source = "cores as given"
    return Pools(cores, here.gpus if gpus is None else gpus, settings.milvus.data_nodes), source


def _server(
    settings: Settings, faces: int, data_nodes: int | None, hypothetical: bool
) -> tuple[Settings, Features, tuple[str, ...]]:
    embedded = settings.embedded and data_nodes is None and faces <= _EMBEDDED_FACES
    changed: dict[str, object] = {"data_nodes": data_nodes or settings.milvus.data_nodes}
    said = ""
    if settings.embedded and not embedded:
        changed["uri"] = "http://planned"
        said = "milvus.uri names an embedded index: planned for a Milvus server instead, with one file an import job."
    milvus = settings.milvus.model_copy(update=changed)
    planned = settings.model_copy(update={"milvus": milvus})
    if embedded:
        return planned, EMBEDDED, ()
    assumed = _ASSUMED_SERVER if milvus.vector_type == "float32" else _ASSUMED_OF_16_BITS
    if hypothetical or said:
        return planned, assumed, (said,) if said else ()
    try:
        with connect(settings) as index:
            return planned, index.features, ()
    except DependencyUnavailable:
        return planned, assumed, ("Milvus is out of reach: planned for one file an import job, as in 2.3.",)


def assumptions(view: PlanInputs, faces: Rate, whence: str, model: str | None) -> list[str]:
    """What the plan takes for granted, a line each."""
    lines = [f"{faces.value:.2f} faces an image ({faces.source}); {whence}.", *view.assumptions]
    if model and view.work.reused:
        lines.append(f"Reuse is counted for the last run's model ({model[:12]}); after a change of it: --recompute.")
    return lines
