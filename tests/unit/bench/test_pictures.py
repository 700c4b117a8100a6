"""The picture set of the demo: what it holds, that it is the same every time, that its records say what was planted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.pictures import FACE, KINDS, Picture, make_pictures, overlap, reference_of, write_basis
from udfs.decode import _formats

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.unit

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
FEW = 3  # pictures of a kind that a test draws


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Picture]]:
    """The first pictures of every kind, in a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    _formats()  # has Pillow open HEIC, too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.pictures.KINDS", tuple(kind._replace(number=min(FEW, kind.number)) for kind in KINDS))
        return folder, make_pictures(folder)


def test_the_set_is_large_enough_and_mostly_plain() -> None:
    numbers = {kind.name: kind.number for kind in KINDS}
    assert sum(numbers.values()) >= 240
    assert numbers["single_face"] >= 0.4 * sum(numbers.values())


def test_the_pages_say_how_many_there_are() -> None:
    number = sum(kind.number for kind in KINDS)
    root = Path(__file__).parents[3]
    for page, said in (("README.md", "make {} pictures"), ("docs/demo.md", "makes {} pictures")):
        assert said.format(number) in (root / page).read_text(encoding="utf-8")


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> list[bytes]:
        kinds = {"tiny", "fake", "cmyk", "heic", "avif"}
        return [(tmp_path / name / p.path).read_bytes() for p in make_pictures(tmp_path / name, seed=seed, kinds=kinds)]

    assert drawn("a", 0) == drawn("b", 0)
    assert drawn("a", 0) != drawn("c", 1)


def test_copies_multiply_each_kind_and_repeat_no_file(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, copies=2, kinds={"cmyk", "huge_header"})
    assert Counter(picture.kind for picture in pictures) == {"cmyk": 12, "huge_header": 4}
    assert len({(tmp_path / picture.path).read_bytes() for picture in pictures}) == 16


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.mode)


def _format(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.format)


def _orientation(path: Path) -> int:
    with Image.open(path) as image:
        return int(image.getexif()[0x0112])


def _frames(path: Path) -> int:
    with Image.open(path) as image:
        return int(image.n_frames)


def _is_progressive(path: Path) -> bool:
    with Image.open(path) as image:
        return bool(image.info.get("progressive"))


FORMATS: list[tuple[str, Callable[[Path], Any], set[Any]]] = [
    ("exif_rotated", _orientation, {2, 3, 4}),
    ("cmyk", _mode, {"CMYK"}),
    ("greyscale", _mode, {"L"}),
    ("alpha", _mode, {"RGBA"}),
    ("palette", _mode, {"P"}),
    ("sixteen_bit", _mode, {"I;16"}),
    ("progressive", _is_progressive, {True}),
    ("webp", _format, {"WEBP"}),
    ("heic", _format, {"HEIF"}),
    ("avif", _format, {"AVIF"}),
    ("animated", _frames, {3}),
]


@pytest.mark.parametrize(("kind", "look", "expected"), FORMATS, ids=[row[0] for row in FORMATS])
def test_each_kind_is_what_it_says(
    few: tuple[Path, list[Picture]], kind: str, look: Callable[[Path], Any], expected: set[Any]
) -> None:
    folder, pictures = few
    assert {look(folder / picture.path) for picture in pictures if picture.kind == kind} == expected


def test_what_is_to_break_breaks_and_the_rest_is_readable(few: tuple[Path, list[Picture]]) -> None:
    folder, pictures = few
    for picture in pictures:
        if picture.expected in {"broken", "too_large"}:
            with pytest.raises((OSError, SyntaxError, Image.DecompressionBombError)):
                _load(folder / picture.path)
        else:
            _load(folder / picture.path)


def _load(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def test_planted_boxes_lie_within_the_upright_picture(few: tuple[Path, list[Picture]]) -> None:
    from PIL import ImageOps

    folder, pictures = few
    for picture in (each for each in pictures if each.boxes):
        if picture.expected != "broken":
            with Image.open(folder / picture.path) as image:
                width, height = ImageOps.exif_transpose(image).size
            for left, top, right, bottom in picture.boxes:
                assert 0 <= left < right <= width, picture.name
                assert 0 <= top < bottom <= height, picture.name


def test_records_name_exactly_the_recorded_persons_and_their_pictures(few: tuple[Path, list[Picture]]) -> None:
    folder, pictures = few
    records = write_basis(pictures, folder / "basis.jsonl", now=NOW)
    assert [json.loads(line) for line in (folder / "basis.jsonl").read_text().splitlines()] == records
    assert len({record["pii_principal_id"] for record in records}) == len(records)
    named = Counter(path for record in records for path in record["images"])
    assert named == Counter({picture.path: len(picture.recorded) for picture in pictures if picture.recorded})


@pytest.mark.parametrize(
    ("kind", "records_each", "states", "given"),
    [
        ("cmyk", 1, ["ConsentGiven"], "2026-01-02T12:00:00Z"),
        ("bystanders", 1, ["ConsentGiven"], "2026-01-02T12:00:00Z"),
        ("face_level", 1, ["ConsentGiven"], "2026-01-02T12:00:00Z"),
        ("withdrawn", 1, ["ConsentGiven", "ConsentWithdrawn"], "2026-01-02T12:00:00Z"),
        ("expired", 1, ["ConsentGiven"], "2023-02-02T12:00:00Z"),
        ("no_basis", 0, [], ""),
    ],
)
def test_records_by_kind(
    few: tuple[Path, list[Picture]], tmp_path: Path, kind: str, records_each: int, states: list[str], given: str
) -> None:
    pictures = [picture for picture in few[1] if picture.kind == kind]
    records = write_basis(pictures, tmp_path / "basis.jsonl", now=NOW)
    assert len(records) == records_each * len(pictures)
    for record in records:
        assert [event["event_state"] for event in record["events"]] == states
        assert record["events"][0]["event_time"] == given
        assert (record["face"] is not None) == (kind == "face_level")


def test_a_face_level_record_covers_one_of_two_planted_faces(few: tuple[Path, list[Picture]], tmp_path: Path) -> None:
    pictures = [picture for picture in few[1] if picture.kind == "face_level"]
    for picture, record in zip(pictures, write_basis(pictures, tmp_path / "b.jsonl", now=NOW), strict=True):
        overlaps = [overlap(box, record["face"]["box"]) for box in picture.boxes]
        assert overlaps[0] > 0.95
        assert overlaps[1] == 0


ALTERED = {
    "single_face", "exif_rotated", "cmyk", "greyscale", "alpha", "palette", "sixteen_bit", "progressive", "webp",
    "heic", "avif", "animated", "compressed", "small",
}  # fmt: skip


def test_an_altered_portrait_has_its_untreated_one(few: tuple[Path, list[Picture]]) -> None:
    from PIL import ImageOps

    folder, pictures = few
    assert {picture.kind for picture in pictures if reference_of(picture) is not None} >= ALTERED
    for picture in (each for each in pictures if each.kind in ALTERED):
        reference = reference_of(picture)
        assert reference is not None
        assert reference.mode == "RGB", picture.name
        with Image.open(folder / picture.path) as image:
            shown = ImageOps.exif_transpose(image)
            assert shown.size == reference.size or (picture.kind == "small" and shown.width < 0.45 * reference.width)
            # The very same portrait: what the kind did to it is small beside what another picture is.
            grey = np.asarray(reference.resize(shown.size).convert("L"), float)
            if picture.kind not in {"alpha", "sixteen_bit"}:
                away = np.abs(np.asarray(shown.convert("RGB").convert("L"), float) - grey).mean()
                assert away < 12, picture.name


def test_groups_and_pictures_without_a_face_have_no_reference(few: tuple[Path, list[Picture]]) -> None:
    kinds = {"several_faces", "bystanders", "face_level", "no_face", "truncated", "tiny", "huge_header"}
    assert {reference_of(picture) for picture in few[1] if picture.kind in kinds} == {None}


def test_overlap() -> None:
    assert overlap(FACE, FACE) == 1
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0
