"""What is promised, as plain Python: who may be served, what is stored, what has to be gone, and what can be proven.

Written from docs/governance.md and docs/basis-record.md, not from the code: no Spark, and nothing of jobs/ or udfs/.

The facts go in as they happen (a record is imported, a picture ingested, an erasure asked for, the clock goes on), and
jobs as what they promise once they have ended well: `carry_out` (erasures, and whatever a tombstone matches) and
`expire`. Answers are `YES`, `NO` or `MAYBE`. What `MAYBE` be served is neither looked for nor a finding: there the page
promises nothing, or two readings of it are fair. Where the promise has two sides, so has the answer: a face that is
`YES` must be live after a reindex, for survivors are not lost.

A job that was killed may have done any part of what it does: `perhaps` marks that, and `adopt` settles it by what is
found, so that everything is certain again afterwards.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

DAY = 86_400.0
Box = tuple[float, ...]
Shown = tuple[tuple[str, Box], ...]
#: The content of a picture whose bytes are none: it is there, nobody is in it, and it has no tombstone.
UNREAD = "unread"


class Says(Enum):
    """An answer."""

    NO, MAYBE, YES = 0, 1, 2

    @classmethod
    def all_of(cls, *answers: Says) -> Says:
        """What holds where all of them have to hold."""
        return min(answers, key=lambda answer: answer.value)

    @classmethod
    def any_of(cls, answers: Iterable[Says]) -> Says:
        """What holds where one of them is enough."""
        return max(answers, key=lambda answer: answer.value, default=cls.NO)


@dataclass(frozen=True)
class Event:
    """An event of a record: consent given or renewed, for so many ``days`` (None: for years), or ended."""

    at: float
    given: bool
    days: int | None = None

    @property
    def ends_at(self) -> float:
        """When what is given by it is over."""
        return math.inf if self.days is None else self.at + self.days * DAY


@dataclass(frozen=True)
class Version:
    """One version of a basis record, as a file held it."""

    person: str
    batch: str
    pictures: tuple[str, ...]
    events: tuple[Event, ...]
    granted: bool = True
    hold: bool = False
    expires_at: float | None = None
    box: Box | None = None
    #: A required field is missing: it permits nothing, and ends like any other.
    lacks: bool = False
    law: str = "EU"


@dataclass
class Link:
    """That a record was given for a picture: for the content that it had then, or first got, and in which ingest."""

    content: str | None
    ingest: int


@dataclass
class Record:
    """All that was read of a record, and in which ingests: first, last, and a line of it that could not be read."""

    versions: list[Version] = field(default_factory=list)
    came_in: int = -1
    read_in: int = -1
    unread_in: int = -2
    links: dict[str, list[Link]] = field(default_factory=dict)

    @property
    def newest(self) -> Version:
        return self.versions[-1]

    @property
    def unread(self) -> bool:
        """Whether a line of it could not be read since its last version: nobody knows what that said."""
        return self.unread_in >= self.read_in

    @property
    def kept(self) -> bool:
        """Whether a legal hold is on it, or may be."""
        return self.newest.hold or self.unread

    @property
    def last_event(self) -> Event | None:
        """The latest event of all versions, for a later one that leaves out a withdrawal does not undo it.

        Of several at one instant the one that ends it, else the one that is over first.
        """
        events = {event for version in self.versions for event in version.events}
        return max(events, key=lambda event: (event.at, not event.given, -event.ends_at), default=None)

    @property
    def given_at(self) -> float:
        """When somebody last gave a permission by it; 0 for never. A withdrawal gives none, whenever it came."""
        return max((e.at for version in self.versions for e in version.events if e.given), default=0.0)


@dataclass
class Stored:
    """A picture that is stored: its content now, since which ingest, of which batch, and whether others were before."""

    content: str
    batch: str
    ingest: int
    changed: bool = False


@dataclass
class Batch:
    """What is on record of a batch: its last state; when it was assessed by that, and by any other; and up to when an
    assessment counts no more: the last revocation, or what was dated beyond it by then."""

    state: str = "unassessed"
    dated: float = 0.0
    last_dated: float = 0.0
    void_until: float = -1.0

    def assess(self, dated: float) -> None:
        """An assessment of this date was given."""
        self.state, self.dated, self.last_dated = "assessed", dated, max(dated, self.last_dated)

    def revoke(self, at: float) -> None:
        """It was revoked, or is to be erased."""
        self.state, self.void_until = "revoked", max(at, self.last_dated)

    @property
    def in_force(self) -> Says:
        """Whether it may be used. Of an old assessment that is given after one that counts the page says nothing."""
        if self.state != "assessed" or self.last_dated <= self.void_until:
            return Says.NO
        return Says.YES if self.dated > self.void_until else Says.MAYBE

    @property
    def revoked(self) -> Says:
        """Whether what it has brought is due."""
        if self.state == "unassessed":
            return Says.NO
        return {Says.NO: Says.YES, Says.YES: Says.NO}.get(self.in_force, Says.MAYBE)


@dataclass
class Request:
    """An erasure that was asked for, and the pictures and records that it ever reached."""

    kind: str
    value: str
    at: float
    open: bool = True
    pictures: set[str] = field(default_factory=set)
    records: set[str] = field(default_factory=set)


class Oracle:
    """The model. ``now`` is the gate's time, ``real`` that of everything else; an ``ingest`` is one run of it, in which
    records come before pictures, and are given for these."""

    def __init__(self) -> None:
        self.now = 0.0
        self.real = 0.0
        self.ingest = 0
        self.records: dict[str, Record] = {}
        self.pictures: dict[str, Stored] = {}
        self.shows: dict[str, Shown] = {}
        self.batches: dict[str, Batch] = {}
        #: Links to records that are lost, and that may come in again.
        self.lost: dict[str, dict[str, list[Link]]] = {}
        #: Pictures whose links are lost, and whom they were linked to.
        self.unlinked: dict[str, set[str]] = {}
        #: Jurisdictions that the settings have no rule of.
        self.lawless: set[str] = set()
        self.requests: list[Request] = []
        self.erased_people: dict[str, float] = {}
        self.erased_ids: set[str] = set()
        self.erased_batches: set[str] = set()
        #: The last ingest before an erased batch was assessed again: what came in later is not the erasure's.
        self.assessed_again: dict[str, int] = {}
        self.erased_contents: set[str] = set()
        self.expired_ids: dict[str, float] = {}
        self.loose_ids: set[str] = set()
        #: Pictures, by id and by content, that somebody was erased from and that others may still be in.
        self.left: set[str] = set()
        #: Those of which that is not sure.
        self.unsure_left: set[str] = set()
        self.ever: set[tuple[str, str, str]] = set()
        #: Other pictures of the very bytes that the last pass erased: it had looked before, so they are the next one's.
        self.barred_meanwhile: set[str] = set()
        #: What a pass that was cut off may have begun to destroy: then it is not taken back.
        self.begun: set[str] = set()
        #: Pictures that an ingest may not have taken, or taken away for others that may not come, …
        self.untaken: set[str] = set()
        #: … and those that a tombstone may name, or a pass have begun with. If they are gone, nobody knows by what, nor
        #: who was in them when that was decided.
        self.unclear: set[str] = set()
        self.unsure_pictures: set[str] = set()
        self.unsure_records: set[str] = set()
        self.unsure_stones: set[str] = set()

    # --- facts ---

    def begin_ingest(self) -> None:
        """Another run of `ingest` begins."""
        self.ingest += 1

    def assess(self, batch: str, dated: float) -> None:
        """A batch's assessment was given, perhaps once more."""
        known = self.batches.setdefault(batch, Batch())
        if batch in self.erased_batches and dated > known.void_until:
            self.assessed_again.setdefault(batch, self.ingest)
        known.assess(dated)

    def revoke(self, batch: str, at: float) -> None:
        """A batch was revoked."""
        self.batches.setdefault(batch, Batch()).revoke(at)
        self.assessed_again.pop(batch, None)

    def import_record(self, record_id: str, version: Version) -> None:
        """A line of a basis file was read."""
        known = self.records.get(record_id)
        links = self.lost.pop(record_id, {})
        # One with a hold suspends an erasure that is not complete.
        suspends = version.hold and {version.person, version.batch} & {r.value for r in self.requests if r.open}
        erased = self._is_erased(version) or self._batch_is_erased(version.batch)
        if known is None and not links and not suspends and erased:
            return
        # One that only links are left of is taken, for by it the pictures of who was erased meanwhile are found.
        record = self.records.setdefault(record_id, Record(came_in=self.ingest, links=links))
        # The very content of its newest version again is no version more, but after a line that could not be read.
        if not record.versions or record.newest != version or record.unread:
            record.versions.append(version)
            record.read_in = self.ingest
        for picture in version.pictures:
            if picture in self.erased_ids and picture not in self.pictures:
                continue  # It never comes, and so nothing of it is noted.
            content = self.pictures[picture].content if self._is_known(picture) else None
            record.links.setdefault(picture, []).append(Link(content, self.ingest))

    def import_unreadable(self, record_id: str) -> None:
        """A line that names the record could not be read: it may have been a withdrawal."""
        if record_id in self.records:
            self.records[record_id].unread_in = self.ingest

    def ingest_picture(self, picture: str, content: str, batch: str) -> None:
        """A source has this picture. Not taken: what was erased, another batch's id, other bytes of what is held."""
        there = self.pictures.get(picture)
        before = dataclasses.replace(there) if there is not None else None
        self._take(picture, content, batch, there)
        if self.pictures.get(picture) == before and content != (before and before.content):
            self._leave_what_is_there(picture)

    def _leave_what_is_there(self, picture: str) -> None:
        """What was given beside bytes that were not taken was given for these, and is for nothing that is there."""
        for record in self.records.values():
            links = record.links.get(picture, [])
            given = [link for link in links if link.ingest < self.ingest]
            if links and len(given) < len(links):
                record.links[picture] = given or [Link(None, self.ingest)]

    def _take(self, picture: str, content: str, batch: str, there: Stored | None) -> None:
        if picture in self.erased_ids or content in self.erased_contents:
            if there is not None and there.batch == batch and there.content != content and not self.kept(picture):
                # Its source has other bytes for it, and none that may come: whether the former stay nothing is said of.
                self._ingested_or_not(picture)
            return
        if there is not None and there.batch == batch and there.content == content:
            # Its source says that these are the bytes.
            self._bind(picture, first=not there.changed)
            return
        if there is not None and (there.batch != batch or self.kept(picture)):
            return
        if picture in self.expired_ids and not self._given_since(picture, self.expired_ids[picture]):
            if there is not None:
                # As above: it is there with a backup.
                self._ingested_or_not(picture)
            return
        if (there is None and picture in self.loose_ids) or {picture, content} & self.unsure_stones:
            # It went for the sake of its bytes, which another picture was erased with; of its id nothing is said. Or
            # by a job that was killed: nobody knows which tombstones that has written.
            self._ingested_or_not(picture)
        self.expired_ids.pop(picture, None)
        self.pictures[picture] = Stored(content, batch, self.ingest, changed=there is not None)
        self._bind(picture, first=there is None or (there.content == UNREAD and not there.changed))

    def _bind(self, picture: str, *, first: bool) -> None:
        """What waits for a picture is for its ``first`` bytes; what comes in the run that brings some, for these."""
        content = self.pictures[picture].content
        for record in self.records.values() if content != UNREAD else ():
            links = record.links.get(picture, ())
            waits = first and all(link.content is None for link in links)
            for link in links:
                if waits or link.ingest == self.ingest:
                    link.content, link.ingest = content, self.ingest

    def lose(self, table: str) -> None:
        """A whole table is lost: ``images``, ``basis_links`` or ``processing_basis``."""
        if table == "images":
            self.pictures, self.barred_meanwhile = {}, set()
        elif table == "basis_links":
            for record in self.records.values():
                for picture in record.links:
                    self.unlinked.setdefault(picture, set()).add(record.newest.person)
                record.links.clear()
        else:
            self.lost |= {i: record.links for i, record in self.records.items()}
            self.records = {}

    @property
    def blind(self) -> bool:
        """Whether there are pictures, and no record or no link at all, so that nothing is destroyed.

        For nobody can tell whose they are, or what is held.
        """
        return bool(self.pictures) and not any(record.links for record in self.records.values())

    def ask(self, kind: str, value: str, at: float) -> None:
        """An erasure is asked for: of a ``person``, a ``picture`` or a ``batch``. From now on it is barred."""
        if kind == "person":
            # What is dated ahead is no later consent: it was there.
            versions = [v for r in self.records.values() for v in r.versions if v.person == value]
            said = [event.at for version in versions for event in version.events]
            self.erased_people[value] = max(at, self.erased_people.get(value, at), *said)
        elif kind == "picture":
            self.erased_ids.add(value)
        else:
            self.revoke(value, at)
            self.erased_batches.add(value)
        if not any(r.open and (r.kind, r.value) == (kind, value) for r in self.requests):
            self.requests.append(Request(kind, value, at))

    def remember(self) -> None:
        """Note who may be served now: what never could is found wherever it is."""
        for picture, stored in self.pictures.items():
            for person, says in self.served(picture).items():
                if says is not Says.NO:
                    self.ever.add((picture, stored.content, person))

    # --- answers ---

    def standing(self, record: Record) -> tuple[Says, str]:
        """Whether a record permits, apart from pictures, and why not: unread, ended, later, held, denied."""
        version, last = record.newest, record.last_event
        if record.unread:
            return Says.NO, "unread"
        erased = self.erased_people.get(version.person)
        if last is None:
            return Says.NO, "no event"
        if (erased is not None and last.at <= erased) or not last.given:
            return Says.NO, "ended"
        if last.at > self.now:
            return Says.NO, "later"
        if min(last.ends_at, math.inf if version.expires_at is None else version.expires_at) <= self.now:
            return Says.NO, "ended"
        if version.hold:
            return Says.NO, "held"
        # Last: what has ended has, whatever its form, and whatever the law where it was given.
        lawful = version.granted and not version.lacks and version.law not in self.lawless
        return (Says.YES, "") if lawful else (Says.NO, "denied")

    def _link_says(self, picture: str, record: Record) -> Says:
        """A link holds for the content that it was given for; changed bytes need one that was recorded since."""
        stored = self.pictures[picture]
        answers = [Says.NO]
        for link in record.links.get(picture, ()):
            if link.content == stored.content:
                known = link.ingest >= stored.ingest or not stored.changed
                answers.append(Says.YES if known else Says.MAYBE)
        return Says.any_of(answers)

    def _is_in(self, picture: str, record_id: str) -> bool:
        """Whether a record was given for the bytes that a picture holds now: in force or not."""
        links = self.records[record_id].links.get(picture, ())
        return self.pictures[picture].content in {link.content for link in links}

    def _awaits(self, picture: str, record_id: str) -> bool:
        """Whether a record was given for none yet, but for what an ingestion brings."""
        return {link.content for link in self.records[record_id].links.get(picture, ())} == {None}

    def _is_known(self, picture: str) -> bool:
        """Whether anybody knows what a picture holds: its row is there, and was read."""
        return picture in self.pictures and self.pictures[picture].content != UNREAD

    def _may_be_for(self, picture: str, record_id: str) -> bool:
        """Whether a record was given for what an ingestion brings, and one has brought other bytes since."""
        last = max((link.ingest for link in self.records[record_id].links.get(picture, ())), default=0)
        return self._awaits(picture, record_id) and self.pictures[picture].ingest > last

    def _inside(self, picture: str, record_ids: Iterable[str]) -> set[str]:
        """Those of the records whose people may be in a picture as it is now."""
        if not self._is_known(picture):
            return set(record_ids)
        return {i for i in record_ids if self._is_in(picture, i) or self._may_be_for(picture, i)}

    def permits(self, picture: str, record: Record) -> Says:
        """Whether a record permits this picture as it is now."""
        stored = self.pictures[picture]
        if record.newest.batch != stored.batch:
            return Says.NO
        in_force = self.batches.get(stored.batch, Batch()).in_force
        return Says.all_of(in_force, self.standing(record)[0], self._link_says(picture, record))

    def on_hold(self, picture: str) -> bool:
        """A legal hold of any of its records keeps a picture from being served and from being destroyed."""
        return any(picture in r.links and r.newest.hold for r in self.records.values())

    def kept(self, picture: str) -> bool:
        """A hold, or a line that could not be read and may have set one, keeps it from being destroyed."""
        return any(picture in r.links and r.kept for r in self.records.values())

    def served(self, picture: str) -> dict[str, Says]:
        """For each person that a picture shows, whether that face may be served now."""
        stored = self.pictures.get(picture)
        if stored is None:
            return {}
        shown = self.shows[stored.content]
        nobody = {person: Says.NO for person, _ in shown}
        if picture in self.erased_ids or stored.content in self.erased_contents or self.on_hold(picture):
            return nobody
        unsure_stone = bool({picture, stored.content} & self.unsure_stones)
        answers = {i: self.permits(picture, r) for i, r in self.records.items() if picture in r.links}
        sure = [self.records[i].newest for i, says in answers.items() if says is Says.YES]
        unsure = [self.records[i].newest for i, says in answers.items() if says is Says.MAYBE]
        people = {self.records[i].newest.person for i in answers}
        here = {picture, stored.content}
        found = [
            covered(shown, [*sure, *more], of=people, left=left)
            for left in {bool(here & self.left), bool(here & (self.left | self.unsure_left))}
            for size in range(len(unsure) + 1)
            for more in itertools.combinations(unsure, size)
        ]
        every = {person for person in nobody if all(person in c for c in found) and not unsure_stone}
        some = {person for person in nobody if any(person in c for c in found)}
        return {p: Says.YES if p in every else Says.MAYBE if p in some else Says.NO for p in nobody}

    def due(self, picture: str) -> Says:
        """Whether a picture has reached its end: revoked, erased, or whoever is in it has ended.

        A link that was given for other bytes than are there now is for nobody in it. Where all are, all have to end.
        """
        stored = self.pictures[picture]
        if self.kept(picture) or self.blind:
            return Says.NO
        revoked = self.batches.get(stored.batch, Batch()).revoked
        if revoked is Says.YES or (self.barred(picture) and picture not in self.barred_meanwhile):
            return Says.YES
        records = {i: r for i, r in self.records.items() if picture in r.links}
        if not records:
            return revoked
        inside = {i: r for i, r in records.items() if self._is_in(picture, i) or self._awaits(picture, i)}
        over = Says.all_of(*(self.ended(record) for record in (inside or records).values()))
        former = [r for i, r in records.items() if i not in inside]
        if any(self.standing(r) != (Says.YES, "") and self.ended(r) is Says.NO for r in former):
            # One for former bytes that nothing else is wrong with is nobody's; of others two readings are fair.
            over = Says.all_of(over, Says.MAYBE)
        return Says.any_of((revoked, over))

    def ended(self, record: Record) -> Says:
        """Whether a record has ended, for a reason that no later time undoes."""
        return Says.YES if self.standing(record)[1] == "ended" else Says.NO

    def whose(self, picture: str, person: str) -> set[str]:
        """Whose the face may be that a picture shows as ``person``'s: also theirs to whom a record ever gave its box.

        For what a picture shows is not known to anybody but who drew it: boxes tell. While its links are lost, anybody
        whom it was linked to.
        """
        stored = self.pictures.get(picture)
        places = {} if stored is None else dict(self.shows[stored.content])
        versions = [v for r in self.records.values() if picture in r.links for v in r.versions]
        if not versions:
            return {person} | self.unlinked.get(picture, set())
        return {person} | {v.person for v in versions if v.box is not None and v.box == places.get(person)}

    def is_back_unlinked(self, picture: str, people: set[str]) -> bool:
        """Whether one of them consented since their erasure, and the link that led to this picture is lost."""
        lost = self.unlinked.get(picture, set()) & people & self.erased_people.keys()
        records = [r for r in self.records.values() if r.newest.person in lost and picture not in r.links]
        return any(self.given_after(record) for record in records)

    def barred(self, picture: str) -> bool:
        """Whether a tombstone names a stored picture, by its id or its bytes."""
        return picture in self.erased_ids or self.pictures[picture].content in self.erased_contents

    # --- what jobs promise ---

    def sweep(self) -> None:
        """`erase` or `expire` has ended well: all open requests, and whatever a tombstone matches without one."""
        self.carry_out(sweep=True)
        if not self.blind:
            # Ended once, and here again from a backup: the page has it go only where it was erased.
            self.unsure_pictures |= {p for p in set(self.pictures) & set(self.expired_ids) if not self.kept(p)}

    def carry_out(self, *, sweep: bool = False) -> None:
        """A pass over all open requests has ended well."""
        self._finish_what_was_cut_off()
        barred = {picture for picture in self.pictures if self.barred(picture)}
        wanted = [r for r in self.requests if r.open]
        if self.blind:
            # Nobody can say that a person has none, or that it is not held: nothing is destroyed, and who asked waits.
            batches = {stored.batch for stored in self.pictures.values()}
            for request in wanted:
                # Their faces lead to pictures, and tell that somebody may have left these.
                shown = {p for p, people in self.unlinked.items() if request.value in people and p in self.pictures}
                self.unsure_stones |= (shown | {self.pictures[p].content for p in shown}) - {UNREAD}
                request.open = request.kind == "person" or request.value in {*self.pictures, *batches}
                if not request.open:
                    self.unsure_records |= {i for i, r in self.records.items() if self._names(request, r)}
            return
        leaving, by_name = self._reached(wanted)
        swept = self._swept() if sweep else set()
        again = barred if sweep else set()
        for picture in {*self.pictures, *by_name, *(p for i in leaving for p in self.records[i].links)}:
            of = {i for i, r in self.records.items() if picture in r.links}
            if self.kept(picture) or picture in by_name:
                # What it has held before may be barred, too; of one that is missing, or unread, only links tell.
                now = {self.pictures[picture].content} if picture in self.pictures else set()
                former = self._contents_of(picture, of & leaving if self._is_known(picture) else of)
                self.unsure_stones |= former.keys() - now
            if self.kept(picture):
                continue
            if picture in by_name:
                if picture in self.pictures:
                    self.destroy(picture, erased=True, barred=True)
            else:
                self._leave(picture, of & (leaving | swept), of - leaving - swept, asked_for=leaving)
            if picture in again & set(self.pictures):
                self.destroy(picture, erased=picture in self.erased_ids)
        leaving |= swept
        # A record of a picture that is kept stays as long, for by it an erasure that waits is found again.
        kept = {i for i, r in self.records.items() if r.kept or any(self.kept(p) for p in r.links)}
        for request in wanted:
            kept_back = any(p in self.pictures and self.kept(p) for p in request.pictures)
            request.open = kept_back or bool(request.records & kept)
        for record_id in leaving - kept:
            del self.records[record_id]
        self.barred_meanwhile = {picture for picture in self.pictures if self.barred(picture)} - barred

    def _reached(self, wanted: list[Request]) -> tuple[set[str], set[str]]:
        """Records that go by these requests, and pictures that are asked for by their ids or their batch."""
        leaving: set[str] = set()
        by_name = {request.value for request in wanted if request.kind == "picture"}
        for request in wanted:
            mine = {i for i, r in self.records.items() if self._names(request, r)}
            if request.kind == "person":
                # By a consent given since the erasure was last asked for, the person came back.
                mine = {i for i in mine if not self.given_after(self.records[i])}
            if request.kind == "picture":
                request.pictures.add(request.value)
            if request.kind == "batch":
                until = self.assessed_again.get(request.value, self.ingest)
                mine = {i for i in mine if self.records[i].came_in <= until}
                of_batch = {p for p, s in self.pictures.items() if s.batch == request.value and s.ingest <= until}
                request.pictures |= of_batch
                by_name |= of_batch
            request.records |= mine
            request.pictures |= {p for i in mine for p in self.records[i].links}
            leaving |= mine
        return leaving, by_name

    def _swept(self) -> set[str]:
        """Records that were restored, or came in while nobody looked: they give nothing since an erasure."""
        erased_at = {i: self.erased_people.get(r.newest.person, -1.0) for i, r in self.records.items()}
        old = {i for i, r in self.records.items() if r.given_at <= erased_at[i]}
        return old | {i for i, r in self.records.items() if self._batch_is_erased(r.newest.batch)}

    def _leave(self, picture: str, mine: set[str], others: set[str], *, asked_for: set[str]) -> None:
        """Whom the records ``mine`` are about leave a picture that nobody asked for: it goes if nobody else is in it.

        In it is who is recorded for the bytes that are there now. Barred are those that records (``asked_for``) of
        theirs alone name, whatever stands there now; what somebody else is recorded for, too, under this id, shows
        that somebody has left it.
        """
        if not mine:
            return
        own, theirs = self._contents_of(picture, mine & asked_for), self._contents_of(picture, others)
        inside, beside = self._inside(picture, mine), self._inside(picture, others)
        self.erased_contents |= own.keys() - theirs.keys()
        self.left |= {content for content in own.keys() & theirs.keys() if own[content] - theirs[content]}
        if beside and not self._is_known(picture):
            # Its row is missing, or was not read: nobody can say who was in it.
            self.unsure_stones.add(picture)
        elif not beside and picture in self.pictures:
            self.destroy(picture, erased=True, barred=bool(inside))
        elif not beside:
            self.erased_ids |= {picture} if mine & asked_for else set()
        elif self._people(inside) - self._people(beside):
            self.left |= {picture, self.pictures[picture].content}

    def _contents_of(self, picture: str, record_ids: Iterable[str]) -> dict[str, set[str]]:
        """For each content that these records were given for, under this id, whom they are about.

        Who was given for none yet may be in each, while nobody knows what stands there.
        """
        found: dict[str, set[str]] = {}
        for record_id in record_ids:
            contents = {link.content for link in self.records[record_id].links[picture]}
            waits = contents == {None} and not self._is_known(picture)
            if waits:
                contents = {link.content for r in self.records.values() for link in r.links.get(picture, ())}
            elif contents == {None} and self._may_be_for(picture, record_id):
                contents = {self.pictures[picture].content}
            for content in contents:
                if content is not None:
                    found.setdefault(content, set()).update(self._people([record_id]))
        return found

    def expire(self) -> None:
        """What is due has been destroyed."""
        gone = [p for p in self.pictures if self.due(p) is Says.YES]
        for picture in gone:
            self.destroy(picture, erased=False)
        self.unsure_pictures |= {p for p in self.pictures if self.due(p) is Says.MAYBE}

    def perhaps(self, *effects: str, destroyed: bool = True) -> None:
        """A job that does these may have done any part of it: it was killed, or ended badly.

        Not ``destroyed``: it may have written down what is to go, and nothing has gone.
        """
        then = copy.deepcopy(self)
        # A pass over what is due, or here again, writes its tombstones when it begins, and not before.
        sure = ("carry_out",) if {"sweep", "carry_out"} & set(effects) else ()
        for effect in effects if destroyed else sure:
            getattr(then, effect)()
        if destroyed:
            gone = (set(self.pictures) - set(then.pictures)) | then.unsure_pictures
            self.unsure_pictures |= gone
            self.unclear |= then.unclear
            self.begun |= gone if "expire" in effects else set()
            self.unsure_records |= set(self.records) - set(then.records)
        # Tombstones are written before anything is destroyed; whether it came that far is not known.
        self.unsure_stones |= (then.erased_contents - self.erased_contents) | (then.erased_ids - self.erased_ids)
        self.unsure_stones |= then.left - self.left
        self.unsure_left |= then.unsure_left
        self.loose_ids |= set(then.expired_ids) - set(self.expired_ids)

    def either(self, other: Oracle) -> None:
        """This has happened, or ``other`` has, or a part of each: what only one of them knows is not sure."""
        mine, theirs = self.pictures, other.pictures
        self.unsure_records |= set(self.records) ^ set(other.records)
        of_one = set(mine) ^ set(theirs)
        self.unsure_pictures |= of_one
        # What the job in between has ended was there.
        self.untaken |= of_one - {p for one in (self, other) for p, at in one.expired_ids.items() if at == one.real}
        self.unsure_pictures |= {p for p in set(mine) & set(theirs) if mine[p].content != theirs[p].content}
        for record_id in set(other.records) - set(self.records):
            self.records[record_id] = copy.deepcopy(other.records[record_id])
        for picture in set(theirs) - set(mine):
            mine[picture] = copy.copy(theirs[picture])
            for record_id, record in other.records.items():
                if picture in record.links:
                    self.records[record_id].links.setdefault(picture, copy.deepcopy(record.links[picture]))
        for name in ("erased_ids", "erased_contents", "left"):
            self.unsure_stones |= getattr(self, name) ^ getattr(other, name)
            getattr(self, name).intersection_update(getattr(other, name))
        self.unsure_stones |= other.unsure_stones
        self.loose_ids |= other.loose_ids | (set(self.expired_ids) ^ set(other.expired_ids))
        self.expired_ids = {p: at for p, at in self.expired_ids.items() if p in other.expired_ids}
        self.unsure_left |= other.unsure_left
        self.begun |= other.begun
        self.untaken |= other.untaken
        self.unclear |= other.unclear
        self.ingest = max(self.ingest, other.ingest)
        self.unsure_pictures |= other.unsure_pictures
        self.unsure_records |= other.unsure_records
        self.ever |= other.ever

    def adopt(self, pictures: Mapping[str, str], records: Iterable[str], links: Iterable[tuple[str, str]]) -> None:
        """Settle what is not sure by what is there: pictures (with their content), records, links (picture, record)."""
        there, linked = set(records), set(links)
        self.untaken |= self.unclear
        for picture in self.unsure_pictures & set(self.pictures):
            if picture in pictures:
                self.pictures[picture].content = pictures[picture]
            else:
                self.destroy(picture, erased=False)
                self.expired_ids.pop(picture, None)
                self.loose_ids.add(picture)
        for record_id in self.unsure_records & set(self.records):
            if record_id not in there:
                del self.records[record_id]
        touched = self.unsure_pictures | {
            p for i in self.unsure_records & set(self.records) for p in self.records[i].links
        }
        for record_id, record in self.records.items():
            for picture in touched & set(record.links):
                if (picture, record_id) not in linked:
                    del record.links[picture]
        self.unsure_pictures, self.unsure_records = set(), set()
        self.untaken, self.unclear = set(), set()

    def destroy(self, picture: str, *, erased: bool, barred: bool = False) -> None:
        """``erased``: its id does not come back, else under a permission given since; ``barred``: its bytes neither."""
        of = {i for i, r in self.records.items() if picture in r.links}
        several = len(self._people(self._inside(picture, of))) > 1
        shown = {self.pictures[picture].content} if self._is_known(picture) else self._contents_of(picture, of).keys()
        stored = self.pictures.pop(picture)
        for record in self.records.values():
            record.links.pop(picture, None)
        if erased:
            self.erased_ids.add(picture)
            self.erased_contents |= {stored.content} - {UNREAD} if barred else set()
        elif stored.content in self.erased_contents:
            self.loose_ids.add(picture)
            self.unsure_stones |= {picture} if several else set()
        elif picture not in self.erased_ids:
            self.expired_ids[picture] = self.real
            known = self.unsure_left if picture in self.untaken else self.left
            known |= {picture, *shown} if several else set()

    def _finish_what_was_cut_off(self) -> None:
        """Of what a pass has begun, or may have written a tombstone of, nobody can say what the next one leaves.

        But nothing goes while nobody can tell what is held: then it is left to the pass after.
        """
        if self.blind:
            return
        marked = {p for p, s in self.pictures.items() if p in self.begun or {p, s.content} & self.unsure_stones}
        self.unclear |= {picture for picture in marked if not self.kept(picture)}
        self.unsure_pictures |= self.unclear
        self.begun = set()

    def _ingested_or_not(self, picture: str) -> None:
        """Whether it is there after this ingest is not sure."""
        self.unsure_pictures.add(picture)
        self.untaken.add(picture)

    def _batch_is_erased(self, batch: str) -> bool:
        known = self.batches.get(batch, Batch())
        return batch in self.erased_batches and known.last_dated <= known.void_until

    def _people(self, record_ids: Iterable[str]) -> set[str]:
        return {self.records[i].newest.person for i in record_ids}

    def _names(self, request: Request, record: Record) -> bool:
        people = {version.person for version in record.versions}
        return (request.kind == "person" and request.value in people) or (
            request.kind == "batch" and record.newest.batch == request.value
        )

    def _is_erased(self, version: Version) -> bool:
        erased = self.erased_people.get(version.person)
        return erased is not None and max((e.at for e in version.events if e.given), default=0.0) <= erased

    def given_after(self, record: Record) -> bool:
        erased, last = self.erased_people.get(record.newest.person), record.last_event
        return erased is None or (last is not None and last.given and last.at > erased)

    def _given_since(self, picture: str, at: float) -> bool:
        linked = [r for r in self.records.values() if picture in r.links]
        return any(r.given_at > at for r in linked)


def covered(shown: Shown, records: Iterable[Version], *, of: Iterable[str] = (), left: bool = False) -> set[str]:
    """Whose faces are covered: of records with a box those faces alone; without, all of them or nobody (no bystanders).

    ``of``: all people that are recorded in the picture; ``left``: another was erased from it. Without a box nobody is
    covered beside one whom nothing permits. Boxes are those of the picture, to the number.
    """
    versions = list(records)
    boxes = {version.box for version in versions if version.box is not None}
    if boxes:
        return {person for person, box in shown if box in boxes}
    people = {version.person for version in versions}
    if left or set(of) - people:
        return set()
    return {person for person, _ in shown} if len(shown) <= len(people) else set()
