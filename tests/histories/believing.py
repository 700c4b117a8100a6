"""A world that believes its oracle, and a player that is told by it what to see: the machine by itself."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.histories.machine import Player, Seen
from tests.histories.oracle import Oracle, Says
from tests.histories.pictures import label_of, vector_of
from tests.histories.world import Answer


class Believing:
    """In place of a `World`: jobs end as they should, and do nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.offset = folder, timedelta(0)
        self.keys: dict[str, list[str]] = {"hmac": ["first"], "tombstones": []}
        self.seconds: Counter[str] = Counter()
        self.oracle = Oracle()
        self.ran: list[tuple[str, ...]] = []
        self.due: list[tuple[str, str]] = []

    @contextmanager
    def listening(self) -> Iterator[list[tuple[str, str]]]:
        yield self.due

    def run(
        self, name: str, *arguments: str, at: str | int | None = None, then: Callable[[], None] | None = None
    ) -> Answer:
        self.ran.append((name, *arguments))
        if then is not None:
            then()
        elif at is not None:
            return Answer(name, -9, {}, 0.0)
        return Answer(name, self._code(name, *arguments), {}, 0.0)

    def _code(self, name: str, *arguments: str) -> int:
        if "--lost" in arguments:
            return 2
        if any(argument.endswith("elsewhere.db") for argument in arguments):
            return 5
        if name == "ingest" and len(arguments) == 2 and arguments[1].endswith(".yaml"):
            state = yaml.safe_load(Path(arguments[1]).read_text(encoding="utf-8"))["state"]
            return int(state == "assessed" and self.oracle.batches["part"].in_force is not Says.YES)
        return 0

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def rotated(self, new: str) -> list[str]:
        return [new, *self.keys["hmac"]]

    def lease_runs_out(self) -> None:
        """There is none."""

    def know_law(self, jurisdiction: str, *, known: bool) -> None:
        """There are no settings."""

    def remove_table(self, name: str) -> None:
        """There is none."""

    def back_up(self, label: str) -> None:
        """There is nothing to be copied."""


class Told(Player):
    """A player that sees what its oracle says, and of what that is not sure of only the half."""

    world: Any

    def __init__(self, world: Any, cells: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> None:
        super().__init__(world, cells)
        world.oracle = self.oracle
        self.rng = random.Random(5)
        #: Of whom a face stood in the table, in which picture with which content.
        self.stood: set[tuple[str, str, str]] = set()

    def _ask(self, asked: list[tuple[str, str]], *, at: str | int | None = None) -> bool:
        return bool(asked) and at is not None

    def _live_on_record(self) -> str | None:
        return "live"

    def word_lose(self, what: str = "") -> None:
        if what:
            super().word_lose(what)

    def observe(self) -> Seen:
        oracle = self.oracle
        gone = {name for name in sorted(oracle.unsure_pictures | oracle.unsure_records) if self.rng.random() < 0.5}
        # What goes by an expiry goes with its tombstones: others of the very bytes are decided by them.
        settled = copy.deepcopy(oracle)
        for picture in sorted((gone & set(oracle.pictures)) - oracle.untaken - oracle.unclear):
            settled.destroy(picture, erased=False)
        return self._seen_by(settled, gone)

    def _seen_by(self, oracle: Oracle, gone: set[str]) -> Seen:
        contents = {p: stored.content for p, stored in oracle.pictures.items() if p not in gone}
        served = {p: oracle.served(p) for p in contents}
        shown = [(p, who) for p, said in served.items() for who, says in said.items() if says is Says.YES]
        live = {hash(key): label_of(vector_of(key[1], contents[key[0]])) for key in shown}
        # What is kept stays in the table, whoever may be served of it; while nobody can tell what is, what was.
        stays = set(self.kept_with) if self.oracle.blind else {p for p in contents if self.oracle.kept(p)}
        kept = {(p, who) for p, who, content in self.stood if p in stays and contents.get(p) == content}
        people = {hash(key): key for key in sorted({*shown, *kept})}
        self.stood = {(p, who, contents[p]) for p, who in people.values()}
        faces = {key: (p, label_of(vector_of(who, contents[p]))) for key, (p, who) in people.items()}
        records = {i: record.newest.person for i, record in oracle.records.items() if i not in gone}
        links = {(p, i) for i in records for p in oracle.records[i].links if p not in gone}
        under = {
            key: tuple(i for i, person in records.items() if (p, i) in links and person == who)
            for key, (p, who) in people.items()
        }
        return Seen(contents, faces, records, links, {"live": live}, "live", under)

    def _proofs(self, seen: Seen) -> None:
        """Nothing is proven by a world that does nothing."""
