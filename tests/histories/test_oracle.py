"""The oracle by itself: each promise that it knows, on the smallest history that tells."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from tests.histories.oracle import DAY, UNREAD, Event, Oracle, Record, Says, Stored, Version, covered

pytestmark = pytest.mark.unit

LEFT, RIGHT = (0.0, 0.0, 40.0, 40.0), (60.0, 0.0, 99.0, 40.0)
GIVEN = Version("ann", "b", ("x",), (Event(1.0, True),))
#: Somebody else's, for a picture that is not there yet.
KEEP = Version("keeper", "b", ("k",), (Event(1.0, True),))
BOBS = replace(GIVEN, person="bob", box=LEFT)


@pytest.fixture
def oracle() -> Oracle:
    """Ann's picture x under record r, ingested at 10."""
    made = Oracle()
    made.now = made.real = 10.0
    made.shows = {
        "x1": (("ann", LEFT),),
        "x2": (("ann", LEFT),),
        "s1": (("ann", LEFT), ("bob", RIGHT)),
        "b1": (("bob", LEFT),),
        "x3": (("ann", LEFT),),
    }
    made.assess("b", 1.0)
    take(made, r=GIVEN, x="x1")
    return made


def take(oracle: Oracle, **given: Version | str | None) -> None:
    """One ingest: records (None: a line of it that cannot be read) before pictures."""
    oracle.begin_ingest()
    for name, version in given.items():
        if version is None:
            oracle.import_unreadable(name)
        elif isinstance(version, Version):
            oracle.import_record(name, version)
    for name, content in given.items():
        if isinstance(content, str):
            oracle.ingest_picture(name, content, "b")


def ann(oracle: Oracle, picture: str = "x") -> Says:
    return oracle.served(picture).get("ann", Says.NO)


def ended(version: Version, at: float) -> Version:
    return replace(version, events=(*version.events, Event(at, False)))


def test_a_consent_permits_and_a_withdrawal_ends_it_for_good(oracle: Oracle) -> None:
    assert ann(oracle) is Says.YES
    take(oracle, r=ended(GIVEN, 5.0))
    assert ann(oracle) is Says.NO
    take(oracle, r=GIVEN)
    assert ann(oracle) is Says.NO, "a later version that leaves out a withdrawal does not undo it"
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(6.0, True))))
    assert ann(oracle) is Says.YES


def test_of_three_versions_the_third_counts_though_it_is_the_first_again(oracle: Oracle) -> None:
    denied = replace(GIVEN, granted=False)
    for version, says in ((denied, Says.NO), (GIVEN, Says.YES), (denied, Says.NO), (GIVEN, Says.YES)):
        take(oracle, r=version)
        assert ann(oracle) is says


def test_an_unreadable_line_refuses_each_time_until_a_later_version(oracle: Oracle) -> None:
    for number in (1, 2):
        take(oracle, r=None)
        assert ann(oracle) is Says.NO
        take(oracle, r=replace(GIVEN, expires_at=100.0 + number))
        assert ann(oracle) is Says.YES
    take(oracle, r=None)
    take(oracle, r=replace(GIVEN, expires_at=102.0))
    assert ann(oracle) is Says.YES, "the same content again, after it"
    take(oracle, r=None)
    assert ann(oracle) is Says.NO


def suspends_an_erasure(oracle: Oracle) -> None:
    """What is on record of `r` does so until a version without a hold is read."""
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert set(oracle.pictures) == {"x"}
    assert oracle.requests[0].open
    take(oracle, r=ended(GIVEN, 5.0))
    oracle.carry_out()
    assert not oracle.pictures
    assert not oracle.requests[0].open


def test_a_line_that_could_not_be_read_suspends_destruction_as_a_hold_does(oracle: Oracle) -> None:
    take(oracle, r=ended(GIVEN, 5.0))
    take(oracle, r=None, x="x2")
    assert (oracle.due("x"), oracle.pictures["x"].content) == (Says.NO, "x1")
    suspends_an_erasure(oracle)


def test_a_hold_suspends_serving_and_destruction(oracle: Oracle) -> None:
    take(oracle, r=replace(ended(GIVEN, 5.0), hold=True))
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.NO)
    suspends_an_erasure(oracle)


def test_expiry_is_erasure_and_a_later_permission_brings_it_back(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, expires_at=20.0))
    assert (ann(oracle), oracle.due("x")) == (Says.YES, Says.NO)
    oracle.now = oracle.real = 20.0
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.YES)
    oracle.expire()
    take(oracle, x="x1")
    assert not oracle.pictures
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(21.0, True))), x="x1")
    oracle.now = 30.0
    assert ann(oracle) is Says.YES


def test_whoever_came_back_is_back_where_the_link_to_their_picture_is_lost(oracle: Oracle) -> None:
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    oracle.now = 13.0
    take(oracle, n=replace(GIVEN, events=(Event(12.0, True),), pictures=("z",)), z="z1")
    assert not oracle.is_back_unlinked("z", {"ann"})
    oracle.lose("basis_links")
    assert oracle.is_back_unlinked("z", {"ann"})
    assert not oracle.is_back_unlinked("z", {"bob"})


def test_other_bytes_for_what_is_there_with_a_backup_need_a_permission_given_since(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, expires_at=20.0))
    former = copy.deepcopy(oracle.pictures)
    oracle.now = oracle.real = 20.0
    oracle.expire()
    oracle.pictures = former
    take(oracle, x="x2")
    assert oracle.unsure_pictures == {"x"}
    oracle.adopt({"x": "x1"}, ["r"], [("x", "r")])
    assert oracle.pictures["x"].content == "x1"


def test_what_was_erased_does_not_come_back(oracle: Oracle) -> None:
    oracle.ask("person", "ann", 11.0)
    assert ann(oracle) is Says.NO
    oracle.carry_out()
    assert not oracle.pictures
    assert not oracle.records
    take(oracle, r=GIVEN, x="x1", y="x1", z="x2")
    assert set(oracle.pictures) == {"z"}, "neither the id nor the bytes; another encoding is stored, and not permitted"
    assert not oracle.records
    again = replace(GIVEN, events=(Event(12.0, True),), pictures=("z",))
    oracle.now = 13.0
    take(oracle, n=again)
    assert ann(oracle, "z") is Says.YES


def test_a_hold_that_comes_after_its_picture_was_erased_keeps_nothing(oracle: Oracle) -> None:
    """By a job that was overtaken afterwards: that it did so is settled before what is said since."""
    oracle.ask("picture", "x", 11.0)
    oracle.perhaps("carry_out")
    oracle.adopt({}, ["r"], [])
    take(oracle, r=replace(GIVEN, hold=True))
    oracle.carry_out()
    assert not oracle.pictures
    assert not oracle.unsure_pictures
    assert not oracle.requests[0].open


def test_a_hold_keeps_what_an_erasure_that_waits_is_found_by(oracle: Oracle) -> None:
    bob = replace(GIVEN, person="bob", pictures=("s", "x"), hold=True)
    take(oracle, r=replace(GIVEN, pictures=("s",)), b=bob, s="s1")
    oracle.ask("person", "ann", 11.0)
    for _ in range(2):
        oracle.carry_out()
        assert (set(oracle.records), oracle.requests[0].open) == ({"r", "b"}, True)
    take(oracle, b=replace(bob, hold=False))
    oracle.carry_out()
    assert (set(oracle.records), oracle.requests[0].open) == ({"b"}, False)


def test_a_link_holds_for_the_content_that_it_was_given_for(oracle: Oracle) -> None:
    take(oracle, x="x2")
    assert ann(oracle) is Says.NO
    take(oracle, r=GIVEN)
    assert ann(oracle) is Says.YES
    take(oracle, x="x1")
    assert ann(oracle) is Says.MAYBE, "the old content again, under the old link"
    take(oracle, r=GIVEN, x="x2")
    assert ann(oracle) is Says.YES, "what is given beside pictures is given for these"


def test_an_id_of_another_batch_is_not_taken(oracle: Oracle) -> None:
    oracle.begin_ingest()
    oracle.ingest_picture("x", "x2", "c")
    assert oracle.pictures["x"].content == "x1"


def test_no_bystander_is_covered() -> None:
    shown = (("ann", LEFT), ("bob", RIGHT))
    assert covered(shown, [GIVEN]) == set()
    assert covered(shown, [GIVEN, replace(GIVEN, person="bob")]) == {"ann", "bob"}
    assert covered(shown, [replace(GIVEN, box=LEFT)]) == {"ann"}


def test_of_a_shared_picture_exactly_that_persons_face_goes(oracle: Oracle) -> None:
    mine, theirs = replace(GIVEN, pictures=("s",), box=LEFT), replace(GIVEN, person="bob", pictures=("s",), box=RIGHT)
    take(oracle, a=mine, o=theirs, s="s1")
    assert set(oracle.served("s").values()) == {Says.YES}
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert oracle.served("s") == {"ann": Says.NO, "bob": Says.YES}
    oracle.ask("person", "bob", 12.0)
    oracle.carry_out()
    assert not oracle.pictures


def test_without_boxes_nobody_is_served_beside_one_who_withdrew_or_was_erased(oracle: Oracle) -> None:
    """Of both people the detector finds one, and nobody knows which."""
    mine, theirs = replace(GIVEN, pictures=("g",)), replace(GIVEN, person="bob", pictures=("g",))
    take(oracle, a=mine, o=theirs, g="x2")
    assert ann(oracle, "g") is Says.YES
    take(oracle, o=ended(theirs, 5.0))
    assert (ann(oracle, "g"), oracle.due("g")) == (Says.NO, Says.NO)
    take(oracle, o=replace(theirs, events=(Event(6.0, True),)))
    assert ann(oracle, "g") is Says.YES
    oracle.ask("person", "bob", 11.0)
    assert ann(oracle, "g") is Says.NO
    oracle.carry_out()
    take(oracle, n=replace(mine, events=(Event(12.0, True),)), h="x2")
    oracle.now = 13.0
    assert set(oracle.pictures) == {"x", "g", "h"}
    assert ann(oracle, "g") is Says.NO
    take(oracle, k=replace(mine, pictures=("g", "h"), box=LEFT))
    assert (ann(oracle, "g"), ann(oracle, "h")) == (Says.YES, Says.YES)


def test_a_revoked_batch_goes_whatever_records_say(oracle: Oracle) -> None:
    oracle.revoke("b", 11.0)
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.YES)


def test_records_of_an_erased_batch_are_not_taken_until_it_is_assessed_since(oracle: Oracle) -> None:
    oracle.ask("batch", "b", 11.0)
    oracle.sweep()
    take(oracle, r=GIVEN)
    assert not oracle.records
    oracle.assess("b", 11.0)
    take(oracle, r=GIVEN)
    assert not oracle.records, "not later than it was erased"
    oracle.assess("b", 12.0)
    take(oracle, r=GIVEN)
    assert set(oracle.records) == {"r"}


def test_an_erased_batch_that_is_assessed_and_revoked_again_is_as_if_it_was_not_assessed(oracle: Oracle) -> None:
    oracle.import_record("keep", replace(KEEP, batch="c"))
    oracle.ingest_picture("k", "k1", "c")
    oracle.ask("batch", "b", 11.0)
    oracle.sweep()
    oracle.assess("b", 12.0)
    take(oracle, r=GIVEN)
    oracle.revoke("b", 13.0)
    take(oracle, o=replace(GIVEN, pictures=("z",)), z="x3")
    assert set(oracle.records) == {"keep", "r"}
    oracle.sweep()
    assert set(oracle.records) == {"keep"}
    oracle.assess("b", 14.0)
    take(oracle, r=GIVEN)
    assert set(oracle.records) == {"keep", "r"}


def test_a_consent_dated_ahead_is_not_given_since_an_erasure(oracle: Oracle) -> None:
    ahead = replace(GIVEN, events=(Event(99.0, True),))
    take(oracle, r=ahead)
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    take(oracle, r=ahead)
    assert not oracle.records


def test_an_erasure_that_a_hold_suspends_leaves_what_was_consented_to_since(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, hold=True))
    oracle.ask("person", "ann", 11.0)
    take(oracle, q=replace(GIVEN, pictures=("y",), events=(Event(12.0, True),)), y="x2")
    oracle.carry_out()
    assert set(oracle.pictures) == {"x", "y"}
    oracle.ask("person", "ann", 13.0)
    oracle.carry_out()
    assert set(oracle.pictures) == {"x"}
    assert oracle.requests[0].open


def test_what_a_killed_job_did_is_settled_by_what_is_there(oracle: Oracle) -> None:
    take(oracle, q=replace(GIVEN, pictures=("y",)), y="x2")
    oracle.ask("person", "ann", 11.0)
    oracle.perhaps("carry_out")
    assert oracle.unsure_pictures == {"x", "y"}
    oracle.adopt({"y": "x2"}, ["r", "q"], [("y", "q")])
    assert set(oracle.pictures) == {"y"}
    assert set(oracle.records["q"].links) == {"y"}
    assert oracle.requests[0].open
    oracle.carry_out()
    assert not oracle.pictures


def test_what_a_killed_job_destroyed_is_barred_or_not(oracle: Oracle) -> None:
    take(oracle, r=ended(GIVEN, 5.0), k=KEEP)
    oracle.perhaps("expire")
    oracle.adopt({}, ["r"], [])
    take(oracle, x="x1")
    assert oracle.unsure_pictures == {"x"}
    oracle.adopt({"x": "x1"}, ["r"], [])
    oracle.ask("picture", "x", 11.0)
    oracle.perhaps("carry_out")
    oracle.adopt({}, ["r"], [])
    take(oracle, y="x1")
    assert oracle.unsure_pictures == {"y"}, "its bytes may be barred"


def test_what_a_backup_brings_back_goes_at_the_next_pass(oracle: Oracle) -> None:
    take(oracle, k=KEEP)
    before = dict(oracle.pictures)
    oracle.ask("picture", "x", 11.0)
    oracle.carry_out()
    oracle.pictures = before
    assert ann(oracle) is Says.NO
    oracle.carry_out()
    assert oracle.pictures, "there is no request for it"
    oracle.sweep()
    assert not oracle.pictures


def test_of_two_validities_of_one_consent_the_shorter_counts(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True, days=1),)))
    assert ann(oracle) is Says.YES
    oracle.now += DAY
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.YES)
    take(oracle, r=GIVEN)
    assert ann(oracle) is Says.NO, "the longer one again"
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(9.0, True))))
    assert ann(oracle) is Says.YES


def test_a_batch_is_in_force_again_only_by_an_assessment_dated_later(oracle: Oracle) -> None:
    oracle.revoke("b", 11.0)
    for dated, says in ((1.0, Says.NO), (11.0, Says.NO), (12.0, Says.YES), (1.0, Says.MAYBE), (13.0, Says.YES)):
        oracle.assess("b", dated)
        assert ann(oracle) is says, dated
    oracle.assess("b", 99.0)
    oracle.revoke("b", 14.0)
    oracle.assess("b", 15.0)
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.YES), "dated ahead, and revoked since"


def test_a_withdrawal_after_an_erasure_gives_nothing(oracle: Oracle) -> None:
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    for events in ((Event(12.0, False),), (Event(1.0, True), Event(12.0, False))):
        take(oracle, r=replace(GIVEN, events=events))
        assert not oracle.records
    take(oracle, r=replace(GIVEN, events=(Event(12.0, True), Event(13.0, False))))
    oracle.sweep()
    assert set(oracle.records) == {"r"}, "given since, and withdrawn again"


def test_a_hold_on_who_names_an_erased_picture_keeps_nobody_else_who_names_it(oracle: Oracle) -> None:
    mine, theirs = replace(GIVEN, pictures=("p",)), replace(GIVEN, person="bob", pictures=("p",))
    take(oracle, r=mine, o=theirs, p="p1")
    oracle.ask("picture", "p", 11.0)
    oracle.carry_out()
    take(oracle, r=replace(mine, hold=True), o=replace(theirs, granted=False))
    oracle.ask("person", "bob", 13.0)
    oracle.sweep()
    assert ("r" in oracle.records, "o" in oracle.records) == (True, False)


def test_a_face_may_be_theirs_to_whom_its_box_was_given(oracle: Oracle) -> None:
    mine, theirs = replace(GIVEN, pictures=("s",), box=LEFT), replace(GIVEN, person="bob", pictures=("s",), box=RIGHT)
    take(oracle, a=mine, o=theirs, s="s1")
    assert oracle.whose("s", "ann") == {"ann"}
    take(oracle, a=replace(mine, box=RIGHT), o=replace(theirs, box=LEFT))
    assert oracle.whose("s", "ann") == {"ann", "bob"}
    take(oracle, a=ended(replace(mine, box=RIGHT), 5.0))
    assert oracle.served("s") == {"ann": Says.YES, "bob": Says.NO}, "ann's box is bob's now, and bob consents"
    oracle.lose("basis_links")
    assert oracle.whose("s", "ann") == {"ann", "bob"}, "nothing tells any more whose box was whose"


def test_a_picture_whose_row_was_missing_is_permitted_as_before(oracle: Oracle) -> None:
    del oracle.pictures["x"]
    oracle.sweep()
    take(oracle, x="x1")
    assert ann(oracle) is Says.YES


def test_what_a_pass_that_was_cut_off_has_begun_may_go_though_it_is_renewed(oracle: Oracle) -> None:
    take(oracle, r=ended(GIVEN, 5.0))
    oracle.perhaps("sweep", "expire")
    oracle.adopt({"x": "x1"}, ["r"], [("x", "r")])
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(6.0, True))))
    assert ann(oracle) is Says.YES
    oracle.carry_out()
    assert oracle.unsure_pictures == {"x"}
    oracle.adopt({"x": "x1"}, ["r"], [("x", "r")])
    oracle.carry_out()
    assert not oracle.unsure_pictures, "once"


def test_an_expiry_that_destroyed_nothing_is_taken_back_where_a_permission_is_renewed(oracle: Oracle) -> None:
    take(oracle, r=ended(GIVEN, 5.0))
    oracle.perhaps("sweep", "expire", destroyed=False)
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(6.0, True))))
    oracle.sweep()
    oracle.expire()
    assert (set(oracle.pictures), oracle.unsure_pictures, ann(oracle)) == ({"x"}, set(), Says.YES)


def test_of_a_command_that_was_cut_off_and_given_again_both_ends_are_right(oracle: Oracle) -> None:
    """A withdrawal is imported, or is not, before a pass takes what is due; and then once more."""
    for there in ({"x": "x1"}, {}):
        once, twice = copy.deepcopy(oracle), copy.deepcopy(oracle)
        take(twice, r=ended(GIVEN, 5.0))
        for one in (once, twice):
            one.expire()
            take(one, r=ended(GIVEN, 5.0))
        once.either(twice)
        assert once.unsure_pictures == {"x"}
        once.adopt(there, ["r"], [("x", "r")] if there else [])
        assert (set(once.pictures), ann(once)) == (set(there), Says.NO)
        take(once, x="x1")
        assert once.unsure_pictures == (set() if there else {"x"})


def test_records_of_an_erased_batch_that_are_there_are_swept_until_it_is_assessed_since(oracle: Oracle) -> None:
    oracle.ask("batch", "b", 11.0)
    oracle.sweep()
    for dated, left in ((11.0, set()), (12.0, {"r"})):
        oracle.assess("b", dated)
        oracle.records["r"] = Record([GIVEN])
        oracle.carry_out()
        assert set(oracle.records) == {"r"}, "there is no request for it"
        oracle.sweep()
        assert set(oracle.records) == left


def test_a_second_erasure_while_the_first_waits_counts_from_then(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, hold=True))
    oracle.ask("person", "ann", 11.0)
    since = replace(GIVEN, pictures=("y",), events=(Event(12.0, True),))
    oracle.now = 20.0
    take(oracle, q=since, y="x2")
    assert ann(oracle, "y") is Says.YES
    oracle.ask("person", "ann", 13.0)
    assert ann(oracle, "y") is Says.NO
    oracle.carry_out()
    take(oracle, q=since)
    assert (set(oracle.records), len(oracle.requests)) == ({"r"}, 1)
    take(oracle, q=replace(since, events=(Event(14.0, True),)))
    oracle.carry_out()
    assert set(oracle.records) == {"r", "q"}, "she came back, while the rest waits"


def test_what_comes_in_after_a_batch_was_assessed_again_is_not_of_its_erasure(oracle: Oracle) -> None:
    """A hold keeps the erasure open, and the source is in force again."""
    take(oracle, r=replace(GIVEN, hold=True))
    oracle.ask("batch", "b", 11.0)
    oracle.carry_out()
    take(oracle, o=replace(GIVEN, pictures=("z",)), z="x3")
    assert "o" not in oracle.records, "it is erased"
    oracle.assess("b", 12.0)
    take(oracle, n=replace(GIVEN, pictures=("y",)), y="x2")
    oracle.carry_out(sweep=True)
    assert set(oracle.pictures) == {"x", "y"}
    take(oracle, r=GIVEN)
    oracle.carry_out(sweep=True)
    assert (set(oracle.pictures), set(oracle.records), ann(oracle, "y")) == ({"y"}, {"n"}, Says.YES)


def test_who_was_recorded_for_former_bytes_keeps_no_picture_of_somebody_else(oracle: Oracle) -> None:
    take(oracle, o=replace(GIVEN, person="bob", pictures=("g", "h")), g="s1", h="s1")
    take(oracle, g="x2", h="x3")
    oracle.shows["x3"] = (("ann", LEFT),)
    take(oracle, q=replace(GIVEN, pictures=("g", "h")))
    take(oracle, o=replace(GIVEN, person="bob", pictures=("h",), expires_at=99.0))
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert (set(oracle.pictures), set(oracle.records)) == ({"h"}, {"o"}), "bob was given for what h holds now"
    take(oracle, g="s1")
    assert set(oracle.pictures) == {"h"}, "the id is barred, too"


def test_a_record_in_the_run_that_changes_the_bytes_is_for_the_new_ones(oracle: Oracle) -> None:
    take(oracle, o=BOBS, x="b1")
    assert oracle.served("x") == {"bob": Says.YES}
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert (set(oracle.pictures), set(oracle.records)) == ({"x"}, {"o"}), "ann is not in it any more"


def test_of_a_picture_that_is_somebody_elses_now_only_the_id_goes(oracle: Oracle) -> None:
    """Ann's record alone names x; bob has brought the portrait that came in its place under another id."""
    take(oracle, x="b1", y="b1")
    take(oracle, o=replace(BOBS, pictures=("y",), box=None))
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out(sweep=True)
    oracle.carry_out(sweep=True)
    assert (set(oracle.pictures), oracle.erased_ids, oracle.erased_contents) == ({"y"}, {"x"}, {"x1"})
    assert oracle.served("y") == {"bob": Says.YES}
    take(oracle, z="b1", v="x1")
    assert set(oracle.pictures) == {"y", "z"}


def test_who_is_recorded_for_former_bytes_leaves_no_trace_in_what_is_there_now(oracle: Oracle) -> None:
    take(oracle, x="b1", y="b1")
    take(oracle, o=replace(BOBS, pictures=("x", "y"), box=None))
    assert oracle.served("y") == {"bob": Says.YES}
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert (oracle.left, oracle.erased_contents) == (set(), {"x1"})
    assert oracle.served("x") == oracle.served("y") == {"bob": Says.YES}


@pytest.mark.parametrize("missing", [True, False])
def test_bytes_that_only_links_tell_of_are_barred(oracle: Oracle, missing: bool) -> None:
    """Ann is in b1, where bob was recorded for what stood there before; then the row is missing, or an older one."""
    take(oracle, p=replace(GIVEN, person="bob", pictures=("g",)), g="s1")
    take(oracle, q=replace(GIVEN, pictures=("g",)), g="x2")
    if missing:
        del oracle.pictures["g"]
    else:
        oracle.pictures["g"] = Stored("s1", "b", 2)
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    take(oracle, g="x2")
    oracle.adopt({} if missing else {"g": "s1"}, ["p"], [("g", "p")])
    assert oracle.erased_contents == {"x1", "x2"}
    assert {p: s.content for p, s in oracle.pictures.items()} == ({} if missing else {"g": "s1"})
    take(oracle, g="s1")
    assert oracle.pictures["g"].content == "s1"
    assert "s1" not in oracle.left


def test_a_picture_that_is_not_read_for_a_night_may_be_anybodys_who_is_recorded(oracle: Oracle) -> None:
    """In its place an error page: ann, whom its bytes show, is erased, and it is read again."""
    take(oracle, o=replace(BOBS, pictures=("g",)), g="b1")
    take(oracle, q=replace(GIVEN, pictures=("g",)), g="x2")
    oracle.shows[UNREAD] = ()
    take(oracle, g=UNREAD, x=UNREAD)
    assert (oracle.served("g"), oracle.due("g")) == ({}, Says.NO)
    take(oracle, q=replace(GIVEN, pictures=("g",), expires_at=99.0))
    assert {link.content for link in oracle.records["q"].links["g"]} == {"x2", None}
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert set(oracle.pictures) == {"g"}, "x shows nobody else"
    assert oracle.erased_contents == {"x1", "x2"}
    take(oracle, g="b1")
    assert oracle.served("g") == {"bob": Says.MAYBE}


def test_what_waits_for_bytes_is_bound_to_the_first_that_come(oracle: Oracle) -> None:
    take(oracle, k=replace(GIVEN, pictures=("y",)))
    take(oracle, y="x2")
    del oracle.pictures["y"]
    take(oracle, k=replace(GIVEN, pictures=("y",), expires_at=99.0))
    take(oracle, y="x3")
    assert ann(oracle, "y") is Says.NO, "it was given for others, which are missing"
    take(oracle, k=replace(GIVEN, pictures=("y",), expires_at=98.0), y="x2")
    assert ann(oracle, "y") is Says.YES


def test_what_was_of_one_person_when_it_lapsed_shows_nobody_that_left(oracle: Oracle) -> None:
    take(oracle, o=replace(BOBS, box=None), x="b1")
    take(oracle, o=ended(replace(BOBS, box=None), 5.0))
    oracle.expire()
    assert (oracle.pictures, oracle.left) == ({}, set())


def test_bytes_of_several_people_are_left_and_not_barred_where_the_row_is_missing(oracle: Oracle) -> None:
    mine, theirs = replace(GIVEN, pictures=("g",)), replace(GIVEN, person="bob", pictures=("g",))
    take(oracle, a=mine, o=theirs, g="x2")
    del oracle.pictures["g"]
    oracle.ask("person", "ann", 11.0)
    oracle.carry_out()
    assert ("x2" in oracle.left, "x2" in oracle.erased_contents, "g" in oracle.erased_ids) == (True, False, False)
    oracle.ask("person", "bob", 12.0)
    oracle.carry_out()
    assert "x2" in oracle.erased_contents
    assert "g" in oracle.erased_ids


def test_an_expiry_that_did_not_begin_leaves_no_tombstone(oracle: Oracle) -> None:
    """Both lapse on one day and consent anew; a copy of theirs was in no pass."""
    both = {i: replace(GIVEN, person=who, pictures=("g",)) for i, who in (("a", "ann"), ("o", "bob"))}
    take(oracle, **both, g="s1")
    take(oracle, **{i: ended(version, 5.0) for i, version in both.items()})
    oracle.ask("person", "nobody", 5.5)
    oracle.perhaps("sweep", "expire", destroyed=False)
    assert not oracle.unsure_stones | oracle.loose_ids | oracle.unsure_pictures
    take(oracle, **{i: replace(v, events=(Event(1.0, True), Event(6.0, True))) for i, v in both.items()})
    assert set(oracle.served("g").values()) == {Says.YES}


def test_a_picture_is_due_when_whoever_is_in_it_now_has_ended(oracle: Oracle) -> None:
    """It was ann's; bob's portrait came in its place, and he withdraws."""
    take(oracle, r=replace(GIVEN, expires_at=20.0))
    take(oracle, o=BOBS, x="b1")
    over = copy.deepcopy(oracle)
    over.now = over.real = 20.0
    assert (oracle.due("x"), over.due("x")) == (Says.NO, Says.NO), "ann's consent ends, and bob is in it"
    take(oracle, o=ended(BOBS, 5.0))
    refused = copy.deepcopy(oracle)
    refused.records["r"].versions.append(replace(GIVEN, granted=False))
    assert refused.due("x") is Says.MAYBE
    assert oracle.standing(oracle.records["r"])[0] is oracle.due("x") is Says.YES
    oracle.expire()
    assert not oracle.pictures


@pytest.mark.parametrize("version", [replace(GIVEN, granted=False), None])
def test_a_picture_stays_for_who_is_in_it_and_only_denied_or_unread(oracle: Oracle, version: Version | None) -> None:
    take(oracle, o=ended(replace(BOBS, pictures=("x",)), 5.0))
    take(oracle, r=version)
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.NO)


def test_what_nobody_is_in_is_due_when_all_have_ended(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, expires_at=20.0))
    take(oracle, x="b1")
    assert oracle.due("x") is Says.NO
    oracle.now = oracle.real = 20.0
    assert oracle.due("x") is Says.YES


@pytest.mark.parametrize("changes", [{"lacks": True}, {"law": "CA"}])
def test_what_has_ended_has_whatever_its_form_and_law(oracle: Oracle, changes: dict[str, Any]) -> None:
    oracle.lawless.add("CA")
    take(oracle, r=replace(GIVEN, **changes))
    assert (ann(oracle), oracle.due("x")) == (Says.NO, Says.NO)
    withdrawn, over = copy.deepcopy(oracle), copy.deepcopy(oracle)
    take(withdrawn, r=replace(ended(GIVEN, 5.0), **changes))
    take(over, r=replace(GIVEN, expires_at=9.0, **changes))
    oracle.ask("person", "ann", 11.0)
    assert {one.due("x") for one in (oracle, withdrawn, over)} == {Says.YES}
    take(withdrawn, r=replace(ended(GIVEN, 5.0), hold=True, **changes))
    assert withdrawn.due("x") is Says.NO
    take(over, r=None)
    assert over.due("x") is Says.NO, "nobody knows what it said"


def test_somebody_whose_consent_has_lapsed_comes_back_to_a_shared_picture(oracle: Oracle) -> None:
    theirs = replace(GIVEN, person="bob", pictures=("s",), box=RIGHT)
    take(oracle, a=replace(GIVEN, pictures=("s",), box=LEFT), o=replace(theirs, expires_at=9.0), s="s1")
    oracle.ask("person", "ann", 11.0)
    oracle.sweep()
    oracle.expire()
    assert set(oracle.records) == {"o"}
    assert not oracle.pictures
    oracle.now = oracle.real = 20.0
    take(oracle, o=replace(theirs, events=(Event(1.0, True), Event(12.0, True))), s="s1")
    assert oracle.served("s") == {"ann": Says.NO, "bob": Says.YES}


def test_while_nothing_leads_to_pictures_a_person_may_have_some(oracle: Oracle) -> None:
    record = oracle.records.pop("r")
    for kind, value in (("person", "ann"), ("picture", "y")):
        oracle.ask(kind, value, 11.0)
    oracle.carry_out()
    assert [request.open for request in oracle.requests] == [True, False]
    oracle.records["r"] = record
    oracle.carry_out()
    assert not oracle.pictures
    assert not oracle.requests[0].open


@pytest.mark.parametrize("table", ["processing_basis", "basis_links"])
def test_while_nothing_leads_to_pictures_nothing_is_destroyed(oracle: Oracle, table: str) -> None:
    """Nobody can tell what a hold keeps: of a revoked batch, a picture that is asked for, a person."""
    take(oracle, r=replace(GIVEN, hold=True, pictures=("x", "y")), y="x2")
    oracle.revoke("b", 11.0)
    for kind, value in (("person", "ann"), ("picture", "x"), ("picture", "nowhere")):
        oracle.ask(kind, value, 12.0)
    oracle.lose(table)
    for _ in range(2):
        oracle.sweep()
        oracle.expire()
        assert (set(oracle.pictures), [r.open for r in oracle.requests]) == ({"x", "y"}, [True, True, False])
    take(oracle, r=replace(GIVEN, hold=True, pictures=("x", "y")))
    oracle.sweep()
    oracle.expire()
    assert set(oracle.pictures) == {"x", "y"}, "held"
    take(oracle, r=replace(GIVEN, pictures=("x", "y")))
    oracle.sweep()
    assert (oracle.pictures, oracle.records, [r.open for r in oracle.requests]) == ({}, {}, [False] * 3)


def test_a_person_who_is_erased_while_all_rows_are_missing_does_not_come_back(oracle: Oracle) -> None:
    take(oracle, o=replace(BOBS, pictures=("g",)), g="x2")
    take(oracle, q=replace(GIVEN, pictures=("g",)), g="s1")
    oracle.lose("images")
    oracle.ask("person", "ann", 11.0)
    oracle.sweep()
    assert not oracle.requests[0].open
    take(oracle, x="x1", g="s1")
    assert not oracle.pictures
    take(oracle, g="x2")
    assert set(oracle.pictures) == {"g"}, "bob's former bytes"


def test_another_picture_of_the_very_bytes_goes_with_the_pass_after(oracle: Oracle) -> None:
    take(oracle, r=replace(GIVEN, pictures=("x", "y")), y="x1")
    oracle.ask("picture", "x", 11.0)
    for left in ({"y"}, set()):
        oracle.carry_out()
        oracle.expire()
        assert set(oracle.pictures) == left


@pytest.mark.parametrize("table", ["processing_basis", "basis_links"])
def test_while_nothing_leads_to_pictures_what_was_cut_off_waits(oracle: Oracle, table: str) -> None:
    """A pass is cut off before it destroys her picture, a hold comes, and what it stands in is lost."""
    oracle.ask("person", "ann", 11.0)
    oracle.perhaps("sweep", "expire")
    oracle.adopt({"x": "x1"}, ["r"], [("x", "r")])
    take(oracle, r=replace(GIVEN, hold=True))
    oracle.lose(table)
    for again in (None, replace(GIVEN, hold=True)):
        if again is not None:
            take(oracle, r=again)
        oracle.sweep()
        oracle.expire()
        assert (set(oracle.pictures), oracle.unsure_pictures) == ({"x"}, set())
    take(oracle, r=GIVEN)
    oracle.sweep()
    assert not oracle.pictures


def test_what_has_ended_and_is_here_again_stays_while_it_is_on_hold(oracle: Oracle) -> None:
    take(oracle, r=ended(GIVEN, 5.0), k=KEEP)
    before = copy.deepcopy((oracle.pictures, oracle.records))
    oracle.expire()
    oracle.pictures, oracle.records = before
    held = copy.deepcopy(oracle)
    take(held, r=replace(ended(GIVEN, 5.0), hold=True))
    for one in (oracle, held):
        one.sweep()
    assert (oracle.unsure_pictures, held.unsure_pictures) == ({"x"}, set())


@pytest.mark.parametrize("says", list(Says))
def test_nobody_has_left_what_was_never_taken(oracle: Oracle, says: Says) -> None:
    """It went once, nobody knows how, and is brought again: as bytes of two people, of which one has a copy."""
    take(oracle, r=ended(GIVEN, 5.0), k=KEEP)
    oracle.perhaps("expire")
    oracle.adopt({}, ["r", "k"], [])
    bobs = replace(BOBS, box=None)
    take(oracle, r=replace(GIVEN, events=(Event(6.0, True),)), o=bobs, p=replace(bobs, pictures=("y",)), x="b1", y="b1")
    assert oracle.unsure_pictures == {"x"}
    records, links = ["r", "o", "p", "k"], [("x", "r"), ("x", "o"), ("y", "p")]
    if says is Says.NO:
        oracle.adopt({"x": "b1", "y": "b1"}, records, links)
    if says is not Says.YES:
        take(oracle, r=ended(GIVEN, 7.0), o=ended(bobs, 7.0))
        oracle.expire()
        assert set(oracle.pictures) == {"y"}
        assert oracle.served("y") == {"bob": says}
        return
    there = copy.deepcopy(oracle)
    oracle.adopt({"y": "b1"}, records, links)
    there.adopt({"x": "b1", "y": "b1"}, records, links)
    assert (oracle.served("y"), there.served("y")) == ({"bob": Says.MAYBE}, {"bob": Says.YES})
    boxed = replace(BOBS, pictures=("y",))
    take(oracle, p=boxed)
    assert oracle.served("y") == {"bob": Says.YES}, "by a box, whoever has left"


def test_who_comes_into_a_picture_after_a_pass_began_with_it_need_not_have_left(oracle: Oracle) -> None:
    """It was hers alone when that wrote its tombstones; she has a copy, too."""
    take(oracle, r=ended(GIVEN, 5.0), q=replace(GIVEN, pictures=("y",)), y="x1")
    oracle.perhaps("sweep", "expire")
    here = ["r", "q", "o"], [("x", "r"), ("x", "o"), ("y", "q")]
    oracle.adopt({"x": "x1", "y": "x1"}, *here)
    take(oracle, r=replace(GIVEN, events=(Event(1.0, True), Event(6.0, True))), o=replace(BOBS, box=None))
    oracle.carry_out()
    assert oracle.unsure_pictures == {"x"}
    oracle.adopt({"y": "x1"}, *here)
    assert ann(oracle, "y") is Says.MAYBE


def test_of_an_ingest_that_was_cut_off_only_what_has_ended_in_between_has_left(oracle: Oracle) -> None:
    bobs = replace(BOBS, box=None)
    take(oracle, o=bobs, p=replace(bobs, pictures=("y", "z")), y="b1")
    take(oracle, r=GIVEN, o=bobs, x="b1")
    once, twice = copy.deepcopy(oracle), copy.deepcopy(oracle)
    take(twice, r=ended(GIVEN, 5.0), o=ended(bobs, 5.0), z="b1")
    for one in (once, twice):
        one.real = 12.0
        one.expire()
    once.either(twice)
    assert (once.unsure_pictures, once.untaken) == ({"x", "z"}, {"z"})
    once.adopt({"y": "b1"}, ["r", "o", "p"], [("y", "p")])
    assert once.served("y") == {"bob": Says.NO}
