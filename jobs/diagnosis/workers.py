"""Spark and its workers: versions, packages, GPUs, clocks. Executors are asked by small tasks, and not for ever."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from os import getppid
from socket import gethostname
from typing import TYPE_CHECKING, Any, Final

from jobs.diagnosis.found import Found, failure, not_asked, ok, warning
from jobs.diagnosis.worker import PACKAGES, Worker, version_of
from jobs.embedding.chunks import gpu_profile
from jobs.errors import DependencyUnavailable, SettingsError
from jobs.runs.machines import embedding_executors, registered_executors

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from jobs.diagnosis.subject import Subject
    from jobs.settings import Settings

#: What this project's tests have run with. A test holds it to requirements.lock.txt and to the page.
RUN_WITH: Final = {"Java": "17", "Spark": "4.2.0", "Delta": "4.4.0"}
_FACTS: Final = "executor string, facts string"
# So that no executor takes all tasks while another is looking on.
_LINGER_S: Final = 0.5
# Leases and the ends of permissions are told by several machines' clocks, and are matters of minutes.
SKEW_S: Final = 2.0
# The lease of a run is renewed after a third of its time to live: a tenth is the most that clocks may differ by.
_LEASE_PART: Final = 10


def versions(subject: Subject) -> Iterator[Found]:
    """Open the session; which Java, Spark and Delta it has."""
    jvm: Any = subject.spark.sparkContext._jvm
    has = {
        "Java": str(jvm.java.lang.System.getProperty("java.version")),
        "Spark": subject.spark.version,
        "Delta": str(getattr(jvm.io.delta, "package").VERSION()),  # noqa: B009 - a word of Scala's, not of Python's
    }
    for name, version in has.items():
        tried = RUN_WITH[name]
        if version == tried or version.startswith(f"{tried}."):
            yield ok(f"{name} {version}")
        else:
            yield warning(
                f"{name} {version}; this project has run with {tried} only",
                f"use {name} {tried}, or try a small night first, with another warehouse and alias.",
            )
    client = version_of("pyspark")
    if client != has["Spark"]:
        yield failure(
            f"the driver's pyspark is {client}, and its Spark {has['Spark']}",
            f"install pyspark {has['Spark']}, or start with the spark-submit of Spark {client}.",
        )


def executors(subject: Subject) -> Iterator[Found]:
    """That executors do a task; what they say of themselves is kept."""
    subject.workers = asked(subject, facts_of_a_worker(_LINGER_S), tasks_for_all(subject.spark))
    there = registered_executors(subject.spark.sparkContext)
    seen, plural = len(subject.workers), "" if len(subject.workers) == 1 else "s"
    if seen >= there:
        yield ok(f"{seen} executor{plural} answered")
        return
    yield warning(
        f"{seen} of {there} executors answered; of the others nothing is known",
        "run it again while nobody else uses the cluster.",
    )


def python_and_packages(subject: Subject) -> Iterator[Found]:
    """The workers' Python and packages, beside the driver's."""
    driver = Worker.here()
    others = {worker.python for worker in subject.workers.values()} - {driver.python}
    if others:
        yield failure(
            f"Python {driver.python} on the driver, {', '.join(sorted(others))} on executors",
            "set spark.pyspark.python to a Python of the driver's version on every worker.",
        )
    else:
        yield ok(f"Python {driver.python} on driver and executors")
    yield from differences(driver, subject.workers)


def differences(driver: Worker, executors: Mapping[str, Worker]) -> Iterator[Found]:
    """Packages that an executor lacks, or has in another version than the driver."""
    step = "install setup.py's dependencies with requirements.lock.txt as constraints on driver and workers alike."
    wrong = False
    for name in PACKAGES:
        here = driver.packages.get(name)
        found = {worker.packages.get(name) for worker in executors.values()}
        for other in sorted(found - {here}, key=str):
            wrong = True
            has = "is missing" if other is None else f"is {other}"
            place = next(place for place, worker in executors.items() if worker.packages.get(name) == other)
            yield failure(f"{name} is {here} on the driver and {has} on executor {place}", step)
        if here is None and not found - {here}:
            wrong = True
            yield failure(f"{name} is missing on driver and executors", step)
    if not wrong:
        yield ok(f"{len(PACKAGES)} packages are of the same version on driver and executors")


def gpu(subject: Subject) -> Iterator[Found]:
    """Whether a task that is given a GPU can compute on it."""
    share = subject.settings.executor.gpus_per_task
    if not share:
        yield not_asked("executor.gpus_per_task is 0, so the networks run on processors")
        return
    context = subject.spark.sparkContext
    if context.getConf().get("spark.master", "").startswith("local"):
        raise SettingsError(
            "executor.gpus_per_task is set, and in local mode Spark gives no task a GPU.",
            hint="set executor.gpus_per_task to 0, or run on a cluster (docs/deployment.md).",
        )
    there = embedding_executors(subject.spark, subject.settings)
    profile = gpu_profile(subject.spark, subject.settings)
    seen = asked(subject, gpu_of_a_worker, there.count * there.tasks, profile=profile)
    for place, facts in sorted(seen.items()):
        if facts.fault:
            yield failure(f"a task on executor {place}: {facts.fault}", "docs/deployment.md, GPUs.")
        else:
            yield ok(f"executor {place} computes on {facts.device}; a GPU for {share:g} a task")


def clocks(subject: Subject) -> Iterator[Found]:
    """Executors' clocks beside the driver's."""
    before = time.time()
    facts = asked(subject, facts_of_a_worker(0.0), tasks_for_all(subject.spark))
    after = time.time()
    worst = max(facts.values(), key=lambda worker: skew(worker.clock, before, after))
    yield judged("an executor's clock", skew(worst.clock, before, after), after - before, subject.settings)


def skew(clock: float, before: float, after: float) -> float:
    """Seconds that a clock was away from a time that it must have been read in.

    >>> skew(10.0, 9.0, 11.0), skew(5.0, 9.0, 11.0)
    (0.0, 4.0)
    """
    return max(0.0, before - clock, clock - after)


def judged(whose: str, away: float, seen_to: float, settings: Settings) -> Found:
    """What a skew means; ``seen_to``: the seconds within which it could be told."""
    most = settings.lease.ttl_s / _LEASE_PART
    if away <= SKEW_S:
        return ok(f"{whose} agrees with the driver's (to {max(seen_to, 0.1):.1f} s)")
    what, step = f"{whose} is {away:.1f} s away from the driver's", "set the clocks by NTP (chrony)."
    return warning(what, step) if away <= most else failure(what, step)


#: Says what a check wants to know of a worker.
Ask = Callable[[], Worker]


def facts_of_a_worker(linger_s: float) -> Ask:
    """A worker's Python, packages and clock; it waits a while, so that others get their task."""

    def ask() -> Worker:
        time.sleep(linger_s)
        return Worker.here()

    return ask


def gpu_of_a_worker() -> Worker:
    """A sum on the GPU that Spark gave to this task."""
    from udfs.device import DeviceUnavailable, pick_device

    try:
        placement = pick_device(gpu_wanted=True)
    except DeviceUnavailable as error:
        return Worker(fault=str(error))
    if not placement.on_gpu:
        return Worker(fault="FACE_REINDEX_DEVICE keeps it on the processor")
    import torch

    try:
        torch.ones(2, device=placement.device).sum().item()
        return Worker(device=f"{torch.cuda.get_device_name(placement.device)} (torch {torch.__version__})")
    except RuntimeError as error:
        return Worker(fault=f"{placement.device} does not compute ({type(error).__name__})")


def tasks_for_all(spark: SparkSession) -> int:
    """So many tasks that each executor has one: as many as there are cores."""
    return max(2, int(spark.sparkContext.defaultParallelism))


def asked(subject: Subject, ask: Ask, tasks: int, profile: Any = None) -> dict[str, Worker]:
    """Ask the executors, by so many ``tasks`` at once; the first answer of each.

    Raises:
        DependencyUnavailable: they did not answer in time.
    """

    def run(batches: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for _ in batches:
            pass
        # On one machine every process that Spark forks for an executor has the same parent.
        place = f"{gethostname()}/{getppid()}"
        yield pa.RecordBatch.from_pydict({"executor": [place], "facts": [json.dumps(asdict(ask()))]})

    frame = subject.spark.range(0, tasks, 1, tasks).mapInArrow(run, _FACTS, profile=profile)
    with in_time(subject.spark, subject.seconds):
        rows = frame.collect()
    found: dict[str, Worker] = {}
    for row in rows:
        worker = Worker(**json.loads(row["facts"]))
        # Of two workers on one executor the one with a fault says more.
        if row["executor"] not in found or worker.fault:
            found[row["executor"]] = worker
    return found


@contextmanager
def in_time(spark: SparkSession, seconds: float) -> Iterator[None]:
    """End the Spark jobs of this thread when they take too long: without an executor they would wait for ever.

    Raises:
        DependencyUnavailable: they took too long.
    """
    context, tag = spark.sparkContext, f"doctor-{threading.get_ident()}"
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        # Again and again: a job that is not submitted yet cannot be cancelled.
        wait = seconds
        while not done.wait(wait):
            late.set()
            context.cancelJobsWithTag(tag)
            wait = 1.0

    context.addJobTag(tag)
    watcher = threading.Thread(target=watch, name="doctor's patience", daemon=True)
    watcher.start()
    try:
        yield
    except Exception:
        if not late.is_set():
            raise
        raise DependencyUnavailable(
            f"Executors have not done it within {seconds:g} s.",
            hint="see in the cluster manager whether executors with what it asks for (GPU, memory) are to be had; "
            "`--seconds` lets them take longer to start.",
        ) from None
    finally:
        done.set()
        watcher.join()
        context.removeJobTag(tag)
