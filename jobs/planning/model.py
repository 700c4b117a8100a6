"""What a night takes: seconds by step, what limits it, what would make it fit. Pure arithmetic.

The model is `reindex` as it runs: its steps follow one another, so a night is the sum of them. Only inside embedding do
two things overlap: executors' cores read, decode and cut ahead of and behind the GPUs' networks, and the slower of the
two is what it takes. On cores alone the networks run on the same cores, and one rate holds all of it.

A step's time is its amount over (rate × machines): each pool of machines is taken to share its work evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.index.load_plan import LoadPlan
from jobs.index.protocol import IndexSpec

# Pools of machines by what they are called in `Pools`; the last two cannot be enlarged.
CORES, GPUS, NODES, DRIVER, CLOCK = "cores", "gpus", "data_nodes", "driver", "clock"
GROWABLE = (CORES, GPUS, NODES)
LABELS = {CORES: "cores", GPUS: "GPUs", NODES: "data nodes", DRIVER: "the driver", CLOCK: "the clock"}
_MOST = 10**8
# Knowhere takes no more lists than a 39th of a segment's rows, whatever nlist says (MatchNlist).
_ROWS_A_LIST = 39


@dataclass(frozen=True)
class Rate:
    """Units a second that one machine of a pool does, and where the figure comes from.

    ``other_card``: measured on the benchmark's GPU, which need not be the kind that the night has.
    """

    value: float
    unit: str
    source: str
    assumed: bool = False
    other_card: bool = False


@dataclass(frozen=True)
class Pools:
    """The machines of a night."""

    cores: int
    gpus: int
    data_nodes: int

    def of(self, pool: str) -> int:
        """How many of a pool; 1 of what cannot be enlarged."""
        return int(getattr(self, pool)) if pool in GROWABLE else 1

    def grown(self, pool: str, count: int) -> Pools:
        """The same with ``count`` of one pool."""
        return replace(self, **{pool: count})


@dataclass(frozen=True)
class Work:
    """What there is to do. ``gated`` images pass the gate, ``new`` and ``changed`` ones are embedded."""

    new: int
    changed: int = 0
    reused: int = 0
    refused: int = 0
    faces_reused: int = 0
    faces_each: float = 1.0

    @property
    def gated(self) -> int:
        """Images that the gate decides on."""
        return self.new + self.changed + self.reused + self.refused

    @property
    def embedded(self) -> int:
        """Images to embed."""
        return self.new + self.changed

    @property
    def faces(self) -> int:
        """Faces of the new collection."""
        return self.faces_reused + round(self.embedded * self.faces_each)


@dataclass(frozen=True)
class Rates:
    """One rate for each thing that takes time; None where nobody has measured it."""

    gate: Rate | None = None
    embed_cores: Rate | None = None
    embed_gpus: Rate | None = None
    host: Rate | None = None
    stage: Rate | None = None
    load: Rate | None = None
    # With `index_loads` the index's rate was measured with the load into memory, and `warm` is not asked.
    index: Rate | None = None
    index_loads: bool = False
    warm: Rate | None = None
    verify: Rate | None = None


@dataclass(frozen=True)
class StageTime:
    """One line of the plan. Lines of one ``step`` overlap; ``seconds`` is None where there is no rate."""

    step: str
    what: str
    pool: str
    amount: int
    rate: Rate | None
    seconds: float | None

    @property
    def name(self) -> str:
        """The step, and which part of it."""
        return f"{self.step} {self.what}".strip()


@dataclass(frozen=True)
class NightPlan:
    """The night: its lines, its length, what limits it."""

    pools: Pools
    stages: tuple[StageTime, ...]

    @property
    def seconds(self) -> float:
        """The sum of the steps; lines without a rate count nothing."""
        return sum(self.by_step().values())

    def by_step(self) -> dict[str, float]:
        """Seconds of each step: those of its slowest line."""
        steps: dict[str, float] = {}
        for line in self.stages:
            steps[line.step] = max(steps.get(line.step, 0.0), line.seconds or 0.0)
        return steps

    @property
    def limiting(self) -> StageTime:
        """The line that takes longest."""
        return max(self.stages, key=lambda line: line.seconds or 0.0)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Steps with something to do and no rate."""
        return tuple(line.step for line in self.stages if line.seconds is None)

    def busy(self, pool: str) -> float:
        """Seconds that this pool makes the night take."""
        slowest = {line.step: line for line in sorted(self.stages, key=lambda line: line.seconds or 0.0)}
        return sum(line.seconds or 0.0 for line in slowest.values() if line.pool == pool)


@dataclass(frozen=True)
class Fit:
    """What would make a night fit: any one pool enlarged alone, or all of them together (None: nothing would)."""

    alone: dict[str, int]
    together: Pools | None


def night(work: Work, pools: Pools, rates: Rates, load: LoadPlan, *, watch_s: float) -> NightPlan:
    """The lines of a night with these machines. ``load`` is the plan of the import onto `pools.data_nodes`."""
    index_pool = NODES if load.by_import else DRIVER
    lines = [
        _line("gate", "", CORES, work.gated, rates.gate, pools),
        *_embedding(work, pools, rates),
        _line("stage", "", CORES, work.faces, rates.stage, pools),
        replace(
            _line("import", "" if load.by_import else "by insert", index_pool, work.faces, rates.load, pools),
            seconds=load.seconds,
        ),
        *_indexing(work, pools, rates, load, index_pool),
        _line("verify", "", CORES, work.faces, rates.verify, pools),
    ]
    if watch_s:
        lines.append(StageTime("promote", "watch", CLOCK, 1, None, watch_s))
    # A night with nothing to do still has its gate.
    return NightPlan(pools, tuple(line for line in lines if line.amount) or (lines[0],))


def _embedding(work: Work, pools: Pools, rates: Rates) -> list[StageTime]:
    if not pools.gpus:
        return [_line("embed", "", CORES, work.embedded, rates.embed_cores, pools)]
    return [
        _line("embed", "decode", CORES, work.embedded, rates.host, pools),
        _line("embed", "networks", GPUS, work.embedded, rates.embed_gpus, pools),
    ]


def _indexing(work: Work, pools: Pools, rates: Rates, load: LoadPlan, pool: str) -> list[StageTime]:
    build = load.index.index_type
    if rates.index_loads:
        return [_line("index", f"{build} and load", pool, work.faces, rates.index, pools)]
    lines = [_line("load", "into memory", pool, work.faces, rates.warm, pools)]
    # FLAT is the vectors themselves.
    if load.index.index_type != "FLAT":
        lines = [_line("index", build, pool, work.faces, rates.index, pools), *lines]
    return lines


def _line(step: str, what: str, pool: str, amount: int, rate: Rate | None, pools: Pools) -> StageTime:
    seconds = None if rate is None else amount / (rate.value * pools.of(pool))
    return StageTime(step, what, pool, amount, rate, seconds)


def fit(plan_for: Callable[[Pools], NightPlan], pools: Pools, seconds: float) -> Fit:
    """What would make the night fit into ``seconds``; ``plan_for`` gives the night of any machines."""

    def fits(tried: Pools) -> bool:
        return plan_for(tried).seconds <= seconds

    used = [pool for pool in GROWABLE if any(line.pool == pool for line in plan_for(pools).stages)]
    alone = {pool: count for pool in used if (count := _enough(fits, pools, pool, pools.of(pool))) is not None}
    return Fit(alone, None if alone else _together(plan_for, fits, pools, used))


def _together(
    plan_for: Callable[[Pools], NightPlan], fits: Callable[[Pools], bool], pools: Pools, used: Sequence[str]
) -> Pools | None:
    """Enlarge what takes longest until it fits; then take back what one of them can spare."""
    tried = pools
    while not fits(tried):
        plan = plan_for(tried)
        pool = max(used, key=plan.busy, default=None)
        if pool is None or tried.of(pool) >= _MOST or not plan.busy(pool):
            return None
        tried = tried.grown(pool, math.ceil(tried.of(pool) * 1.02))
    for pool in used:
        tried = tried.grown(pool, _enough(fits, tried, pool, pools.of(pool)) or tried.of(pool))
    return tried


def _enough(fits: Callable[[Pools], bool], pools: Pools, pool: str, least: int) -> int | None:
    """The smallest number of ``pool``, from ``least`` on, that fits; None where ``_MOST`` does not."""
    if fits(pools.grown(pool, least)):
        return least
    low, high = least, least * 2
    while not fits(pools.grown(pool, high)):
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(pools.grown(pool, middle)) else (middle, high)
    return high


def rate_needed(plan: NightPlan, seconds: float) -> float | None:
    """Images a second that each GPU would have to do for the night to fit; None where the rest takes too long."""
    networks = next((line for line in plan.stages if line.pool == GPUS), None)
    host = max((line.seconds or 0.0 for line in plan.stages if line.step == "embed" and line.pool == CORES), default=0)
    left = seconds - (plan.seconds - plan.by_step().get("embed", 0.0))
    if networks is None or left < host or left <= 0:
        return None
    return networks.amount / (left * plan.pools.gpus)


def index_growth(spec: IndexSpec, rows: int, *, segment_rows: int, measured_rows: int, measured_lists: int) -> float:
    """By how much a row costs more to index than where it was measured: an assumption, from how the indexes work.

    A segment is indexed by itself, so that beyond a segment cost grows with the rows. Within one, a graph's grows with
    the logarithm of its rows, and that of lists with their number (each row is compared with each list's centre).
    """
    here = max(2, min(rows, segment_rows))
    if spec.index_type == "HNSW":
        return max(1.0, math.log(here) / math.log(measured_rows))
    if spec.index_type in ("IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN"):
        lists = min(spec.params.get("nlist", measured_lists), here // _ROWS_A_LIST)
        return max(1.0, lists / measured_lists)
    return 1.0
