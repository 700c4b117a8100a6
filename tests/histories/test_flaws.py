"""What a player finds in a world that keeps a promise wrongly: each flaw on the shortest history that shows it.

The world here is an oracle with that flaw, which is told all that the right one is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.histories.believing import Believing, Told
from tests.histories.machine import KEPT, Seen
from tests.histories.oracle import Oracle, Record, Says

pytestmark = pytest.mark.unit

TOLD = (
    "begin_ingest", "assess", "revoke", "import_record", "import_unreadable", "ingest_picture", "ask", "lose",
    "remember", "sweep", "carry_out", "expire", "perhaps",
)  # fmt: skip


class Telling(Oracle):
    """An oracle that tells another one what it is told itself."""

    def __init__(self, other: Oracle) -> None:
        super().__init__()
        self.other, self.telling = other, False


def _telling(name: str) -> Callable[..., None]:
    def both(oracle: Telling, *args: Any, **kwargs: Any) -> None:
        outermost, oracle.telling = not oracle.telling, True
        if outermost:
            other = oracle.other
            other.now, other.real, other.shows, other.lawless = oracle.now, oracle.real, oracle.shows, oracle.lawless
            getattr(other, name)(*args, **kwargs)
        getattr(Oracle, name)(oracle, *args, **kwargs)
        oracle.telling = not outermost

    return both


for _name in TOLD:
    setattr(Telling, _name, _telling(_name))


class Deceived(Told):
    """A player that sees what the flawed oracle has done."""

    def __init__(self, world: Any, cells: Iterable[tuple[str, str, str, tuple[str, ...]]], flawed: Oracle) -> None:
        super().__init__(world, cells)
        self.oracle = world.oracle = Telling(flawed)

    def observe(self) -> Seen:
        assert isinstance(self.oracle, Telling)
        return self._seen_by(self.oracle.other, set())


class EveryLink(Oracle):
    """It asks of every record that ever named a picture whether it has ended."""

    def due(self, picture: str) -> Says:
        records = [r for r in self.records.values() if picture in r.links]
        return Says.all_of(super().due(picture), *(self.ended(record) for record in records))


class FormFirst(Oracle):
    """What is refused for its form or law has not ended."""

    def ended(self, record: Record) -> Says:
        refused = record.newest.lacks or record.newest.law in self.lawless
        return Says.NO if refused else super().ended(record)


class PresentBytes(Oracle):
    """It bars what a picture of the leaver holds now, whoever it shows."""

    def destroy(self, picture: str, *, erased: bool, barred: bool = False) -> None:
        super().destroy(picture, erased=erased, barred=erased or barred)


class RowsAlone(Oracle):
    """Where the row of a picture is missing it bars none of its bytes."""

    def _contents_of(self, picture: str, record_ids: Iterable[str]) -> dict[str, set[str]]:
        return super()._contents_of(picture, record_ids) if picture in self.pictures else {}


class Sighted(Oracle):
    """It goes by what there is of links and records, though there are none."""

    blind = False


class ByFaces(Sighted):
    """Of lost links it knows those of the main person's faces, and takes their pictures whole."""

    def lose(self, table: str) -> None:
        assert table == "basis_links"
        for record_id, record in self.records.items():
            if not record_id.endswith("-r"):
                record.links.clear()


class GoesOn(Oracle):
    """It ends what a pass was cut off from while nobody can tell what is held."""

    def carry_out(self, *, sweep: bool = False) -> None:
        for picture in self.begun & set(self.pictures) if self.blind else ():
            self.destroy(picture, erased=False)
        super().carry_out(sweep=sweep)


class TooSoon(Oracle):
    """What is due leaves its tombstones before it is known whether it goes."""

    def perhaps(self, *effects: str, destroyed: bool = True) -> None:
        assert not destroyed
        then = copy.deepcopy(self)
        for effect in effects:
            getattr(then, effect)()
        self.left |= then.left


@pytest.mark.parametrize(
    ("flawed", "schedule", "cell", "found"),
    [
        (EveryLink, ("reindex", "embed", "sync"), ("alone", "main", ("change other", "withdraw other")), "is there"),
        (FormFirst, ("reindex", "sync"), ("alone", "main", ("withdraw incompletely",)), "is there"),
        (FormFirst, ("reindex", "outlaw", "sync"), ("abroad", "main", ("", "withdraw")), "is there"),
        (PresentBytes, ("reindex", "embed", "erase", "sync"), ("alone", "main", ("mistake", "forget")), "is gone"),
        (RowsAlone, ("reindex", "embed", "lose images>erase", "sync"),
         ("alone", "main", ("change other", "forget other")), "is there"),
        (Sighted, ("reindex", "embed", "revoke", "lose basis_links>sync"), ("alone", "part", ("hold",)), "is gone"),
        (Sighted, ("reindex", "embed", "lose basis_links>erase"), ("alone", "main", ("hold", "forget picture")),
         "is gone"),
        (ByFaces, ("reindex", "lose basis_links>erase"), ("boxed", "main", ("forget",)), "is gone"),
        (GoesOn, ("reindex", "expire!purge", "lose basis_links>sync"), ("alone", "main", ("withdraw", "hold")),
         "is gone"),
        (TooSoon, ("reindex", "elsewhere sync", "reindex"), ("open", "main", ("withdraw both", "renew both")),
         "is missing"),
    ],
)  # fmt: skip
def test_a_flaw_is_found(
    tmp_path: Path, flawed: type[Oracle], schedule: tuple[str, ...], cell: tuple[str, str, tuple[str, ...]], found: str
) -> None:
    cells = ((KEPT, "boxed", "main", ()), ("c1", *cell))
    for other in (Oracle, flawed):
        player = Deceived(Believing(tmp_path), cells, other())
        player.begin()
        for word in schedule:
            player.step(word)
        findings = [finding for finding in player.findings if found in finding.what]
        assert bool(player.findings) is bool(findings) is (other is flawed), [str(f) for f in player.findings]
        assert {finding.cell for finding in findings} <= {"c1"}
