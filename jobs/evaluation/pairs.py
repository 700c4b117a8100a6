"""Pairs of pictures and whether they show the same person: LFW's pairs.txt, or CSV.

A message about a line gives its number and never what stands in it: LFW's file names are people's names.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.errors import BadInput
from jobs.texts import text_of
from udfs.reading import ReadFailure, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

#: Fewer pairs of a kind are not evaluated: rates of a few would be answers about single people (Guarantee 15).
LEAST_PAIRS: Final = 30
#: Scores of so many pairs, and vectors of so many pictures, fit into the driver; evaluation sets are labelled by hand.
MOST_PAIRS: Final = 1_000_000
MOST_IMAGES: Final = 100_000
MOST_GROUPS: Final = 50
MADE_FOLDS: Final = 10

_COLUMNS: Final = ("left", "right", "same", "fold", "group", "left_subject", "right_subject")
_YES, _NO = ("1", "true", "yes", "same"), ("0", "false", "no", "different")


@dataclass(frozen=True)
class Pairs:
    """All pairs, by column. ``left`` and ``right`` are positions in ``images``, ``group`` in ``groups``.

    * ``images``: each picture once, as a path below the folder of pictures.
    * ``fold``: 0, 1, 2, …; ``folds_of`` says whether they are the file's own.
    * ``subjects``: the numbers of the persons left and right, [pairs, 2]; None where the file does not say.
    """

    form: str
    sha256: str
    images: tuple[str, ...]
    left: Ints
    right: Ints
    same: Bools
    fold: Ints
    folds_of: str
    groups: tuple[str, ...]
    group: Ints | None
    subjects: Ints | None

    def __len__(self) -> int:
        return len(self.same)

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1


@dataclass(frozen=True)
class _Line:
    number: int
    left: str
    right: str
    same: bool
    fold: str = ""
    group: str = ""
    subjects: tuple[str, str] = ("", "")


def read_pairs(place: str, *, timeout_s: float = 60.0) -> Pairs:
    """Read a pairs file: a path, file:// or s3a:// address.

    Raises:
        BadInput: it cannot be read, a line is wrong, or there are too few pairs or too many.
    """
    try:
        data = read_bytes(None, place, timeout_s=timeout_s, max_bytes=2**30)
        text = text_of(data)
    except ReadFailure as failure:
        raise BadInput(f"--pairs: the file cannot be read ({failure.reason}).", hint="check its path.") from None
    except ValueError as error:
        raise BadInput(f"--pairs: {error}.") from None
    return parse_pairs(text, sha256=hashlib.sha256(data).hexdigest())


def parse_pairs(text: str, *, sha256: str = "") -> Pairs:
    """The pairs of a file's text. Raises `BadInput`."""
    first = text.partition("\n")[0].split()
    if 1 <= len(first) <= 2 and all(map(_is_number, first)):
        return _whole("LFW", sha256, list(_lfw_lines(text, [int(word) for word in first])))
    return _whole("CSV", sha256, list(_csv_lines(text)))


def _is_number(word: str) -> bool:
    # In plain digits, and not so many that Python refuses to count them.
    return word.isascii() and word.isdecimal() and len(word) <= 9


def _wrong(number: int, what: str, hint: str = "mend the line; docs/evaluation.md shows both formats.") -> BadInput:
    return BadInput(f"--pairs, line {number}: {what}.", hint=hint)


def _lfw_lines(text: str, header: list[int]) -> Iterator[_Line]:
    """``folds\\tpairs`` and for each fold so many lines of one person, then as many of two; or ``pairs`` alone."""
    folds, a_kind = header if len(header) == 2 else (1, header[0])
    lines = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if n > 1 and line.strip()]
    if len(lines) != 2 * folds * a_kind:
        promised = f"{folds} folds of twice {a_kind} pairs, which is not the {len(lines)} lines that follow"
        raise _wrong(1, f"the header promises {promised}", "the file may be cut off: get it again.")
    for position, (number, words) in enumerate(lines):
        fold, within = divmod(position, 2 * a_kind)
        same = within < a_kind
        if len(words) != (3 if same else 4):
            wanted = "a name and two numbers" if same else "a name and a number, twice"
            raise _wrong(number, f"{len(words)} fields where {wanted} must stand")
        left, right = (words[0], words[1]), (words[0] if same else words[2], words[-1])
        yield _Line(
            number,
            _lfw_path(number, *left),
            _lfw_path(number, *right),
            same,
            str(fold) if folds > 1 else "",
            subjects=(left[0], right[0]),
        )


def _lfw_path(number: int, name: str, picture: str) -> str:
    if not _is_number(picture):
        raise _wrong(number, "the number of a picture is no number")
    return f"{name}/{name}_{int(picture):04d}.jpg"


def _csv_lines(text: str) -> Iterator[_Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if not set(_COLUMNS[:3]) <= set(names) or not set(names) <= set(_COLUMNS) or len(set(names)) < len(names):
            columns = f"{', '.join(_COLUMNS[:3])} and, where known, {', '.join(_COLUMNS[3:])}"
            raise _wrong(1, f"neither LFW's header nor the columns {columns}")
        reader.fieldnames = names
        for row in reader:
            values = [row.get(name, "") for name in _COLUMNS]
            if None in row or None in values:
                raise _wrong(reader.line_num, "not as many fields as the first line has")
            yield _csv_line(reader.line_num, *(value.strip() for value in values))
    except csv.Error:
        # The reader has not counted the record that failed.
        raise _wrong(reader.line_num + 1, "not CSV") from None


def _csv_line(
    number: int, left: str, right: str, same: str, fold: str, group: str, left_subject: str, right_subject: str
) -> _Line:
    if same.lower() not in (*_YES, *_NO):
        raise _wrong(number, f"`same` is none of {', '.join((*_YES, *_NO))}")
    if fold and not fold.isdecimal():
        raise _wrong(number, "`fold` is no number")
    if bool(left_subject) != bool(right_subject):
        raise _wrong(number, "only one of left_subject and right_subject is given")
    return _Line(number, left, right, same.lower() in _YES, fold, group, (left_subject, right_subject))


def _whole(form: str, sha256: str, lines: list[_Line]) -> Pairs:
    """Check each line, and the lines against each other; then turn them into columns."""
    if len(lines) > MOST_PAIRS:
        raise BadInput(f"--pairs: {len(lines):,} pairs; {MOST_PAIRS:,} can be evaluated.", hint="take a sample.")
    images: dict[str, int] = {}
    seen: dict[tuple[int, int], int] = {}
    for line in lines:
        _check(line)
        left, right = (images.setdefault(name, len(images)) for name in (line.left, line.right))
        pair = (min(left, right), max(left, right))
        if pair in seen:
            raise _wrong(line.number, f"the same two pictures as in line {seen[pair]}", "remove one of them.")
        seen[pair] = line.number
    if len(images) > MOST_IMAGES:
        raise BadInput(
            f"--pairs: {len(images):,} pictures; {MOST_IMAGES:,} can be evaluated.", hint="take a sample of the pairs."
        )
    same = np.array([line.same for line in lines], bool)
    enough(same)
    fold, folds_of = _folds(lines, same)
    groups, group = _positions(lines, "group", [line.group for line in lines])
    if len(groups) > MOST_GROUPS:
        raise BadInput(f"--pairs: {len(groups):,} groups; {MOST_GROUPS} at most.", hint="is `group` a column of names?")
    _, flat = _positions(lines, "left_subject", [name for line in lines for name in line.subjects], each=2)
    return Pairs(
        form,
        sha256,
        tuple(images),
        np.array([images[line.left] for line in lines], np.int64),
        np.array([images[line.right] for line in lines], np.int64),
        same,
        fold,
        folds_of,
        groups,
        group,
        None if flat is None else flat.reshape(-1, 2),
    )


def _check(line: _Line) -> None:
    for path in (line.left, line.right):
        parts = path.split("/")
        if (
            not path
            or path.startswith("/")
            or "\\" in path
            or "\x00" in path
            or "://" in path
            or {"", ".", ".."} & set(parts)
        ):
            raise _wrong(line.number, "a picture is not a path below --images")
    if line.left == line.right:
        raise _wrong(line.number, "a picture is paired with itself")
    one, other = line.subjects
    if one and line.same != (one == other):
        raise _wrong(line.number, "the persons left and right contradict `same`")


def enough(same: Bools) -> None:
    """Raise `BadInput` where there are too few pairs of either kind to state anything."""
    kinds = {"of one person": int(same.sum()), "of two persons": int((~same).sum())}
    for kind, number in kinds.items():
        if number < LEAST_PAIRS:
            raise BadInput(
                f"Only {number} pairs {kind} can be compared; nothing is stated of fewer than {LEAST_PAIRS}.",
                hint="evaluate on more pairs: single people are compared by nothing in this project.",
            )


def _folds(lines: list[_Line], same: Bools) -> tuple[Ints, str]:
    names, fold = _positions(lines, "fold", [line.fold for line in lines])
    if fold is not None and len(names) > 1:
        for position, name in enumerate(names):
            if same[fold == position].all() or not same[fold == position].any():
                raise BadInput(f"--pairs: fold {name} has pairs of one kind only.", hint="give each fold both kinds.")
        return fold, "the file"
    # Dealt out in turn, each kind by itself, so that every fold has as many of each as the others, or one more.
    dealt = np.empty(len(same), np.int64)
    for kind in (same, ~same):
        dealt[kind] = np.arange(kind.sum()) % MADE_FOLDS
    return dealt, "position (the file has none)"


def _positions(
    lines: list[_Line], column: str, values: list[str], *, each: int = 1
) -> tuple[tuple[str, ...], Ints | None]:
    """The distinct values in the order they came, and each value's position; None where no line has one."""
    if not any(values):
        return (), None
    if "" in values:
        number = lines[values.index("") // each].number
        raise _wrong(number, f"`{column}` is empty here and given elsewhere")
    known: dict[str, int] = {}
    positions = np.array([known.setdefault(value, len(known)) for value in values], np.int64)
    return tuple(known), positions
