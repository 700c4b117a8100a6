"""Pairs files: LFW's and CSV, and what is said of bad ones: where, and never who."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BadInput
from jobs.evaluation import pairs as module
from jobs.evaluation.pairs import LEAST_PAIRS, Pairs, parse_pairs, read_pairs

pytestmark = pytest.mark.unit

NAME = "Ada_Lovelace"


def lfw(folds: int = 2, each: int = 15, header: str | None = None) -> list[str]:
    """A file of LFW's form with invented people."""
    lines = [f"{folds}\t{each}" if header is None else header]
    for fold in range(folds):
        lines += [f"{NAME}_{fold}_{n}\t1\t{n + 2}" for n in range(each)]
        lines += [f"{NAME}_{fold}_{n}\t1\tGrace_Hopper_{fold}_{n}\t12" for n in range(each)]
    return lines


def csv(*columns: str, each: int = LEAST_PAIRS) -> list[str]:
    """A CSV of as many pairs of each kind, with these columns beside the three; every value is the same."""
    lines = [",".join(("left", "right", "same", *(c.split("=")[0] for c in columns)))]
    rest = "".join(f",{c.split('=')[1]}" for c in columns)
    for number in range(each):
        lines += [f"a/{number}.jpg,b/{number}.png,1{rest}", f"a/{number}.jpg,c/{number}.png,no{rest}"]
    return lines


def parsed(lines: list[str]) -> Pairs:
    return parse_pairs("\n".join(lines) + "\n")


def test_lfw() -> None:
    pairs = parsed(lfw())
    assert (pairs.form, len(pairs), int(pairs.same.sum()), pairs.folds, pairs.folds_of) == (
        "LFW",
        60,
        30,
        2,
        "the file",
    )
    assert (pairs.fold == np.repeat([0, 1], 30)).all()
    assert (pairs.same == np.tile(np.repeat([True, False], 15), 2)).all()
    first = [pairs.images[i] for i in (pairs.left[0], pairs.right[0])]
    assert first == ["Ada_Lovelace_0_0/Ada_Lovelace_0_0_0001.jpg", "Ada_Lovelace_0_0/Ada_Lovelace_0_0_0002.jpg"]
    # A picture of several pairs is one picture.
    assert len(pairs.images) == len(set(pairs.images)) == 30 + 30 + 30
    assert pairs.left[15] == pairs.left[0]
    assert pairs.images[pairs.right[15]] == "Grace_Hopper_0_0/Grace_Hopper_0_0_0012.jpg"
    assert pairs.subjects is not None
    assert ((pairs.subjects[:, 0] == pairs.subjects[:, 1]) == pairs.same).all()
    assert len(np.unique(pairs.subjects)) == 60
    assert pairs.group is None


def test_lfw_without_folds_gets_ten() -> None:
    pairs = parsed(lfw(1, 33, header="33"))
    assert (pairs.folds, pairs.folds_of) == (10, "position (the file has none)")
    counts = [[int((pairs.same[pairs.fold == f] == kind).sum()) for f in range(10)] for kind in (True, False)]
    assert counts == [[4, 4, 4, 3, 3, 3, 3, 3, 3, 3]] * 2


def test_csv() -> None:
    lines = ["Left , RIGHT,same,fold,group,left_subject,right_subject"]
    for number in range(LEAST_PAIRS):
        fold = 7 + number % 2
        lines += [
            f"a/{number}.jpg,b/{number}.png,1,{fold},x/y,p,p",
            f"a/{number}.jpg,c/{number}.png,FALSE,{fold},z,p,q",
        ]
    pairs = parsed(lines)
    assert (pairs.form, len(pairs), pairs.folds, pairs.folds_of) == ("CSV", 60, 2, "the file")
    assert pairs.fold[:6].tolist() == [0, 0, 1, 1, 0, 0]
    assert pairs.groups == ("x/y", "z")
    assert pairs.group is not None
    assert ((pairs.group == 0) == pairs.same).all()
    assert pairs.subjects is not None
    assert pairs.subjects[:2].tolist() == [[0, 0], [0, 1]]
    assert pairs.images[:3] == ("a/0.jpg", "b/0.png", "c/0.png")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes("\r\n".join(csv()).encode("utf-8-sig"))
    assert len(read_pairs(str(path))) == 60
    assert re.fullmatch("[0-9a-f]{64}", read_pairs(str(path)).sha256)


def changed(lines: list[str], at: int, new: str) -> list[str]:
    """Line ``at`` (from 1) replaced."""
    return [*lines[: at - 1], new, *lines[at:]]


BAD = {
    "nothing": ([""], "line 1: neither"),
    "a name where the header should be": ([NAME, *csv()], "line 1: neither"),
    "an unknown column": (csv("age=4"), "line 1: neither"),
    "a column twice": (csv("group=1", "group=2"), "line 1: neither"),
    "fewer lines than promised": (lfw()[:-1], "line 1: the header promises 2 folds of twice 15 pairs, .* the 59 lines"),
    "more lines than promised": ([*lfw(), f"{NAME}\t1\t2"], "line 1: the header promises"),
    "two fields": (changed(lfw(), 4, f"{NAME}\t1"), "line 4: 2 fields where a name and two numbers"),
    "a pair of two among those of one": (changed(lfw(), 4, f"{NAME}\t1\tB\t2"), "line 4: 4 fields where"),
    "a pair of one among those of two": (changed(lfw(), 20, f"{NAME}\t1\t2"), "line 20: 3 fields where .*, twice"),
    "a word for a picture": (changed(lfw(), 3, f"{NAME}\t1\ttwo"), "line 3: the number of a picture is no number"),
    "one picture": (changed(lfw(), 3, f"{NAME}\t1\t1"), "line 3: a picture is paired with itself"),
    "one person as two": (changed(lfw(), 20, f"{NAME}\t1\t{NAME}\t2"), "line 20: .* contradict `same`"),
    "a path in a name": (changed(lfw(), 3, f"../{NAME}\t1\t2"), "line 3: a picture is not a path below"),
    "a pair twice": (changed(lfw(), 4, f"{NAME}_0_0\t2\t1"), "line 4: the same two pictures as in line 2"),
    "a field missing": (changed(csv(), 5, f"{NAME}.jpg,1"), "line 5: not as many fields"),
    "a field too many": (changed(csv(), 5, f"{NAME}.jpg,b.jpg,1,2"), "line 5: not as many fields"),
    "maybe the same": (changed(csv(), 5, f"{NAME}.jpg,b.jpg,maybe"), "line 5: `same` is none of"),
    "no picture": (changed(csv(), 5, f",{NAME}.jpg,1"), "line 5: a picture is not a path below"),
    "an absolute path": (changed(csv(), 5, f"/{NAME}.jpg,b.jpg,1"), "line 5: a picture is not a path below"),
    "an address": (changed(csv(), 5, f"https://{NAME}/a.jpg,b.jpg,1"), "line 5: a picture is not a path below"),
    "an open quote": (changed(csv(), 61, f'"{NAME},b.jpg,1'), "line 61: not CSV"),
    "a fold by name": (csv(f"fold={NAME}"), "line 2: `fold` is no number"),
    "a fold of one kind": (changed(csv("fold=1"), 2, f"{NAME}.jpg,b.jpg,1,2"), "fold 2 has pairs of one kind only"),
    "a fold missing": (changed(csv("fold=1"), 8, f"{NAME}.jpg,b.jpg,1,"), "line 8: `fold` is empty here"),
    "a group missing": (changed(csv("group=x"), 8, f"{NAME}.jpg,b.jpg,1,"), "line 8: `group` is empty here"),
    "half a pair's persons": (
        changed(csv("left_subject=", "right_subject="), 9, f"{NAME}.jpg,b.jpg,1,{NAME},"),
        "line 9: only one of left_subject and right_subject",
    ),
    "persons missing": (
        changed(csv("left_subject=", "right_subject="), 8, f"{NAME}.jpg,b.jpg,1,{NAME},{NAME}"),
        "line 2: `left_subject` is empty here",
    ),
    "too few": (csv(each=LEAST_PAIRS - 1), f"Only {LEAST_PAIRS - 1} pairs of one person"),
    "one kind": ([line for line in csv() if not line.endswith(",no")], "Only 0 pairs of two persons"),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_told_by_its_number_and_names_nobody(lines: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        parsed(lines)
    assert NAME not in str(caught.value)
    assert ".jpg" not in str(caught.value)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [csv()[0] + ",group", *(f"{line},{n}" for n, line in enumerate(csv()[1:]))]
    with pytest.raises(BadInput, match="60 groups; 50 at most"):
        parsed(groups)
    monkeypatch.setattr(module, "MOST_IMAGES", 89)
    with pytest.raises(BadInput, match="90 pictures; 89 can be evaluated"):
        parsed(csv())
    monkeypatch.setattr(module, "MOST_PAIRS", 59)
    with pytest.raises(BadInput, match="60 pairs; 59 can be evaluated"):
        parsed(csv())


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot be read \(NOT_FOUND\)") as caught:
        read_pairs(str(tmp_path / NAME))
    assert NAME not in str(caught.value)
    (tmp_path / "latin").write_bytes("Zoë\t1\t2".encode("latin-1"))
    with pytest.raises(BadInput, match="line 1 is not UTF-8"):
        read_pairs(str(tmp_path / "latin"))


SCRAPS = st.sampled_from(
    ["left", "right", "same", "fold", "group", ",", "\n", "\r", "\t", " ", "1", "0", "10", "9" * 5_000, "\u00b2",
     "\u0663", "a.jpg", "b.jpg", "\x00", '"', "..", "/", "true", "\u00e9", "\u2028", "\x1c", "1\t1\n", "A 1 2\n",
     "A 1 B 2\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["", "left,right,same\n", "1\t2\n"]),
    st.lists(SCRAPS, max_size=20).map("".join) | st.text(alphabet=f'{NAME}\t\n\r,"0123456789./\\same', max_size=200),
)
def test_whatever_a_pairs_file_holds_it_is_pairs_or_refused(header: str, text: str) -> None:
    with pytest.raises(BadInput, match="pairs"):
        # No file so short can hold enough of them.
        parse_pairs(header + text)
