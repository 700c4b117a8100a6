"""Plays a history on a world and on the oracle, and compares the two after every job.

A history is a *schedule* of global jobs, and *cells* (cells.py) that go through their own rules between them. Before a
job all cells' next rules are sent in one `ingest`; so many people share the fixed cost of a job. After each job every
collection, table and file, and the answers of `verify --erased` and `verify --audit`, are compared with the oracle.

Words of a schedule
    a job                   ``sync``, ``embed``, ``expire``, ``erase``, ``reindex``, ``rollback``
    ``night``               `embed`, `load`, `verify` and `promote` with one run id
    ``JOB!POINT``           the job is killed before it writes POINT (``append embeddings``), or its n-th point (``7``)
    ``resume``              what was killed last is run again by its run id
    ``JOB~POINT>OTHER``     a zombie: before POINT its lease runs out, the cells' rules are sent and OTHER runs to its
                            end, then it goes on. What it has done by then stands, what it does later must not count
    ``JOB^POINT>OTHER``     OTHER meets it: before POINT erasures are asked for, and OTHER runs while JOB has the lease
    ``ingest!POINT>OTHER``  the ingest of what is sent is killed before POINT, OTHER runs, and it is all given again;
                            ``ask!POINT>OTHER``: so is the asking for erasures. Without ``>OTHER`` nothing comes between
    ``same JOB``            JOB under one run id, each time that it is the word
    ``elsewhere JOB``       the settings lead JOB to another index, which is empty; then they are right again
    ``later``               the clock is set forward by a day
    ``rotate``              a new key; all records are imported anew with what is sent next
    ``revoke``              batch `part` is revoked; ``erase batch``: and erased; ``assess batch``: assessed now;
                            ``assess batch ahead``: of tomorrow; ``give batch``: its first assessment is given again
    ``outlaw``              the settings lose the rule of a jurisdiction; ``allow``: they have it again
    ``back up``             a copy of everything is put aside
    ``restore TABLE``       a table (with what belongs to it), or ``index.db``, is put back as it was
    ``lose``                the live collection and its alias are dropped
    ``lose TABLE>JOB``      a table's folder is removed, and JOB runs; what is sent next brings all that was in it again

**A new word** is a method `Player.word_NAME`, or an entry of `EFFECTS` for a job: what it promises when it ends well.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.histories.cells import ABROAD, RULES, Cell, Line, Sent, busy, told
from tests.histories.oracle import DAY, UNREAD, Event, Oracle, Says, Version
from tests.histories.pictures import digest_of, label_of, shown_in, vector_of
from tests.histories.world import OTHER_PURPOSE, PURPOSE, Answer, World

#: What a job promises in the oracle's terms when it has ended well.
EFFECTS: dict[str, tuple[str, ...]] = {
    "erase": ("sweep",),
    "expire": ("sweep", "expire"),
    "sync": ("carry_out", "expire"),
    "reindex": ("carry_out",),
}
#: These destroy what has ended.
ENDS = {"sync", "expire"}
#: After these the live collection holds nobody who is not permitted, …
CLEAN_LIVE = {"sync", "expire", "erase", "reindex", "promote", "rollback"}
#: … after these no collection does, …
CLEAN_EVERYWHERE = {"erase", "expire"}
#: … and after these everybody who is permitted is live.
COMPLETE = {"reindex", "promote"}
JOBS = ("embed", "load", "verify", "promote", "reindex", "sync", "expire", "erase", "rollback")
#: Of these a second one has nothing to do where nobody has said anything.
NOTHING_NEW = {("sync", "sync"), ("expire", "expire"), ("expire", "sync")}
#: Exit codes beside 0 that are right: a hold suspends an erasure, or one found nothing; there is no collection before.
RIGHT = {"erase": {3, 6}, "rollback": {4}}
#: Those of them that say that all was done.
DONE = {"erase": {3, 6}}
#: Commands that can be cut off, and are given again: see the words.
GIVEN_AGAIN = ("ingest", "ask")
#: Jobs that begin anew under a run id that has been: what is due since is carried out, too.
ANEW = ("erase", "expire", "sync")
#: What is restored together: docs/operations.md, "A damaged table".
BESIDE = {"embeddings": ("image_status",)}
#: Rules that ask for an erasure: possible while another job holds the lease.
ASKING = {name for name in RULES if name.startswith("forget")}
KEPT = "keep"
#: Signs of words at a point of a job.
AT_A_POINT = "!~^"
#: The date of the assessment that every batch begins with.
FIRST_ASSESSED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_LOG = logging.getLogger("histories")


@dataclass(frozen=True)
class History:
    """What is played: the words of a schedule, and for each cell its name, shape, batch and rules."""

    schedule: tuple[str, ...]
    cells: tuple[tuple[str, str, str, tuple[str, ...]], ...]

    def to_json(self) -> str:
        return json.dumps({"schedule": self.schedule, "cells": self.cells})

    @classmethod
    def from_json(cls, text: str) -> History:
        data = json.loads(text)
        cells = tuple((name, shape, batch, tuple(rules)) for name, shape, batch, rules in data["cells"])
        return cls(tuple(data["schedule"]), cells)

    def only(self, name: str, steps: int) -> History:
        """The same for one cell alone, up to a step; a cell that nothing happens to stays beside it.

        Where something happens at a point of a job, so do cells that give each job something to write: without them it
        would end before it came to that point.
        """
        schedule = self.schedule[:steps]
        at_a_point = any(set(word) & set(AT_A_POINT) for word in schedule)
        beside = ((KEPT, "boxed", "main", ()), *(busy(steps) if at_a_point else ()))
        kept = tuple(cell for cell in self.cells if cell[0] == name)
        return History(schedule, (*kept, *(cell for cell in beside if cell[0] != name)))


@dataclass(frozen=True)
class Finding:
    """Something that is not as promised: the guarantee's number, what is wrong, and which cell's history led there.

    Number 0: what plays the histories is wrong itself, or a job raised through its command line.
    """

    guarantee: int
    what: str
    where: str
    cell: str
    path: str
    history: History

    @property
    def kind(self) -> tuple[Any, ...]:
        """What is wrong in one cell is wrong once, however long it stays."""
        return self.guarantee, self.what, self.where, self.cell or self.path

    def __str__(self) -> str:
        replay = f"python -m tests.histories replay '{self.history.to_json()}'"
        return f"Guarantee {self.guarantee}: {self.what} ({self.where})\n    {self.path}\n    {replay}"


@dataclass
class Seen:
    """What is there: pictures with their content, faces of the table and of each collection, records, links."""

    pictures: dict[str, str]
    faces: dict[int, tuple[str, bytes]]
    records: dict[str, str]
    links: set[tuple[str, str]]
    collections: dict[str, dict[int, bytes]]
    live: str | None
    #: By face, the records that its row stands under.
    under: dict[int, tuple[str, ...]] = field(default_factory=dict)


class Player:
    """Plays one history, step by step; `findings` grows."""

    def __init__(self, world: World, cells: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> None:
        self.world, self.oracle = world, Oracle()
        began = time.time() - 30 * DAY
        self.cells = {name: Cell(name, shape, batch, rules, began) for name, shape, batch, rules in cells}
        self.schedule: list[str] = []
        self.findings: list[Finding] = []
        self.compared = 0
        self.rules_done = 0
        self.labels: dict[bytes, tuple[str, str]] = {}
        self.keys: dict[int, str] = {}
        self.copies: dict[bytes, set[str]] = {}
        self.restored = False
        self.broken = False
        self.backup: tuple[Any, ...] | None = None
        self.killed: tuple[str, str] | None = None
        self.import_all = False
        self.ingest_all = False
        self.kept_with: dict[str, tuple[str, set[bytes]]] = {}
        self.were_live: set[str] = set()
        #: Words at a point of a job that ended before it came there: nothing has happened at it.
        self.unmet: list[str] = []
        #: The job that the last word was, if it ended well.
        self.well = ""
        #: Faces that stood in the table when a record of theirs ended: their picture, and their records.
        self.last_under: dict[bytes, tuple[str, tuple[str, ...]]] = {}
        self.must_go: dict[bytes, tuple[str, tuple[str, ...]]] = {}
        self._number = 0
        self._last = 0.0

    # --- what cells send ---

    def clock(self) -> float:
        """An instant for an event, later than all before."""
        self._last = max(time.time(), self._last + 1e-5)
        return round(self._last, 6)

    def begin(self) -> None:
        """The first ingest: everything of all cells."""
        sent = Sent()
        for cell in self.cells.values():
            mine = cell.begin()
            sent.lines += mine.lines
            sent.pictures += mine.pictures
        self._deliver(sent)

    def send(self, rules: dict[str, str]) -> None:
        """One rule each for some cells, all in one ingest."""
        self._deliver(self._gather(rules))

    def _gather(self, rules: dict[str, str]) -> Sent:
        sent = Sent()
        self.oracle.now = self.world.now().timestamp()
        for name, cell in self.cells.items():
            if self.import_all:
                sent.lines += cell.all_records().lines
            if self.ingest_all:
                sent.pictures += cell.all_pictures().pictures
            mine = cell.do(rules.get(name, ""), self.clock, self.oracle.now)
            sent.lines += mine.lines
            sent.pictures += mine.pictures
            sent.asked += mine.asked
            self.rules_done += bool(rules.get(name))
        self.import_all = self.ingest_all = False
        if self.oracle.lost:
            # Each comes in again, for else nobody's request would ever be complete.
            sent.lines = [line for line in sent.lines if line.version is not None]
        # A file has each record once: the last that a cell had to say.
        sent.lines = list({line.record_id: line for line in sent.lines}.values())
        return sent

    def _deliver(self, sent: Sent) -> None:
        """Ingest what was sent, batch by batch, and ask for the erasures after it."""
        self._know(sent.pictures)
        for part in _by_batch(sent):
            self._ingest(*part)
            _tell(self.oracle, *part)
        if sent.asked:
            _tell_asked(self.oracle, sent)
            self._ask(sent.asked)
        self.oracle.now = self.world.now().timestamp()
        self.oracle.remember()

    def _know(self, pictures: list[tuple[str, bytes, str]]) -> None:
        for picture_id, data, _ in pictures:
            content, shown = digest_of(data), shown_in(data)
            self.oracle.shows[content] = shown
            for person, _ in shown:
                label = label_of(vector_of(person, content))
                self.labels[label] = (person, content)
                self.copies.setdefault(label, set()).add(picture_id)

    def _ingest(
        self, batch: str, pictures: list[tuple[str, bytes]], lines: list[Line], *, at: str | int | None = None
    ) -> int:
        """Run it; killed before its point ``at``."""
        known = batch in self.oracle.batches
        arguments = ["--batch", batch if known else str(self._batch_file(batch, "assessed"))]
        if lines:
            arguments += ["--basis", str(self._basis_file(lines))]
        if pictures:
            arguments += ["--source", f"parquet:{self._source(pictures)}"]
        # What another batch has under a known id may be refused one by one, or as a whole.
        # So does a line that was not read, where its record is not known.
        # And what is given beside a picture that is left as it was; without a source, a hold on none that is there.
        unread = any(line.version is None or (line.version.hold and not pictures) for line in lines)
        usual = {0, 1} if unread or (lines and pictures) else {0}
        usual = {0, 1, 3} if batch == "other" else usual
        answer = self.world.run("ingest", *arguments, at=at)
        self._expect(answer, usual if at is None else {*usual, -9})
        return answer.code

    def _source(self, pictures: list[tuple[str, bytes]]) -> Path:
        self._number += 1
        path = self.world.folder / f"source-{self._number}.parquet"
        # Of one id the last: a source has each once.
        rows = dict(pictures)
        pq.write_table(pa.table({"image_id": list(rows), "content": list(rows.values())}), path)
        return path

    def _basis_file(self, lines: list[Line]) -> Path:
        from jobs.governance.basis_files import CSV_COLUMNS

        self._number += 1
        path = self.world.folder / f"basis-{self._number}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, CSV_COLUMNS)
            writer.writeheader()
            for line in lines:
                version = line.version or line.text_of
                assert version is not None
                for row in _rows(line.record_id, version):
                    writer.writerow(row if line.version else {**row, "event_time": "some day"})
        return path

    def _ask(self, asked: list[tuple[str, str]], *, at: str | int | None = None) -> bool:
        """As `erase` does first, whoever holds the lease; whether it was killed, before its point ``at``."""
        from jobs.erasure.asked import asked_for
        from jobs.steps.erase import _request

        names = self.world.folder / "asked.txt"
        names.write_text("\n".join(value for kind, value in asked if kind == "person"), encoding="utf-8")
        nobody = dict.fromkeys(("subject", "subject_file", "image", "batch"))
        ended = False
        with self.world.as_job(at=at) as job:
            persons = any(kind == "person" for kind, _ in asked)
            targets = asked_for(job.settings, **{**nobody, "subject_file": str(names)}) if persons else {}
            for kind, value in asked:
                if kind == "picture":
                    targets |= asked_for(job.settings, **{**nobody, "image": value})
            _request(job, targets, f"asked-{self._number}")
            ended = True
        return not ended

    def _batch_file(self, batch: str, state: str, dated: float = FIRST_ASSESSED) -> Path:
        path = self.world.folder / f"{batch}.yaml"
        path.write_text(yaml.safe_dump({
            "source_batch_id": batch, "supplier": "tests", "collection_method": "uploaded_by_subject",
            "assessment_ref": "a", "assessed_at": _instant(dated), "state": state,
        }))  # fmt: skip
        return path

    # --- jobs ---

    @property
    def history(self) -> History:
        """What was played so far."""
        cells = tuple((c.name, c.shape, c.batch, c.rules) for c in self.cells.values())
        return History(tuple(self.schedule), cells)

    def step(self, word: str, rules: dict[str, str] | None = None) -> None:
        """The cells' rules, then one word of the schedule, then the comparison.

        ``rules``: other ones than those that the history has for this step; they become part of it.
        """
        begun = time.monotonic()
        if self.broken:
            return
        try:
            self._step(word, rules)
        except Exception:
            # Hours of other histories are still to be played; this one cannot go on.
            self.broken = True
            self._found(0, "the history cannot be played", traceback.format_exc()[-1_500:])
        _LOG.info("%s: %.0f s, %d findings", word, time.monotonic() - begun, len(self.findings))

    def _step(self, word: str, rules: dict[str, str] | None) -> None:
        number = len(self.schedule) - 1
        if rules is not None:
            for name, cell in self.cells.items():
                past = (*cell.rules[: max(0, number)], *[""] * (number - len(cell.rules)))
                cell.rules = (*past, rules.get(name, "")) if number >= 0 else past
        else:
            rules = {n: c.rules[number] for n, c in self.cells.items() if 0 <= number < len(c.rules)}
        inside: dict[str, str] = {}
        given_again = word.partition("!")[0] in GIVEN_AGAIN
        if "~" in word or given_again or "^" in word:
            inside = {n: rule for n, rule in rules.items() if "^" not in word or rule in ASKING}
        before = {n: rule for n, rule in rules.items() if n not in inside}
        if any(before.values()) or ((self.import_all or self.ingest_all) and not inside):
            self.send(before)
        self.schedule.append(word)
        just_done, self.well = self.well, ""
        if given_again:
            self._given_again(word, inside)
        elif "!" in word:
            self._killed(*word.split("!"))
        elif "~" in word or "^" in word:
            self._together(word, inside)
        elif word in JOBS:
            self._run(word, just_done, rules)
        else:
            name, _, rest = word.partition(" ")
            method = getattr(self, f"word_{word.replace(' ', '_')}", None)
            if method is not None:
                method()
            else:
                getattr(self, f"word_{name}")(rest)

    def _run(self, job: str, just_done: str, rules: dict[str, str]) -> None:
        """``just_done``: the job before it, if that has ended well, and nothing but ``rules`` was said in between."""
        quiet = self._quiet(rules) if (just_done, job) in NOTHING_NEW and not self.restored else set()
        with self.world.listening() as asked:
            answer = self.world.run(job)
        self._ended(answer)
        self.well = job if answer.code in {0, *DONE.get(job, ())} else ""
        for kind, value in asked:
            if self._cell(value) in quiet:
                self._found(12, f"{job} finds something to do directly after {just_done}", kind, self._cell(value))

    def _quiet(self, rules: dict[str, str]) -> set[str]:
        """Cells that nothing was said of, and in which nothing may be due."""
        oracle = self.oracle
        waiting = {p for p in oracle.pictures if oracle.due(p) is not Says.NO} | oracle.barred_meanwhile
        waiting |= {p for p, s in oracle.pictures.items() if {p, s.content} & oracle.unsure_stones}
        said = {name for name, rule in rules.items() if rule}
        return set(self.cells) - said - {self._cell(picture) for picture in waiting}

    def _killed(self, name: str, point: str) -> None:
        run_id = f"k{len(self.schedule)}"
        answer = self.world.run(name, "--run-id", run_id, at=int(point) if point.isdigit() else point)
        if answer.code != -9:
            self.unmet.append(f"{name}!{point}")
        # One that came to its end before that point would switch back to its own collection.
        if answer.code == -9 or name != "reindex":
            self.killed = (name, run_id)
        self._ended(answer)

    def _given_again(self, word: str, rules: dict[str, str]) -> None:
        name, rest = word.split("!")
        point, _, other = rest.partition(">")
        at = int(point) if point.isdigit() else point
        sent = self._gather(rules)
        asked, sent.asked = Sent(asked=sent.asked), []
        if name == "ask":
            self._deliver(sent)
            sent = asked
        self._know(sent.pictures)
        twice = copy.deepcopy(self.oracle)
        _tell_all(twice, sent)
        twice.remember()
        if not self._cut_off(sent, at):
            self.unmet.append(word)
        if other:
            answer = self.world.run(other)
            self._expect(answer, {0, *RIGHT.get(other, ())})
            for oracle in (self.oracle, twice):
                self._effects(answer, oracle=oracle)
        _tell_all(twice, sent)
        for part in _by_batch(sent):
            self._ingest(*part)
        _tell_all(self.oracle, sent)
        if sent.asked:
            self._ask(sent.asked)
        self.oracle.either(twice)
        if name == "ingest":
            self._deliver(asked)
        self.oracle.now = self.world.now().timestamp()
        self.oracle.remember()
        self._compare(word, "")

    def _cut_off(self, sent: Sent, at: str | int) -> bool:
        """Whether it was: it may end before it comes to that point."""
        if any(self._ingest(*part, at=at) == -9 for part in _by_batch(sent)):
            return True
        return bool(sent.asked) and self._ask(sent.asked, at=at)

    def _together(self, word: str, rules: dict[str, str]) -> None:
        zombie = "~" in word
        name, rest = word.split("~" if zombie else "^")
        point, other = rest.split(">")
        inside: list[Answer] = []

        def then() -> None:
            if zombie:
                if name in EFFECTS:
                    self._has_done(name)
                self.world.lease_runs_out()
            if any(rules.values()):
                self.send(rules)
            inside.append(self.world.run(other))
            self._effects(inside[0], busy=not zombie)
            self.oracle.real, self.oracle.now = time.time(), self.world.now().timestamp()
            self.oracle.remember()

        answer = self.world.run(name, at=int(point) if point.isdigit() else point, then=then)
        if not inside:
            self.unmet.append(word)
            self._ended(answer)
            return
        if zombie:
            if "unforeseen" in answer.message:
                self._found(12, "a zombie ends in an unforeseen error", answer.message)
            # What it did after another took over must not count; where none did, it was still its own to do.
            if "took over" not in answer.message:
                self.oracle.perhaps(*EFFECTS.get(name, ()))
            self._compare(f"{other} inside {name}", other if inside[0].code == 0 else "")
        elif any(rules.values()):
            # What is asked for after it has looked is carried out at its end, or by the next: both are promised. Of
            # whom was asked for before it is left to the next: an erasure says so.
            again = {5} if name == "erase" else set()
            self._expect(answer, {0, *RIGHT.get(name, ()), *again})
            self.oracle.perhaps(*EFFECTS.get(name, ()))
            self._compare(name, name if answer.code == 0 else "", complete=False)
        else:
            self._ended(answer)

    def _has_done(self, job: str) -> None:
        """Whatever part of a job that runs it has done by now stands: what is said later does not take it back."""
        self.oracle.real, self.oracle.now = time.time(), self.world.now().timestamp()
        self.oracle.perhaps(*EFFECTS[job])
        self._look()

    def word_later(self) -> None:
        self.world.offset += timedelta(days=1)
        self.oracle.now = self.world.now().timestamp()
        self.oracle.remember()

    def word_rotate(self) -> None:
        keys = self.world.keys
        new = f"key {len(self.schedule)} of more than 32 letters as well"
        keys["tombstones"] = [new, *(keys["tombstones"] or keys["hmac"])]
        keys["hmac"] = self.world.rotated(new)
        self.import_all = True

    def word_revoke(self) -> None:
        self._expect(self.world.run("ingest", "--batch", str(self._batch_file("part", "revoked"))), {0})
        self.oracle.revoke("part", time.time())
        self.oracle.remember()

    def word_assess_batch(self) -> None:
        self._assess(self.clock())

    def word_assess_batch_ahead(self) -> None:
        self._assess(self.clock() + DAY)

    def word_give_batch(self) -> None:
        self._assess(FIRST_ASSESSED)

    def _assess(self, dated: float) -> None:
        self.oracle.assess("part", dated)
        # That it is too old to count is an error, though it is on record.
        void = self.oracle.batches["part"].dated <= self.oracle.batches["part"].void_until
        answer = self.world.run("ingest", "--batch", str(self._batch_file("part", "assessed", dated)))
        self._expect(answer, {int(void)})
        self.oracle.remember()

    def word_outlaw(self) -> None:
        self.world.know_law(ABROAD, known=False)
        self.oracle.lawless.add(ABROAD)

    def word_allow(self) -> None:
        self.world.know_law(ABROAD, known=True)
        self.oracle.lawless.discard(ABROAD)
        self.oracle.remember()

    def word_erase_batch(self) -> None:
        self.oracle.ask("batch", "part", time.time())
        self._ended(self.world.run("erase", "--batch", "part"))

    def word_back_up(self) -> None:
        self.world.back_up("b")
        self.backup = copy.deepcopy((self.oracle.pictures, self.oracle.records))

    def word_restore(self, what: str) -> None:
        if self.backup is None or not (self.world.folder / "backups" / "b" / "warehouse").exists():
            return
        for name in (what, *BESIDE.get(what, ())):
            self.world.restore("b", name)
        self.restored, self.kept_with, self.must_go, self.last_under = True, {}, {}, {}
        if what == "index.db":
            self._say_what_is_lost()
        pictures, _ = copy.deepcopy(self.backup)
        if what == "images":
            self.oracle.pictures = pictures
        self._compare(f"restore {what}", "")

    def word_lose(self, what: str = "") -> None:
        """The live collection, or a table while a job runs."""
        if what:
            self._lose_table(*what.split(">"))
            return
        from jobs.settings import load_settings

        index = self.world._shared_index(load_settings(str(self.world.config)))
        live = index.alias_target("faces")
        if live:
            index.drop_alias("faces")
            index.drop(live)
        self._say_what_is_lost(after="erase")

    def _lose_table(self, table: str, job: str) -> None:
        self.world.remove_table(table)
        self.oracle.lose(table)
        self.must_go, self.last_under = {}, {}
        if table == "images":
            self.kept_with = {}
        answer = self.world.run(job)
        # That there is no record, or that requests wait for what leads to pictures.
        self._expect(answer, {0, 3, *RIGHT.get(job, ())})
        self.oracle.real, self.oracle.now = time.time(), self.world.now().timestamp()
        if answer.code in {0, 3, *RIGHT.get(job, ())}:
            for effect in EFFECTS.get(job, ()):
                getattr(self.oracle, effect)()
        else:
            self.oracle.perhaps(*EFFECTS.get(job, ()))
        self._compare(f"{job} without {table}", "")
        self.import_all, self.ingest_all = table != "images", table == "images"

    def _say_what_is_lost(self, *, after: str = "") -> None:
        """As an operator does: no job can tell a collection that is gone from one that lies in another index.

        ``after``: a job that must not be content without it.
        """
        from jobs.runs.stores import own_collections, unaccounted

        with self.world.as_job() as job:
            here = own_collections(job.warehouse, job.settings, self.world._shared_index(job.settings))
            lost = unaccounted(job.warehouse, here)
        if lost and after:
            self._expect(self.world.run(after), {5})
            self.oracle.perhaps(*EFFECTS.get(after, ()), destroyed=False)
        if lost:
            self._ended(self.world.run("erase", *(part for name in lost for part in ("--lost", name))))

    def word_same(self, job: str) -> None:
        answer = self.world.run(job, "--run-id", f"same-{job}")
        if job == "sync":
            # What it has embedded under this id it does not embed again.
            self._resumed(answer)
        else:
            self._ended(answer)

    def word_elsewhere(self, job: str) -> None:
        """Nothing is complete while an index that is on record is not looked at, and nothing has gone from a table."""
        live = self._live_on_record()
        answer = self.world.run(job, "--set", f"milvus.uri={self.world.folder / 'elsewhere.db'}")
        self._expect(answer, {5} if live else {0, 5, *RIGHT.get(job, ())})
        self.oracle.perhaps(*EFFECTS.get(job, ()), destroyed=answer.code != 5)
        if live:
            # Nobody can say that what is there is gone.
            self._expect(self.world.run("erase", "--lost", live), {2})
        self._compare(f"{job} elsewhere", "")

    def _live_on_record(self) -> str | None:
        """The live collection; none if it was given up, or dropped, and is only there again from a backup."""
        from jobs.runs.stores import unaccounted

        with self.world.as_job() as job:
            live: str | None = self.world._shared_index(job.settings).alias_target("faces")
            return live if live in unaccounted(job.warehouse, {}) else None

    def word_resume(self) -> None:
        if self.killed is not None:
            name, run_id = self.killed
            self.killed = None
            # It goes on with the pictures that were there when it began: of others only that nothing wrong is served.
            self._resumed(self.world.run(name, "--run-id", run_id))

    def _resumed(self, answer: Answer) -> None:
        # What it had made may be gone (a lost collection, a restored index): that it says so is right.
        if "unforeseen" in answer.message:
            self._found(12, f"{answer.job} resumed ends in an unforeseen error", answer.message[:300])
        well = self._effects(answer)
        self._compare(answer.job, answer.job if well else "", complete=False)

    def word_night(self) -> None:
        run_id = f"n{len(self.schedule)}"
        for name in ("embed", "load", "verify", "promote"):
            answer = self.world.run(name, "--run-id", run_id)
            if answer.code:
                break
        self._ended(answer)

    def _effects(self, answer: Answer, *, busy: bool = False, oracle: Oracle | None = None) -> bool:
        """Tell the oracle what a job promises, if it ended well; else that it may have done any part of it.

        ``busy``: another job has the lease.
        """
        oracle = oracle or self.oracle
        oracle.real, oracle.now = time.time(), self.world.now().timestamp()
        effects = EFFECTS.get(answer.job, ())
        well = answer.code in {0, *DONE.get(answer.job, ())}
        if well and not (busy and answer.job == "sync"):
            for effect in effects:
                getattr(oracle, effect)()
        elif not well:
            oracle.perhaps(*effects)
        return well

    def _ended(self, answer: Answer) -> None:
        well = self._effects(answer)
        if answer.code != -9:
            self._expect(answer, {0, *RIGHT.get(answer.job, ())})
        self._compare(answer.job, answer.job if well else "")

    def _expect(self, answer: Answer, codes: set[int]) -> None:
        if answer.code not in codes:
            self._found(12, f"{answer.job} ends with {answer.code}", answer.message[:300])

    # --- the comparison ---

    def _found(self, guarantee: int, what: str, where: str, cell: str = "") -> None:
        history = self.history.only(cell, len(self.schedule)) if cell else self.history
        # The first job follows the first ingest; a rule comes before the job of its place.
        path = " → ".join(told(self.cells[cell], self.schedule)) if cell else " → ".join(self.schedule)
        finding = Finding(guarantee, what, where, cell, path, history)
        if finding.kind not in {f.kind for f in self.findings}:
            self.findings.append(finding)
            _LOG.info("%s", finding)

    def _cell(self, name: str) -> str:
        return name.rsplit("-", 1)[0]

    def _compare(self, after: str, well: str, *, complete: bool = True) -> None:
        """Everything that is there against the oracle. ``well``: the job, if it ended well; ``complete``: and whole."""
        oracle = self.oracle
        self.compared += 1
        if well in CLEAN_EVERYWHERE:
            self.restored = False
        seen = self._look()
        # Also whom the job itself has cleared the way for: another was erased who had been recorded beside them.
        oracle.remember()
        self._faces(seen, well, complete=complete)
        self._records(seen)
        if well in EFFECTS:
            self._physically()
        self._vectors(seen, well if after == well and complete else "")
        if well in {*CLEAN_EVERYWHERE, "sync"} or after.startswith("restore") or " inside " in after:
            self._proofs(seen)
        self._note_kept(seen)

    def _look(self) -> Seen:
        """What is there: its pictures against the oracle; then it settles what that was not sure of."""
        seen = self.observe()
        self._pictures(seen)
        self.oracle.adopt(seen.pictures, seen.records, seen.links)
        return seen

    def _pictures(self, seen: Seen) -> None:
        oracle = self.oracle
        for picture_id, content in seen.pictures.items():
            stored = oracle.pictures.get(picture_id)
            cell = self._cell(picture_id)
            if stored is None and not self.restored:
                erased = picture_id in oracle.erased_ids or content in oracle.erased_contents
                self._found(9 if erased else 7, "a picture is there that should be gone", "images", cell)
            elif stored is not None and content != stored.content and picture_id not in oracle.unsure_pictures:
                self._found(6, "a picture has other bytes than it was last ingested with", "images", cell)
        for picture_id in oracle.pictures:
            if picture_id not in seen.pictures and picture_id not in oracle.unsure_pictures:
                self._found(9, "a picture is gone that nobody asked to erase", "images", self._cell(picture_id))
        there = _by_picture(seen)
        for picture_id, (content, labels) in self.kept_with.items():
            if oracle.kept(picture_id) and seen.pictures.get(picture_id) != content:
                self._found(7, "a picture that is held, or may be, was destroyed", "images", self._cell(picture_id))
            elif oracle.kept(picture_id) and labels - there.get(picture_id, set()):
                self._found(7, "a face that is held, or may be, was destroyed", "embeddings", self._cell(picture_id))

    def _note_kept(self, seen: Seen) -> None:
        if self.oracle.blind:
            # Nobody can tell what is held, so it is all that was.
            return
        there = _by_picture(seen)
        self.kept_with = {p: (c, there.get(p, set())) for p, c in seen.pictures.items() if self.oracle.kept(p)}

    def _records(self, seen: Seen) -> None:
        oracle = self.oracle
        for record_id in set(seen.records) - set(oracle.records):
            if not self.restored:
                self._found(13, "a record is there that should be gone", "processing_basis", self._cell(record_id))
        for record_id in set(oracle.records) - set(seen.records):
            self._found(9, "a record is gone that nobody asked to erase", "processing_basis", self._cell(record_id))

    def _faces(self, seen: Seen, well: str, *, complete: bool) -> None:
        oracle = self.oracle
        for key, (picture_id, _) in seen.faces.items():
            self.keys.setdefault(key, picture_id)
        served = {picture_id: oracle.served(picture_id) for picture_id in oracle.pictures}
        places: dict[str, dict[int, bytes]] = {"embeddings": {k: label for k, (_, label) in seen.faces.items()}}
        self.were_live |= {seen.live} if seen.live else set()
        for name, faces in seen.collections.items():
            # One that was never live is left to the run that may still complete it, and serves nobody.
            place = "live" if name == seen.live else "standby" if name in self.were_live else "unfinished"
            places[place] = {**places.get(place, {}), **faces}
        for place, faces in places.items():
            clean = (
                (place == "live" and well in CLEAN_LIVE)
                or (place == "standby" and well in CLEAN_EVERYWHERE)
                or (place == "embeddings" and complete and well in {"embed", "reindex", "sync"})
            )
            for key, label in faces.items():
                self._face(place, key, label, served, seen, clean=clean)
        if complete and well in COMPLETE and seen.live is not None:
            self._complete(seen, served)

    def _face(
        self, place: str, key: int, label: bytes, served: dict[str, dict[str, Says]], seen: Seen, *, clean: bool
    ) -> None:
        oracle = self.oracle
        person, content = self.labels.get(label, ("", ""))
        picture_id = self.keys.get(key) or next(iter(sorted(self.copies.get(label, {"?-?"}))))
        cell = self._cell(picture_id)
        if (picture_id, content, person) not in oracle.ever:
            self._found(1, "a face that was never permitted", place, cell)
        says = served.get(picture_id, {}).get(person, Says.NO)
        stored = oracle.pictures.get(picture_id)
        if stored is not None and stored.content != content:
            says = Says.NO
        if clean and says is Says.NO and not (place == "embeddings" and oracle.kept(picture_id)):
            self._found(7 if oracle.on_hold(picture_id) else 8, "a face that is not permitted", place, cell)
        elif clean and place != "embeddings" and key not in seen.faces:
            self._found(9, "a key that no face in the table has", place, cell)
        back = place == "embeddings" and self._is_back(picture_id, seen.under.get(key, ()))
        if not self.restored and not back and self._erased(picture_id, content, person):
            self._found(9 if place != "embeddings" else 11, "an erased face", place, cell)

    def _named(self, picture_id: str, content: str, person: str) -> bool:
        """Whether an erasure that is complete names this, and nothing has brought it back lawfully."""
        oracle = self.oracle
        unsettled = {r.value for r in oracle.requests if r.open}
        if picture_id in oracle.pictures and oracle.kept(picture_id):
            return False
        if (picture_id in oracle.erased_ids and picture_id not in unsettled) or content in oracle.erased_contents:
            return True
        people = oracle.whose(picture_id, person)
        if not people <= set(oracle.erased_people) or people & unsettled:
            return False
        if oracle.is_back_unlinked(picture_id, people):
            # The face is of what they consented to since: until its link is here again, nobody can tell.
            return False
        return oracle.served(picture_id).get(person, Says.NO) is Says.NO

    def _erased(self, picture_id: str, content: str, person: str) -> bool:
        """Whether a face should be gone by now; a copy of an erased picture's bytes waits for the next sweep."""
        oracle = self.oracle
        waits = picture_id in oracle.pictures and oracle.barred(picture_id)
        return not waits and self._named(picture_id, content, person)

    def _is_back(self, picture_id: str, records: Sequence[str]) -> bool:
        """Whether a row stands under records that consent to its picture since their people's erasure.

        Such a row is nothing that was erased; where no record covers its face any more, the next night deletes it.
        """
        known = [self.oracle.records.get(record_id) for record_id in records]
        return bool(known) and all(
            r is not None and picture_id in r.links and self.oracle.given_after(r) for r in known
        )

    def _complete(self, seen: Seen, served: dict[str, dict[str, Says]]) -> None:
        assert seen.live is not None
        there = Counter(
            (self.keys.get(key, "?"), self.labels.get(label, ("", ""))[0])
            for key, label in seen.collections[seen.live].items()
        )
        for picture_id, people in served.items():
            for person, says in people.items():
                if says is Says.YES and not there[picture_id, person]:
                    self._found(9, "a permitted face is missing", "live", self._cell(picture_id))
                if there[picture_id, person] > 1:
                    self._found(9, "a face stands twice", "live", self._cell(picture_id))

    def _physically(self) -> None:
        """No file of the warehouse holds the bytes of a picture that a complete erasure destroyed."""
        oracle = self.oracle
        stays = {stored.content for stored in oracle.pictures.values()}
        gone = oracle.erased_contents - stays
        if not gone:
            return
        for path in (self.world.folder / "warehouse").rglob("*.parquet"):
            try:
                names = set(pq.read_schema(path).names)
                column = "content" if "content" in names else None
                if column is None:
                    continue
                values = pq.read_table(path, columns=[column], partitioning=None).column(0).to_pylist()
            except (OSError, pa.ArrowInvalid):
                continue
            for data in values:
                if data is not None and digest_of(data) in gone:
                    self._found(
                        10, "an erased picture's bytes", path.parent.parent.name, shown_in(data)[0][0].split(" of ")[1]
                    )

    def _vectors(self, seen: Seen, well: str) -> None:
        """Faces under a record that has ended go, whatever else is decided of their picture, and from files as well."""
        oracle = self.oracle
        for label, (picture_id, records) in self.last_under.items():
            if self._over(picture_id, records):
                self.must_go[label] = picture_id, records
        # Also whom another record permits now, and who is there again for it.
        there = {label for _, label in seen.faces.values()}
        self.must_go = {
            label: (p, records)
            for label, (p, records) in self.must_go.items()
            if label not in there and (self._over(p, records) or not set(records) & set(oracle.records))
        }
        # What a zombie wrote, and could not commit, is no part of the table, and stays for some time.
        if well in ENDS and self.must_go and not self.restored and not any("~" in word for word in self.schedule):
            for path in (self.world.folder / "warehouse" / "embeddings").rglob("*.parquet"):
                with contextlib.suppress(OSError, pa.ArrowInvalid, KeyError):
                    rows = pq.read_table(path, columns=["embedding"], partitioning=None).column("embedding")
                    for label in {label_of(vector) for vector in rows.to_pylist()} & set(self.must_go):
                        cell = self._cell(self.must_go[label][0])
                        self._found(10, "the vector of a face whose record has ended", "embeddings", cell)
            self.must_go = {}
        under = {key: records for key, records in seen.under.items() if key in seen.faces}
        self.last_under = {seen.faces[key][1]: (seen.faces[key][0], records) for key, records in under.items()}

    def _over(self, picture_id: str, records: Iterable[str]) -> bool:
        """Whether one of these has ended, and nothing keeps the picture."""
        known = [self.oracle.records[i] for i in records if i in self.oracle.records]
        kept = any(record.kept for record in known) or self.oracle.kept(picture_id)
        return not kept and any(self.oracle.ended(record) is Says.YES for record in known)

    def _proofs(self, seen: Seen) -> None:
        """`verify --erased` and `verify --audit` say what is so."""
        answer = self.world.run("verify", "--erased")
        left = self._left(seen)
        # A restored table does not know the faces that came since, and it is right to say so.
        unknown = self.restored and any(key not in seen.faces for faces in seen.collections.values() for key in faces)
        if bool(answer.code) != bool(left) and not (unknown and answer.code):
            said = "finds something" if answer.code else "finds nothing"
            self._found(
                10, f"verify --erased {said}", "" if left else answer.message[:200], self._cell(left[0]) if left else ""
            )
        audit = self.world.run("verify", "--audit")
        if audit.code:
            self._found(14, f"verify --audit ends with {audit.code}", audit.message[:200])

    def _left(self, seen: Seen) -> list[str]:
        """Cells of which something is there that a complete erasure named."""
        found = [p for p, c in seen.pictures.items() if self._named(p, c, "")]
        table = {key: label for key, (_, label) in seen.faces.items()}
        for faces in (table, *seen.collections.values()):
            for key, label in faces.items():
                person, content = self.labels.get(label, ("", ""))
                picture_id = self.keys.get(key, "?-?")
                if self._named(picture_id, content, person):
                    found.append(picture_id)
        return found

    # --- looking ---

    def observe(self) -> Seen:
        """What is there, read by Spark and by the index's own calls."""
        from pyspark.sql import functions as F

        from jobs.schemas import BASIS_LINKS, EMBEDDINGS, IMAGES, PROCESSING_BASIS
        from jobs.settings import load_settings
        from jobs.tables.store import Warehouse

        warehouse = Warehouse(self.world.spark, str(self.world.folder / "warehouse"), is_path=True, read_only=True)
        queries: list[Callable[[], list[Any]]] = [
            lambda: (
                warehouse.read(IMAGES)
                .select("image_id", F.coalesce(F.sha2("content", 256), F.lit(UNREAD)).alias("c"))
                .collect()
            ),
            lambda: (
                warehouse.read(EMBEDDINGS)
                .select("face_id", "image_id", F.slice("embedding", 1, 128).alias("v"), "basis_record_ids")
                .collect()
            ),
            lambda: warehouse.read(PROCESSING_BASIS).select("record_id", "pii_principal_id").distinct().collect(),
            lambda: warehouse.read(BASIS_LINKS).select("image_id", "record_id").distinct().collect(),
        ]
        with ThreadPoolExecutor(len(queries)) as pool:
            images, faces, records, links = list(pool.map(lambda query: query(), queries))
        index = self.world._shared_index(load_settings(str(self.world.config)))
        collections: dict[str, dict[int, bytes]] = {}
        live = index.alias_target("faces")
        for name in index.list_collections("faces"):
            try:
                index.load(name, timeout=60)
            except Exception:  # noqa: S112 - a killed run's, without an index: nobody can search it
                continue
            here: dict[int, bytes] = {}
            for page in index.keys(name):
                ids, vectors = index.fetch(name, page)
                here |= {int(key): label_of(vector) for key, vector in zip(ids, vectors, strict=True)}
            collections[name] = here
        return Seen(
            {row["image_id"]: row["c"] for row in images},
            {row["face_id"]: (row["image_id"], label_of(row["v"])) for row in faces},
            {row["record_id"]: row["pii_principal_id"] for row in records},
            {(row["image_id"], row["record_id"]) for row in links},
            collections,
            live,
            {row["face_id"]: tuple(row["basis_record_ids"] or ()) for row in faces},
        )


def _by_picture(seen: Seen) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for picture_id, label in seen.faces.values():
        found.setdefault(picture_id, set()).add(label)
    return found


def _by_batch(sent: Sent) -> list[tuple[str, list[tuple[str, bytes]], list[Line]]]:
    """Each batch with its pictures, and the first one with all lines: one ingest each."""
    # Where a row is missing an id is whose picture comes first.
    batches = sorted(dict.fromkeys(batch for _, _, batch in sent.pictures), key=lambda batch: batch == "other")
    batches = batches or (["main"] if sent.lines else [])
    return [
        (batch, [(p, data) for p, data, of in sent.pictures if of == batch], sent.lines if number == 0 else [])
        for number, batch in enumerate(batches)
    ]


def _tell(oracle: Oracle, batch: str, pictures: list[tuple[str, bytes]], lines: list[Line]) -> None:
    """What an ingest brings."""
    if batch not in oracle.batches:
        oracle.assess(batch, FIRST_ASSESSED)
    oracle.begin_ingest()
    for line in lines:
        if line.version is None:
            oracle.import_unreadable(line.record_id)
        else:
            oracle.import_record(line.record_id, line.version)
    for picture_id, data in pictures:
        oracle.ingest_picture(picture_id, digest_of(data), batch)


def _tell_asked(oracle: Oracle, sent: Sent) -> None:
    for kind, value in sent.asked:
        oracle.ask(kind, value, time.time())


def _tell_all(oracle: Oracle, sent: Sent) -> None:
    for part in _by_batch(sent):
        _tell(oracle, *part)
    _tell_asked(oracle, sent)


def _rows(record_id: str, version: Version) -> list[dict[str, str]]:
    """A version as rows of a CSV, one an event."""
    base = {
        "record_id": record_id, "schema_version": "1.0", "subject": version.person, "source_batch_id": version.batch,
        "images": ";".join(version.pictures), "purposes": PURPOSE if version.granted else OTHER_PURPOSE,
        "pii_controllers": "Tests Ltd", "lawful_basis": "eu-gdpr:A6-1-a",
        "special_category_condition": "eu-gdpr:A9-2-a", "collection_method": "uploaded_by_subject",
        "retention_period": "P9Y", "jurisdiction": version.law, "withdrawal_method": "w",
        "impact_assessment": "" if version.lacks else "i", "privacy_notice": "n",
        "face_box": " ".join(str(x) for x in version.box) if version.box else "",
        "legal_hold_ref": "case 1" if version.hold else "",
        "expires_at": _instant(version.expires_at) if version.expires_at is not None else "",
    }  # fmt: skip
    return [{**base, **_event(event)} for event in version.events]


def _event(event: Event) -> dict[str, str]:
    if event.given:
        valid = "P5Y" if event.days is None else f"P{event.days}D"
        state = {"event_type": "explicit_consent", "event_state": "ConsentGiven", "validity_duration": valid}
    else:
        state = {"event_type": "withdrawal", "event_state": "ConsentWithdrawn", "validity_duration": ""}
    return {"event_time": _instant(event.at), **state}


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def play(world: World, history: History, *, stop_at_first: bool = False) -> Player:
    """A whole history from its first ingest on."""
    player = Player(world, history.cells)
    player.begin()
    for word in history.schedule:
        player.step(word)
        if player.findings and stop_at_first:
            break
    return player
