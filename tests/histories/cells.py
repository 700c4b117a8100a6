"""Cells: a few people, pictures and records each, that have nothing to do with one another and share one warehouse.

A cell goes through its own sequence of *rules*, one before each global job: what its people and its operator do. Its
state is what the operator's own systems hold: the records as they are exported, and the pictures' bytes.

**A new rule** is a method `Cell.rule_NAME`; it says what is sent (`_send`, `_picture`, `_ask`), and is used by every
kind of history from then on. Names with a `_` are written with a space. **A new shape** is an entry of `SHAPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.histories.oracle import DAY, Event, Version
from tests.histories.pictures import BOXES, ERROR_PAGE, NOBODYS_BOX, Shown, picture


@dataclass(frozen=True)
class Line:
    """A line of a basis file: a version of a record; None: one that cannot be read."""

    record_id: str
    version: Version | None
    text_of: Version | None = None


@dataclass
class Sent:
    """What all cells send before one global job."""

    lines: list[Line] = field(default_factory=list)
    pictures: list[tuple[str, bytes, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    """What a cell begins with. ``records``: person, box number (None: no box), pictures, by the end of its name."""

    people: int
    pictures: dict[str, tuple[int, ...]]
    records: dict[str, tuple[int, int | None, str]]
    law: str = "EU"


#: The jurisdiction that a word takes out of the settings.
ABROAD = "CA"
#: The first record is person 0's: the one that rules are about; the first picture is the one that they are about.
SHAPES: dict[str, Shape] = {
    "alone": Shape(1, {"x": (0,)}, {"r": (0, None, "x")}),
    "boxed": Shape(2, {"x": (0, 1)}, {"r": (0, 0, "x"), "s": (1, 1, "x")}),
    "open": Shape(2, {"x": (0, 1)}, {"r": (0, None, "x"), "s": (1, None, "x")}),
    # Of two people the detector finds the first alone.
    "hidden": Shape(2, {"x": (0,)}, {"r": (0, None, "x"), "s": (1, None, "x")}),
    "twice": Shape(1, {"x": (0,)}, {"r": (0, None, "x"), "t": (0, None, "x")}),
    "pair": Shape(1, {"x": (0,), "y": (0,)}, {"r": (0, None, "xy")}),
    # Of one record's two pictures another is in the first.
    "spread": Shape(2, {"x": (0, 1), "y": (0,)}, {"r": (0, 0, "xy"), "s": (1, 1, "x")}),
    "abroad": Shape(2, {"x": (0, 1), "y": (0,)}, {"r": (0, 0, "xy"), "s": (1, 1, "x")}, ABROAD),
    "mixed": Shape(2, {"x": (0, 1), "y": (0,)}, {"r": (0, 0, "x"), "q": (0, None, "y"), "s": (1, 1, "x")}),
}


class Cell:
    """One cell: its name, shape and batch, and what its operator's systems hold."""

    def __init__(self, name: str, shape: str, batch: str, rules: tuple[str, ...], began: float) -> None:
        self.name, self.shape, self.batch, self.rules = name, shape, batch, rules
        self._clock: Callable[[], float] = lambda: began
        made = SHAPES[shape]
        self.people = [f"Person {number} of {name}" for number in range(made.people)]
        self.shown: dict[str, Shown] = {
            self.id(p): tuple((self.people[who], BOXES[place]) for place, who in enumerate(whose))
            for p, whose in made.pictures.items()
        }
        self.versions = dict.fromkeys(self.shown, 1)
        self.exports = {
            self.id(end): Version(
                person=self.people[who],
                batch=batch,
                pictures=tuple(self.id(p) for p in pictures),
                events=(Event(began, True),),
                box=None if box is None else BOXES[box],
                law=made.law,
            )
            for end, (who, box, pictures) in made.records.items()
        }
        self.first, self._first_shown = dict(self.exports), dict(self.shown)
        self.main, self.subject = next(iter(self.exports)), next(iter(self.shown))
        self._copy_of: dict[str, str] = {}
        self._more = 0

    def id(self, end: str) -> str:
        """A record or picture of this cell."""
        return f"{self.name}-{end}"

    def bytes_of(self, picture_id: str) -> bytes:
        """The picture's bytes, as its source has them now."""
        name = self._copy_of.get(picture_id, picture_id)
        return picture(self.shown[picture_id], f"{name} version {self.versions[picture_id]}")

    def begin(self) -> Sent:
        """Everything, for the first time."""
        sent = Sent([Line(i, version) for i, version in self.exports.items()])
        sent.pictures = [(p, self.bytes_of(p), self.batch) for p in self.shown]
        return sent

    def all_records(self) -> Sent:
        """Every record once more, as an import anew has it."""
        return Sent([Line(i, version) for i, version in self.exports.items()])

    def all_pictures(self) -> Sent:
        """Every picture as its source has it now."""
        return Sent(pictures=[(p, self.bytes_of(p), self.batch) for p in self.shown])

    def do(self, rule: str, clock: Callable[[], float], gate_now: float) -> Sent:
        """What a rule sends; ``clock`` gives the instants of events."""
        self._clock, self._gate_now = clock, gate_now
        sent = Sent()
        if rule:
            getattr(self, f"rule_{rule.replace(' ', '_')}")(sent)
        return sent

    def _send(self, sent: Sent, record_id: str | None = None, **changes: object) -> None:
        record_id = record_id or self.main
        self.exports[record_id] = replace(self.exports[record_id], **changes)  # type: ignore[arg-type]
        sent.lines.append(Line(record_id, self.exports[record_id]))

    def _picture(self, sent: Sent, picture_id: str | None = None) -> None:
        picture_id = picture_id or self.subject
        sent.pictures.append((picture_id, self.bytes_of(picture_id), self.batch))

    def _another(self, sent: Sent, version: Version, *, whole: bool = False) -> None:
        """Another picture of the main one's people, with other bytes, and a record of its own for it."""
        self._more += 1
        picture_id, record_id = self.id(f"n{self._more}"), self.id(f"m{self._more}")
        self.shown[picture_id] = self.shown[self.subject] if whole else ((self.people[0], BOXES[0]),)
        self.versions[picture_id] = 1
        self.exports[record_id] = replace(version, pictures=(picture_id,))
        sent.lines.append(Line(record_id, self.exports[record_id]))
        self._picture(sent, picture_id)

    # --- records ---

    def rule_withdraw(self, sent: Sent) -> None:
        self._send(sent, events=(*self.exports[self.main].events, Event(self._clock(), False)))

    def rule_renew(self, sent: Sent) -> None:
        self._send(sent, events=(*self.exports[self.main].events, Event(self._clock(), True)))

    def rule_renew_all(self, sent: Sent) -> None:
        """Person 0 consents anew to everything, also to what another record is about."""
        for record_id, version in list(self.exports.items()):
            if version.person == self.people[0]:
                self._send(sent, record_id, events=(*version.events, Event(self._clock(), True)))

    def rule_ahead(self, sent: Sent) -> None:
        """A consent that is dated ahead: the clock comes to it when it has been set forward twice."""
        self._send(sent, events=(*self.exports[self.main].events, Event(self._clock() + 1.5 * DAY, True)))

    def rule_behind(self, sent: Sent) -> None:
        """A consent that was written by a clock of a day ago: before whatever happened since all began."""
        self._send(sent, events=(*self.exports[self.main].events, Event(self._clock() - DAY, True)))

    def rule_export_withdrawal(self, sent: Sent) -> None:
        """As systems export somebody who has left: a record of nothing but a withdrawal."""
        self._send(sent, events=(Event(self._clock(), False),))

    def rule_withdraw_other(self, sent: Sent) -> None:
        """Somebody else whom the picture is recorded for: of several the last to have come."""
        record_id = self._other()
        self._send(sent, record_id, events=(*self.exports[record_id].events, Event(self._clock(), False)))

    def rule_withdraw_both(self, sent: Sent) -> None:
        self._say_all(sent, given=False)

    def rule_renew_both(self, sent: Sent) -> None:
        self._say_all(sent, given=True)

    def _say_all(self, sent: Sent, *, given: bool) -> None:
        """Everybody says so, of everything."""
        for record_id, version in list(self.exports.items()):
            self._send(sent, record_id, events=(*version.events, Event(self._clock(), given)))

    def _other(self) -> str:
        """The newest record of somebody else in the picture; else the main one."""
        person = self.exports[self.main].person
        others = [i for i, v in self.exports.items() if v.person != person and self.subject in v.pictures]
        return others[-1] if others else self.main

    def rule_lack(self, sent: Sent) -> None:
        """Its newest version has lost a field that every record needs."""
        self._send(sent, lacks=True)

    def rule_complete(self, sent: Sent) -> None:
        self._send(sent, lacks=False)

    def rule_withdraw_incompletely(self, sent: Sent) -> None:
        """A withdrawal that is exported without a field that every record needs."""
        self._send(sent, lacks=True, events=(*self.exports[self.main].events, Event(self._clock(), False)))

    def rule_move_abroad(self, sent: Sent) -> None:
        """From now on under a law that the settings know only at times: see ``outlaw``."""
        self._send(sent, law=ABROAD)

    def rule_deny(self, sent: Sent) -> None:
        self._send(sent, granted=False)

    def rule_grant(self, sent: Sent) -> None:
        self._send(sent, granted=True)

    def rule_hold(self, sent: Sent) -> None:
        self._send(sent, hold=True)

    def rule_release(self, sent: Sent) -> None:
        self._send(sent, hold=False)

    def rule_hold_other(self, sent: Sent) -> None:
        """What keeps the picture is about the other person in it."""
        self._send(sent, self._neighbour() or self.main, hold=True)

    def rule_release_other(self, sent: Sent) -> None:
        self._send(sent, self._neighbour() or self.main, hold=False)

    def rule_again(self, sent: Sent) -> None:
        self._send(sent)

    def rule_first(self, sent: Sent) -> None:
        """The very first content again, from a backup of the operator's."""
        self.exports[self.main] = self.first[self.main]
        self._send(sent)

    def rule_garble(self, sent: Sent) -> None:
        """A line that cannot be read, the same each time."""
        sent.lines.append(Line(self.main, None, self.first[self.main]))

    def rule_shorten(self, sent: Sent) -> None:
        """A retention that is over already."""
        self._send(sent, expires_at=self.exports[self.main].events[0].at + 1)

    def rule_shorten_validity(self, sent: Sent) -> None:
        """The very same consents, corrected: the first of them is over by now."""
        self._send(sent, events=self._valid_for(29))

    def rule_limit_validity(self, sent: Sent) -> None:
        """The very same consents, corrected: the first of them is over when the clock is next set forward."""
        self._send(sent, events=self._valid_for(31))

    def _valid_for(self, days: int) -> tuple[Event, ...]:
        events = self.exports[self.main].events
        return tuple(replace(event, days=days) if event.given else event for event in events)

    def rule_limit(self, sent: Sent) -> None:
        """A retention that will be over when the clock is next set forward."""
        self._send(sent, expires_at=self._gate_now + DAY / 2)

    def rule_prolong(self, sent: Sent) -> None:
        self._send(sent, expires_at=None)

    # --- boxes ---

    def rule_swap(self, sent: Sent) -> None:
        """The boxes of two people were the wrong way round; where there were none, they are now, and wrong."""
        other = self._neighbour()
        mine, theirs = self.exports[self.main].box or BOXES[0], (other and self.exports[other].box) or BOXES[1]
        self._send(sent, box=theirs if theirs != mine else BOXES[0])
        if other:
            self._send(sent, other, box=mine)

    def rule_move(self, sent: Sent) -> None:
        """Where the box was is nobody."""
        self._send(sent, box=NOBODYS_BOX)

    def rule_same_box(self, sent: Sent) -> None:
        """The box lies where the other person's is, too."""
        other = self._neighbour()
        self._send(sent, box=(other and self.exports[other].box) or BOXES[1])

    def _neighbour(self) -> str | None:
        """The record of another person in the same picture."""
        person = self.exports[self.main].person
        others = (i for i, v in self.exports.items() if v.person != person and self.subject in v.pictures)
        return next(others, None)

    # --- pictures ---

    def rule_pictures(self, sent: Sent) -> None:
        """All pictures as they are, and no record."""
        for picture_id in self.shown:
            self._picture(sent, picture_id)

    def rule_change(self, sent: Sent) -> None:
        """Other pixels under the same name; no record comes with them."""
        self.versions[self.subject] += 1
        self._picture(sent)

    def rule_change_and_again(self, sent: Sent) -> None:
        self.rule_change(sent)
        self._send(sent)

    def rule_change_other(self, sent: Sent) -> None:
        """Somebody else's portrait under the same name, with that person's record: it is nobody else's now."""
        self.people.append(f"Person {len(self.people)} of {self.name}")
        self.shown[self.subject] = ((self.people[-1], BOXES[0]),)
        self.versions[self.subject] += 1
        self._picture(sent)
        record_id = self.id(f"o{len(self.people)}")
        self.exports[record_id] = Version(
            self.people[-1], self.batch, (self.subject,), (Event(self._clock(), True),), box=BOXES[0]
        )
        self._send(sent, record_id)

    def rule_mistake(self, sent: Sent) -> None:
        """Somebody else's portrait is written over it, and is recorded where that person has brought it."""
        self.people.append(f"Person {len(self.people)} of {self.name}")
        self.shown[self.subject] = ((self.people[-1], BOXES[0]),)
        self.versions[self.subject] += 1
        self._picture(sent)
        self._more += 1
        own, record_id = self.id(f"n{self._more}"), self.id(f"m{self._more}")
        self.shown[own], self.versions[own] = self.shown[self.subject], self.versions[self.subject]
        self._copy_of[own] = self.subject
        self._picture(sent, own)
        self.exports[record_id] = Version(self.people[-1], self.batch, (own,), (Event(self._clock(), True),))
        self._send(sent, record_id)

    def rule_error_page(self, sent: Sent) -> None:
        """For one night its source has no picture in its place."""
        sent.pictures.append((self.subject, ERROR_PAGE, self.batch))

    def rule_restore(self, sent: Sent) -> None:
        """The picture's first bytes again."""
        self.versions[self.subject], self.shown[self.subject] = 1, self._first_shown[self.subject]
        self._picture(sent)

    def rule_resend(self, sent: Sent) -> None:
        """All pictures and records as they are: a nightly export."""
        sent.lines = [Line(i, version) for i, version in self.exports.items()]
        for picture_id in self.shown:
            self._picture(sent, picture_id)

    def rule_copy(self, sent: Sent) -> None:
        """The same bytes under another id, under the same record."""
        self._copy(sent, self.main)

    def rule_copy_of_other(self, sent: Sent) -> None:
        """The same bytes under another id, which the other person in them has brought."""
        self._copy(sent, self._neighbour() or self.main)

    def _copy(self, sent: Sent, record_id: str) -> None:
        self._more += 1
        copied = self.id(f"n{self._more}")
        self.shown[copied], self.versions[copied] = self.shown[self.subject], self.versions[self.subject]
        self._copy_of[copied] = self.subject
        self._picture(sent, copied)
        self._send(sent, record_id, pictures=(*self.exports[record_id].pictures, copied))

    def rule_other_encoding(self, sent: Sent) -> None:
        """A picture encoded anew, under the very first consent."""
        self._another(sent, self.first[self.main])

    def rule_come_back(self, sent: Sent) -> None:
        """A new consent, with a new picture."""
        now = Event(self._clock(), True)
        self._another(sent, replace(self.first[self.main], events=(now,)))

    def rule_come_back_behind(self, sent: Sent) -> None:
        """A new consent, with a new picture, by a clock of a day ago."""
        self._another(sent, replace(self.first[self.main], events=(Event(self._clock() - DAY, True),)))

    def rule_foreign(self, sent: Sent) -> None:
        """Another batch has a picture of that id, with other bytes."""
        other = picture(((f"Nobody of {self.name}", BOXES[0]),), f"{self.subject} of another")
        sent.pictures.append((self.subject, other, "other"))

    # --- erasure ---

    def rule_forget(self, sent: Sent) -> None:
        sent.asked.append(("person", self.people[0]))

    def rule_forget_other(self, sent: Sent) -> None:
        sent.asked.append(("person", self.people[-1]))

    def rule_forget_both(self, sent: Sent) -> None:
        sent.asked += [("person", person) for person in self.people]

    def rule_forget_picture(self, sent: Sent) -> None:
        sent.asked.append(("picture", self.subject))


RULES: tuple[str, ...] = tuple(
    name.removeprefix("rule_").replace("_", " ") for name in vars(Cell) if name.startswith("rule_")
)


def told(cell: Cell, jobs: list[str]) -> Iterator[str]:
    """A cell's own history, rule by rule with the jobs between."""
    yield f"{cell.shape}: ingested"
    for rule, job in zip(("", *cell.rules), jobs, strict=False):
        if rule:
            yield rule
        yield job.upper()


#: By shape, what takes turns: something to embed, and somebody to be erased; something to embed, and somebody who has
#: ended; other bytes, and a line that cannot be read.
_TURNS = (
    ("alone", ("come back", "forget")),
    ("alone", ("come back", "withdraw both")),
    ("boxed", ("change and again", "garble")),
)


def busy(steps: int) -> tuple[tuple[str, str, str, tuple[str, ...]], ...]:
    """Cells by which each job of so many finds something of every kind to do."""
    return tuple(
        (f"busy{number}{'ab'[turn]}", shape, "main", tuple(turns[(step + turn) % 2] for step in range(steps - 1)))
        for number, (shape, turns) in enumerate(_TURNS)
        for turn in range(2)
    )
