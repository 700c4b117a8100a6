"""The machine by itself, on a world that believes its oracle: every word and rule can be played, and finds nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.histories import stateful
from tests.histories.believing import Believing, Told
from tests.histories.cells import busy
from tests.histories.machine import KEPT, History, Player, Seen
from tests.histories.oracle import Says
from tests.histories.pictures import label_of, vector_of
from tests.histories.schedules import BATCH_WORDS, CUTS, LOST, history_of, schedules
from tests.histories.world import Answer, Killed, World, _Process

pytestmark = pytest.mark.unit


def played(folder: Path, history: History) -> Told:
    player = Told(Believing(folder), history.cells)
    player.begin()
    for word in history.schedule:
        player.step(word)
    return player


@pytest.mark.parametrize("number", range(3))
def test_systematic_histories_can_be_played(tmp_path: Path, number: int) -> None:
    schedule = next(itertools.islice(schedules(number), 1 + number, None))
    player = played(tmp_path, history_of(schedule, number, 40))
    assert not [str(finding) for finding in player.findings]
    assert tuple(player.schedule) == schedule


@pytest.mark.parametrize("word", [f"{n}!{p}{o}" for n, points in CUTS.items() for p in points for o in ("", ">expire")])
def test_a_command_that_is_cut_off_is_given_again(tmp_path: Path, word: str) -> None:
    history = history_of(("reindex", word, "erase", "expire", "reindex"), 3, 12)
    player = played(tmp_path, history)
    assert not [str(finding) for finding in player.findings]


def test_batches_are_assessed_revoked_and_erased_in_every_order(tmp_path: Path) -> None:
    words = [word for pair in itertools.product(BATCH_WORDS, BATCH_WORDS) for word in pair]
    cells = ((KEPT, "boxed", "main", ()), ("c1", "alone", "part", ("again", "", "come back") * 4))
    player = played(tmp_path, History(("reindex", *words), cells))
    assert not [str(finding) for finding in player.findings]


def test_elsewhere_nothing_is_complete(tmp_path: Path) -> None:
    cells = ((KEPT, "boxed", "main", ()), ("c1", "alone", "main", ("forget",)))
    player = played(tmp_path, History(("reindex", "elsewhere erase", "same erase", "same erase"), cells))
    assert not player.findings
    assert ("erase", "--run-id", "same-erase") in player.world.ran
    assert not any(request.open for request in player.oracle.requests)


@pytest.mark.parametrize("table", LOST)
@pytest.mark.parametrize("job", ["erase", "expire", "sync"])
def test_a_table_is_lost_and_filled_again(tmp_path: Path, table: str, job: str) -> None:
    rules = ("change other", "hold", "forget", "deny", "withdraw", "forget picture", "garble")
    cells = [(f"c{n}", "open", "main", ("", rule, "")) for n, rule in enumerate(rules)]
    player = played(tmp_path, History(("reindex", "embed", f"lose {table}>{job}", "erase", "reindex"), tuple(cells)))
    assert not [str(finding) for finding in player.findings]
    assert not player.oracle.lost
    assert all(r.open is (r.value == "c1") for r in player.oracle.requests)
    assert {p for p in player.oracle.pictures if p.startswith("c2")} == {"c2-x"}, "of the other person"


@pytest.mark.parametrize("table", ["basis_links", "processing_basis"])
def test_what_was_held_is_so_while_nobody_can_tell(tmp_path: Path, table: str) -> None:
    cells = ((KEPT, "boxed", "main", ()), ("c1", "boxed", "main", ("hold",)))
    player = played(tmp_path, History(("reindex", "sync", f"lose {table}>sync"), cells))
    content, _ = player.kept_with["c1-x"]
    player.kept_with["c1-x"] = content, {b"a face"}
    assert not player.findings
    player.step("embed")
    assert [(found.guarantee, found.what) for found in player.findings] == [
        (7, "a face that is held, or may be, was destroyed")
    ]


def test_a_row_under_a_consent_given_since_is_nothing_erased_though_no_box_is_about_it_any_more(
    tmp_path: Path,
) -> None:
    rules = ("forget both", "renew all", "swap")
    cells = ((KEPT, "boxed", "main", ()), ("c1", "boxed", "main", rules))
    player = played(tmp_path, History(("reindex", "later", "erase"), cells))
    seen = player.observe()
    (key,) = [key for key, (picture, _) in seen.faces.items() if picture == "c1-x"]
    label = seen.faces[key][1]
    player.step("embed")
    for under, found in ((("c1-r",), []), (("c1-s",), [(11, "an erased face")]), ((), [(11, "an erased face")])):
        player.findings.clear()
        there = replace(seen, under={key: under})
        player._face("embeddings", key, label, {}, there, clean=False)
        assert [(each.guarantee, each.what) for each in player.findings] == found


@pytest.mark.parametrize("at", ["append tombstones", 1])
def test_what_is_done_as_a_job_is_killed_at_its_point(tmp_path: Path, at: str | int) -> None:
    world, done = World(None, tmp_path), []  # type: ignore[arg-type]

    @contextmanager
    def job() -> Iterator[None]:
        yield

    world._job = job  # type: ignore[method-assign]
    for point in (at, None):
        with world.as_job(at=point):
            for name in ("append erasure_requests", "append tombstones", "append erasure_items"):
                world._point(name, None)
                done.append(name)
    assert done == [
        "append erasure_requests",
        "append erasure_requests",
        "append tombstones",
        "append erasure_items",
    ]


@pytest.mark.parametrize("before", ["sync", "expire"])
def test_a_second_sync_has_nothing_to_do_where_nothing_is_said(tmp_path: Path, before: str) -> None:
    """What one who withdrew is due for stays, for others are in it: once it is gone it is not due again."""
    rules = {"c1": ("withdraw",), "c2": ("withdraw", "", "again"), "c3": ("withdraw", "", "renew")}
    cells = ((KEPT, "boxed", "main", ()), *((name, "boxed", "main", of) for name, of in rules.items()))
    player = played(tmp_path, History(("reindex", before), cells))
    player.world.due.append(("expired", "c1-r"))
    player.step("embed")
    player.step("sync")
    assert not player.findings, "that is no second one"
    player.step("sync")
    assert [(found.what, found.cell) for found in player.findings] == [
        ("sync finds something to do directly after sync", "c1")
    ]
    assert player.findings[0].history.schedule == ("reindex", before, "embed", "sync", "sync")
    assert {"c2", "c3"} & player._quiet({"c2": "again"}) == {"c3"}


def test_the_vector_of_a_face_whose_record_has_ended_is_in_no_file(tmp_path: Path) -> None:
    """Another person of the picture is only denied: whatever is decided of it, who withdrew goes."""
    cells = ((KEPT, "boxed", "main", ()), ("c1", "boxed", "main", ("deny", "withdraw other")))
    player = Told(Believing(tmp_path), cells)
    player.begin()
    player.step("reindex")
    player.step("embed")
    assert set(player.last_under.values()) >= {("c1-x", ("c1-s",))}
    vector = vector_of("Person 1 of c1", player.oracle.pictures["c1-x"].content)
    folder = tmp_path / "warehouse" / "embeddings" / "part=0"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"embedding": [vector]}), folder / "rows.parquet")
    player.step("embed")
    assert not player.findings, "it has not to be gone yet"
    player.step("sync")
    assert [(found.guarantee, found.cell) for found in player.findings] == [(10, "c1")]
    player.step("sync")
    assert len(player.findings) == 1


def test_random_histories_are_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stateful, "Player", Told)
    found: list[Player] = []
    make: Any = lambda: Believing(tmp_path)  # noqa: E731
    for number in range(12):
        stateful.play_random(make, found.append, number=number, cells=20)
    assert not [str(finding) for player in found for finding in player.findings]
    assert len({tuple(player.schedule) for player in found}) > 3
    assert len({word for player in found for word in player.schedule}) > 10


def test_whom_an_erasure_clears_the_way_for_may_be_there_after_it(tmp_path: Path) -> None:
    """Beside somebody whose record is for former bytes nobody is permitted without a box: until that one is erased."""
    cells = ((KEPT, "boxed", "main", ()), ("c1", "hidden", "main", ("change and again", "forget other")))
    player = played(tmp_path, History(("reindex", "embed", "reindex"), cells))
    assert not [str(finding) for finding in player.findings]
    picture = player.oracle.pictures["c1-x"].content
    assert label_of(vector_of("Person 0 of c1", picture)) in player.observe().collections["live"].values()


def test_what_was_cut_off_destroys_nothing_that_was_held_before_its_links_were_lost(tmp_path: Path) -> None:
    cells = [(f"c{n}", "hidden", "main", ("forget both", "hold other", "", "again")) for n in range(8)]
    words = ("reindex", "expire!purge", "embed", "lose basis_links>sync", "embed", "sync")
    player = played(tmp_path, History(words, ((KEPT, "boxed", "main", ()), *cells)))
    assert not [str(finding) for finding in player.findings]
    assert len(player.kept_with) > 1


@pytest.mark.parametrize("unclear", [True, False])
def test_a_picture_that_has_ended_takes_the_faces_of_its_copies_along(tmp_path: Path, unclear: bool) -> None:
    """What showed several people is so in every copy, if it has expired; not if nobody knows why it is gone."""
    cells = ((KEPT, "boxed", "main", ()), ("c1", "open", "main", ("mistake", "resend")))
    player = played(tmp_path, History(("reindex", "embed", "reindex"), cells))
    oracle, copied = player.oracle, player.oracle.pictures["c1-n1"].content
    oracle.unsure_pictures = {"c1-x"}
    oracle.unclear = set(oracle.unsure_pictures) if unclear else set()
    player.rng.seed(1)
    seen = player.observe()
    assert (oracle.pictures["c1-x"].content, "c1-x" in seen.pictures) == (copied, False)
    assert ("c1-n1" in {picture for picture, _ in seen.faces.values()}) is unclear
    player.rng.seed(1)
    player.step("reindex")
    assert not [str(finding) for finding in player.findings]
    assert set(oracle.served("c1-n1").values()) == {Says.MAYBE if unclear else Says.NO}


def test_a_kill_stops_at_what_side_threads_do(tmp_path: Path) -> None:
    world = World(None, tmp_path)  # type: ignore[arg-type]
    world._processes.append(_Process.stopped("delete images"))

    def work(name: str) -> None:
        world._point(name, None)

    with ThreadPoolExecutor(1) as pool:
        ended = [pool.submit(work, name).exception() for name in ("delete embeddings", "delete images", "delete links")]
    assert [type(end) for end in ended] == [type(None), Killed, Killed]


class Overtaken(Believing):
    """Its `reindex` carries out erasures: before the point at which ``then`` happens to it, or ``late``: after it."""

    def __init__(self, folder: Path, *, late: bool) -> None:
        super().__init__(folder)
        self.late, self.gone = late, set[str]()

    def run(
        self, name: str, *arguments: str, at: str | int | None = None, then: Callable[[], None] | None = None
    ) -> Answer:
        if then is None:
            return super().run(name, *arguments, at=at)
        if not self.late:
            self._carry_out()
        then()
        if self.late:
            self._carry_out()
        return Answer(name, 5, {"message": "another run took over"}, 0.0)

    def _carry_out(self) -> None:
        self.gone = {request.value for request in self.oracle.requests if request.open}


class Seeing(Told):
    """It sees that pictures are gone, also where the oracle is sure that they are not."""

    def observe(self) -> Seen:
        return self._seen_by(self.oracle, self.world.gone)


def overtaken(folder: Path, *, late: bool, other: str, rules: tuple[str, ...]) -> Player:
    cells = ((KEPT, "boxed", "main", ()), ("c1", "twice", "main", rules))
    player = Seeing(Overtaken(folder, late=late), cells)
    player.begin()
    for word in ("reindex", "later", f"reindex~append image_status>{other}"):
        player.step(word)
    return player


def test_what_a_job_has_erased_before_another_took_over_no_later_hold_takes_back(tmp_path: Path) -> None:
    player = overtaken(tmp_path, late=False, other="sync", rules=("forget picture", "hold"))
    assert not [str(finding) for finding in player.findings]
    assert set(player.oracle.pictures) == {f"{KEPT}-x"}
    assert player.oracle.records["c1-r"].newest.hold


@pytest.mark.parametrize("rule", ["hold", ""])
def test_what_a_job_erases_after_another_took_over_is_found(tmp_path: Path, rule: str) -> None:
    player = overtaken(tmp_path, late=True, other="embed", rules=("forget picture", rule))
    assert [(found.guarantee, found.cell) for found in player.findings] == [(9, "c1")]


def test_a_word_at_a_point_that_its_job_never_came_to_is_told(tmp_path: Path) -> None:
    class Idle(Believing):
        def run(self, name: str, *arguments: str, **_: Any) -> Answer:
            return super().run(name, *arguments)

    words = ("reindex", "reindex~append embeddings>sync", "expire!purge", "ingest!append images", "embed^purge>sync")
    player = Told(Idle(tmp_path), ((KEPT, "boxed", "main", ()), ("c1", "alone", "main", ("", "", "resend"))))
    player.begin()
    for word in words:
        player.step(word)
    assert not player.findings
    assert player.unmet == list(words[1:])


@pytest.mark.parametrize("word", ["reindex~append image_status>sync", "expire!purge", "embed^append embeddings>sync"])
def test_beside_a_finding_at_a_point_others_give_its_job_something_to_do(word: str) -> None:
    """Alone its cell would leave a job nothing to write: it would end before that point, and show nothing."""
    cells = tuple((f"c{n}", "alone", "main", ("hold", "forget")) for n in range(3))
    history = History(("reindex", "later", word), cells)
    reduced = history.only("c1", 3)
    assert [name for name, *_ in reduced.cells] == ["c1", KEPT, *(name for name, *_ in busy(3))]
    assert reduced.only("c1", 3) == reduced, "replayed it is reduced to itself"
    assert [name for name, *_ in history.only("c1", 2).cells] == ["c1", KEPT], "up to there nothing happens at a point"


def test_before_each_job_something_is_new_somebody_is_to_go_and_somebody_has_ended() -> None:
    rules = [rules for *_, rules in busy(6)]
    wanted = {"come back", "forget", "withdraw both", "change and again", "garble"}
    assert [set(before) for before in zip(*rules, strict=True)] == [wanted] * 5
