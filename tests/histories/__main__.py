"""Histories by the hour, and one again.

    python -m tests.histories --minutes 120 [--seed N] [--cells N] [--whole]
    python -m tests.histories replay '{"schedule": …}'      (as a finding prints it; or a file)

Findings and their seeds are kept under build/histories/. `make test-histories HOURS=2` is the first.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tests.histories.cells import RULES
from tests.histories.machine import Finding, History, Player, play
from tests.histories.schedules import history_of, schedules
from tests.histories.stateful import play_random
from tests.histories.world import World

KEPT = Path("build/histories")


def session() -> Any:
    """Spark for tiny tables: two cores, no code generation, one partition, nothing that outlives the process."""
    from pyspark.sql import SparkSession

    from jobs.session import open_session, read_properties

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    home = tempfile.mkdtemp(prefix="histories-spark-")
    builder = SparkSession.builder.master("local[2]")
    for key, value in {**read_properties(), **SESSION}.items():
        builder = builder.config(key, value)
    builder.config("spark.sql.warehouse.dir", home).config(
        # Hours of small queries are worth the second compiler.
        "spark.driver.extraJavaOptions", f"-Dderby.system.home={home} -XX:ReservedCodeCacheSize=512m -XX:+UseSerialGC"
    ).getOrCreate()  # fmt: skip
    spark = open_session("histories")
    spark.sparkContext.setLogLevel("ERROR")
    return spark


SESSION = {
    "spark.ui.enabled": "false",
    "spark.driver.memory": "3g",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
}


class Tally:
    """What was played, and what it covered."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.histories = self.rules = self.comparisons = 0
        self.around: set[tuple[str, ...]] = set()
        self.pairs: set[tuple[str, ...]] = set()
        self.triples: set[tuple[str, ...]] = set()
        self.job_pairs: set[tuple[str, ...]] = set()
        self.findings: dict[Any, Finding] = {}
        self.seconds: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()

    def add(self, player: Player) -> list[Finding]:
        """Count a history; returns the findings that are new."""
        self.histories += 1
        self.rules += player.rules_done
        self.comparisons += player.compared
        self.seconds += player.world.seconds
        self.runs += player.world.runs
        self.job_pairs |= set(itertools.pairwise(player.schedule))
        for cell in player.cells.values():
            line = interleaved(cell.rules, player.schedule)
            rules = [word for word in line if word.islower()]
            around = zip(line, line[1:], line[2:], strict=False)
            self.around |= {(a, job, b) for a, job, b in around if a.islower() and job.isupper() and b.islower()}
            self.pairs |= set(itertools.pairwise(rules))
            self.triples |= set(zip(rules, rules[1:], rules[2:], strict=False))
        fresh = [f for f in player.findings if (f.guarantee, f.what, f.where) not in self.findings]
        self.findings |= {(f.guarantee, f.what, f.where): f for f in fresh}
        return fresh

    def __str__(self) -> str:
        minutes = (time.monotonic() - self.begun) / 60
        each = ", ".join(f"{name} {self.seconds[name] / n:.1f} s" for name, n in sorted(self.runs.items()))
        return (
            f"{self.histories} histories in {minutes:.0f} minutes: {sum(self.runs.values())} jobs, {self.rules} rules, "
            f"{self.comparisons} comparisons; {len(self.job_pairs)} pairs of jobs, {len(self.pairs)} of the "
            f"{len(RULES) ** 2} pairs of rules, {len(self.around)} of them around a certain job, {len(self.triples)} "
            f"triples of rules; {len(self.findings)} findings\n({each})"
        )


def interleaved(rules: tuple[str, ...], schedule: list[str]) -> list[str]:
    """Rules in lower case, jobs in upper case, in the order in which they happen; pauses left out."""
    found = []
    for rule, job in itertools.zip_longest(("", *rules)[: len(schedule)], schedule, fillvalue=""):
        found += [rule] if rule else []
        found.append(job.upper())
    return found


@click.group(invoke_without_command=True)
@click.option("--minutes", default=120.0, help="For how long; a history that has begun is played to its end.")
@click.option("--seed", default=0, help="The first seed; each history takes the next.")
@click.option("--cells", default=300, help="Cells in each history.")
@click.option("--whole", is_flag=True, help="Without the shortcuts of the harness: see world.py.")
@click.pass_context
def main(context: click.Context, minutes: float, seed: int, cells: int, whole: bool) -> None:
    """Play histories until the time is over: systematic schedules first, then random ones."""
    if context.invoked_subcommand:
        return
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("histories").setLevel(logging.INFO)
    spark, tally = session(), Tally()
    systematic = schedules(seed)
    for number in itertools.count(seed):
        if time.monotonic() - tally.begun > 60 * minutes:
            break
        schedule = next(systematic, None)
        with worlds(spark, quick=not whole) as make_world:

            def played(player: Player, number: int = number) -> None:
                report(tally.add(player), number)

            if schedule is not None:
                played(play(make_world(), history_of(schedule, number, cells)))
            else:
                play_random(make_world, played, number=number, cells=cells)
        click.echo(str(tally), err=True)
    click.echo(str(tally))
    sys.exit(1 if tally.findings else 0)


@main.command()
@click.argument("text")
@click.option("--whole", is_flag=True)
def replay(text: str, whole: bool) -> None:
    """Play one history again and print what it finds."""
    history = History.from_json(Path(text).read_text(encoding="utf-8") if not text.startswith("{") else text)
    with worlds(session(), quick=not whole) as make_world:
        player = play(make_world(), history)
    for word in player.unmet:
        click.echo(f"{word}: the job ended before it came to that point; nothing has happened there", err=True)
    for finding in player.findings:
        click.echo(str(finding))
    sys.exit(1 if player.findings else 0)


@contextmanager
def worlds(spark: Any, *, quick: bool) -> Iterator[Callable[[], World]]:
    """Makes worlds, each in a folder of its own; they are gone afterwards."""
    made: list[World] = []
    folder = Path(tempfile.mkdtemp(prefix="histories-"))

    def make() -> World:
        made.append(World(spark, folder / str(len(made)), quick=quick))
        made[-1].install()
        return made[-1]

    try:
        yield make
    finally:
        for world in made:
            world.remove()
        shutil.rmtree(folder, ignore_errors=True)


def report(findings: list[Finding], seed: int) -> None:
    """Print findings, and keep what replays them."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for number, finding in enumerate(findings):
        kept = {"seed": seed, "finding": str(finding).splitlines()[:2], **json.loads(finding.history.to_json())}
        (KEPT / f"seed-{seed}-{number}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
