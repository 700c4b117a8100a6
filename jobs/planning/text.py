"""A plan as a person reads it: tables, notes, and one line that answers the question."""

from __future__ import annotations

from jobs.formatting import digits, short, size, span
from jobs.index.load_plan import LoadPlan
from jobs.planning.model import (
    CLOCK,
    DRIVER,
    GPUS,
    GROWABLE,
    LABELS,
    Fit,
    NightPlan,
    Rate,
    StageTime,
    Work,
    rate_needed,
)
from jobs.planning.needs import Needs
from jobs.runs.console import Console
from jobs.settings import Settings


def show(console: Console, work: Work, plan: NightPlan, load: LoadPlan, needed: Needs, settings: Settings) -> None:
    """Print the night by its steps, what it needs, and where each rate comes from."""
    steps = [[line.name, *_measures(line, plan)] for line in plan.stages]
    title = "The night (* limits it; in brackets: beside what takes longer)"
    console.table(title, ["step", "amount", "by", "each", "takes"], steps)
    console.table("What it needs", ["", ""], [list(row) for row in _facts(work, plan, load, needed, settings)])
    rates = [[line.name, line.rate.source] for line in plan.stages if line.rate]
    console.table("Where the rates come from", ["rate of", "source"], rates)


def _measures(line: StageTime, plan: NightPlan) -> list[str]:
    if line.rate is None:
        return ["", "", "not known" if line.seconds is None else "", _takes(line, plan)]
    amount = f"{short(line.amount)} {line.rate.unit.split('/')[0]}"
    each = f"{digits(line.rate.value)} {line.rate.unit}" + (" (ASSUMED)" if line.rate.assumed else "")
    return [amount, machines(line.pool, plan.pools.of(line.pool)), each, _takes(line, plan)]


def _takes(line: StageTime, plan: NightPlan) -> str:
    if line.seconds is None:
        return "?"
    text = span(line.seconds)
    if line is plan.limiting:
        return f"{text} *"
    return text if line.seconds == plan.by_step()[line.step] else f"({text})"


def _facts(work: Work, plan: NightPlan, load: LoadPlan, needed: Needs, settings: Settings) -> list[tuple[str, str]]:
    facts = [
        ("images to embed", f"{work.embedded:,}: {work.new:,} new, {work.changed:,} changed or unreadable before"),
        ("other images", f"{work.reused:,} reused, {work.refused:,} refused"),
        ("faces to load", f"{work.faces:,}, {work.faces_reused:,} of them embedded before"),
        ("import", load.lines()[0]),
        ("index", " ".join([load.index.index_type, *(f"{k}={v}" for k, v in load.index.params.items())])),
        ("vectors", f"{load.vector_type} numbers (milvus.vector_type)"),
        ("storage at the peak", _storage(needed)),
        ("executors' disks", f"{size(needed.shuffle_bytes)} while staging, in all"),
        ("memory of Milvus", f"{size(needed.memory_bytes)}, live and new collection"),
    ]
    if plan.pools.gpus:
        facts.append(
            ("GPU-hours", f"{needed.gpu_hours:,.1f} reserved, {needed.gpu_hours_embedding:,.1f} of them for embedding")
        )
    facts.append(("core-hours", f"{needed.core_hours:,.1f}"))
    if needed.node_hours:
        facts.append(("data node-hours", f"{needed.node_hours:,.1f}"))
    return [*facts, ("cost", _cost(needed, settings.planning.currency))]


def _storage(needed: Needs) -> str:
    return (
        f"{size(needed.peak_bytes)}: {needed.collections} collections of {size(needed.collection_bytes)} (the new one, "
        f"the live one{', those kept for rollback' if needed.collections > 2 else ''}), staged files "
        f"{size(needed.staging_bytes)}, table of embeddings {size(needed.embeddings_bytes)}"
    )


def _cost(needed: Needs, currency: str) -> str:
    parts = []
    if needed.night_cost is not None:
        without = ", ".join(f"planning.{name}" for name in needed.unpriced)
        parts.append(f"{needed.night_cost:,.2f} {currency} a night" + (f" (without {without})" if without else ""))
    if needed.month_cost is not None:
        parts.append(f"{needed.month_cost:,.2f} {currency} a month to keep embeddings and collections")
    return "; ".join(parts) or "no prices set (planning.gpu_hour, planning.core_hour, planning.node_hour, …)"


def verdict(plan: NightPlan, hours: float | None, would: Fit | None) -> str:
    """The answer: how long, what limits it, whether it fits, and what would make it fit."""
    least = "at least " if plan.unknown and plan.seconds >= 1 else ""
    limit = plan.limiting
    limits = "limits" if limit.pool in (DRIVER, CLOCK) else "limit"
    by = f"{LABELS[limit.pool]} {limits} it ({limit.name}, {span(limit.seconds or 0)})"
    length = f"{least}{span(plan.seconds)}"
    if hours is None:
        text = f"needs {length}; {by}"
    elif plan.seconds <= 3600 * hours:
        text = f"fits {hours:g} h: needs {length}; {by}"
    else:
        text = f"does not fit {hours:g} h: needs {length}; {by}; {_remedy(would)}"
    return text + _reservations(plan)


def _remedy(would: Fit | None) -> str:
    if would and would.alone:
        return "fits with " + ", or ".join(machines(pool, number) for pool, number in would.alone.items())
    if would and would.together:
        pools = [machines(pool, would.together.of(pool)) for pool in GROWABLE if would.together.of(pool)]
        return f"no single kind of machine is enough: fits with {', '.join(pools[:-1])} and {pools[-1]}"
    return "no number of machines is enough"


def _reservations(plan: NightPlan) -> str:
    text = f"; not counted, for want of a rate: {', '.join(plan.unknown)}" if plan.unknown else ""
    networks = next((line for line in plan.stages if line.pool == GPUS), None)
    if networks and _other_card(networks.rate):
        text += "; the GPU's rate is the benchmark's card's, none of yours has been measured"
    return text


def notes(plan: NightPlan, settings: Settings, hours: float | None) -> list[str]:
    """What else a person should know before the night."""
    found = []
    networks = next((line for line in plan.stages if line.pool == GPUS), None)
    if networks and _other_card(networks.rate):
        found.append(
            "No run here has measured a GPU: the rate is that of the benchmark's card. `calibrate` measures yours in a "
            "minute, and a night of a few hundred thousand images better (the next plan takes its rate from there); or "
            "set planning.images_per_s_per_gpu."
        )
        needed = rate_needed(plan, 3600 * hours) if hours else None
        if needed:
            found.append(f"{plan.pools.gpus:,} GPUs are enough for {hours:g} h if each embeds {needed:,.0f} images/s.")
    if plan.pools.gpus:
        found += _idle_cores(plan, settings)
    return found


def _other_card(rate: Rate | None) -> bool:
    return rate is not None and rate.other_card


def _idle_cores(plan: NightPlan, settings: Settings) -> list[str]:
    """A task has its decoding threads and one that leads; with few tasks, a GPU's cores are not all of use."""
    executor = settings.executor
    tasks = plan.pools.gpus / (executor.gpus_per_task or 1)
    busy = tasks * (executor.decode_threads + 1)
    if busy >= plan.pools.cores:
        return []
    return [
        f"{tasks:,.0f} tasks of executor.decode_threads {executor.decode_threads} use {busy:,.0f} of "
        f"{plan.pools.cores:,} cores: more threads, or a smaller executor.gpus_per_task, would use the others."
    ]


def machines(pool: str, number: int) -> str:
    """A number of machines: 1 GPU, 64 GPUs; what there is one of has no number."""
    if pool not in GROWABLE:
        return LABELS[pool]
    return f"{number:,} {LABELS[pool].removesuffix('s') if number == 1 else LABELS[pool]}"
