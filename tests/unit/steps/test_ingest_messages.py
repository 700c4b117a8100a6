"""What `ingest` says of images: what was met is told by reason and suffix, and adds up."""

from __future__ import annotations

import pytest

from jobs.governance.basis import BasisImported
from jobs.steps.ingest_messages import said_of_images, said_of_records, said_of_template
from jobs.tables.images import Ingested

pytestmark = pytest.mark.unit


def test_what_was_not_taken_is_told_by_reason_and_suffix() -> None:
    images = Ingested(
        1_159, 820, 0, 0, barred=1, refused={"SKIPPED": 12, "OTHER_FILE": 326}, unread={"EMPTY": 2},
        suffixes={"OTHER_FILE": {".txt": 300, "none": 6, "other": 20}, "SKIPPED": {".db": 12}, "EMPTY": {".jpg": 2}},
    )  # fmt: skip
    assert said_of_images(images, with_basis=True) == [
        "821 images: 820 new, 0 changed, 0 unchanged, 1 not taken: they were erased",
        "338 not taken: 326 OTHER_FILE (300 .txt, 6 without a suffix, 20 with other suffixes), 12 SKIPPED (12 .db)",
        "2 without a readable picture: 2 EMPTY (2 .jpg)",
    ]


def test_what_a_template_has_no_row_for_is_told() -> None:
    """It stopped at 10,000 images without a word."""
    whole = said_of_template(1, 0, "t.csv")
    assert whole == ["template for 1 image written to t.csv"]
    cut = said_of_template(1_000_000, 1, "t.csv")
    assert cut[1:] == ["1 image more than a spreadsheet holds: give records for them as JSON lines"]


@pytest.mark.parametrize(
    ("reason", "in_part"),
    [("BROKEN_SHARD", True), ("UNREADABLE_FOLDER", True), ("OTHER_BATCH", True), ("OTHER_FILE", False),
     ("LINKED_FOLDER", False), ("DUPLICATE_ID", False), ("BAD_ID", False)],
)  # fmt: skip
def test_what_was_not_even_listed_is_no_success(reason: str, in_part: bool) -> None:
    """Of all else the message and the record say what it was; of these nobody knows what it held."""
    assert Ingested(2, 1, 0, 0, refused={reason: 1}).in_part is in_part


def test_of_one_key_it_is_told_where_it_stands_twice_and_of_a_table_how_to_find_it() -> None:
    twice = Ingested(4, 0, 0, 0, refused={"DUPLICATE_ID": 4}, twice=(("a/s.tar: entry 1", "b/s.tar: entry 1"),))
    assert said_of_images(twice, with_basis=True)[2].startswith(
        "one key stands at a/s.tar: entry 1 and b/s.tar: entry 1"
    )
    table = Ingested(4, 0, 0, 0, refused={"DUPLICATE_ID": 4})
    assert "group the source by image_id" in said_of_images(table, with_basis=True)[2]


def test_guarantee_7_it_is_said_of_how_many_links_no_image_is_here_and_that_a_hold_is_among_them() -> None:
    here = BasisImported(2, 2, 3)
    assert said_of_records(here, "names of files") == ["2 basis records: 2 new, 3 new links to images"]
    yet = BasisImported(2, 2, 3, absent_links=1)
    assert said_of_records(yet)[1:] == ["1 of the new links is for images that are not here yet"]
    held = said_of_records(BasisImported(2, 0, 0, held_absent=2), "names of files")
    assert "a legal hold names images that are not here (2 links)" in held[1]
    assert held[2].startswith("names were taken for names of files: --ids-of")
    idle = said_of_records(BasisImported(1, 1, 0, held_idle=1))
    assert idle[1].startswith("1 legal hold KEEPING NOTHING: no image is named, or its person was erased")


def test_guarantee_1_it_is_said_of_links_that_were_given_for_what_came_in_place_of_others() -> None:
    said = said_of_images(Ingested(1, 0, 1, 0, unbound=2), with_basis=True)
    assert said[1].startswith("2 links PERMIT NOTHING: given for pictures to come, and those came in place of others")
