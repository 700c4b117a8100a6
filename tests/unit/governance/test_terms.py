"""Basis files in short form, and their terms: as strict as whole records, each fault with its line, no word of it."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.errors import BadInput
from jobs.governance.basis_lines import CSV_COLUMNS, csv_reader
from jobs.governance.pseudonyms import Pseudonyms
from jobs.governance.short_lines import Fault, ShortLine, looked_for, short_lines
from jobs.governance.terms import Terms, read_terms
from jobs.governance.tombstones import KeyRing
from jobs.strict_yaml import read_yaml_with_lines

pytestmark = pytest.mark.unit

NAMES = Pseudonyms(KeyRing.of(["a test's key"]))
TERMS: dict[str, Any] = {
    "source_batch_id": "b1", "purposes": ["p;1", "p2"], "pii_controllers": ["Example, Ltd"],
    "lawful_basis": "eu-gdpr:A6-1-a", "special_category_condition": "eu-gdpr:A9-2-a",
    "collection_method": "uploaded_by_subject", "retention_period": "P2Y", "jurisdiction": "EU",
    "withdrawal_method": "w", "impact_assessment": "i", "privacy_notice": "n", "validity_duration": "P1Y",
    "event_type": "explicit_consent", "event_state": "ConsentGiven",
}  # fmt: skip
HEADER = "image,subject,given_at,withdrawn_at"
DAY, LATER = "2026-01-31T12:00:00Z", "2026-02-01T13:00:00+01:00"


def terms_in(folder: Path, text: str) -> Terms:
    (folder / "terms.yaml").write_text(text, encoding="utf-8")
    return read_terms(str(folder / "terms.yaml"), "b1")


def read(text: str | bytes) -> list[ShortLine]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(short_lines(data, Terms(**TERMS).cells(), NAMES.of))


def test_terms_are_texts_and_become_cells_that_are_read_back(tmp_path: Path) -> None:
    said = {**TERMS, "expires_at": "2027-01-01T00:00:00Z", "jurisdiction": "NO"}
    found = terms_in(tmp_path, yaml.safe_dump(said, sort_keys=False).replace("'NO'", "NO"))
    assert found.model_dump(exclude_none=True) == said
    cells = found.cells()
    assert set(cells) <= set(CSV_COLUMNS)
    out = io.StringIO()
    csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="").writerow(
        {**cells, "record_id": "r", "event_time": DAY}
    )
    line = csv_reader(CSV_COLUMNS)(out.getvalue().encode())
    assert line is not None
    assert line.record is not None
    assert line.record["processing"]["purposes"] == TERMS["purposes"]
    assert line.record["processing"]["pii_controllers"] == TERMS["pii_controllers"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("purposes:\n- p;1\n- p2\n", ""), "purposes is missing"),
        (("jurisdiction: EU\n", ""), "jurisdiction is missing"),
        (("jurisdiction: EU", "jurisdiction: EU\njurisdiction: CA"), "line 12: a name stands twice (first in line 11)"),
        (("jurisdiction: EU", "jurisdiction: EU\nA Person: x"), "line 12: an unknown key"),
        (("jurisdiction: EU", "jurisdiction:"), "line 11: jurisdiction: must not be empty"),
        (("jurisdiction: EU", "jurisdiction: null"), "line 11: jurisdiction: must not be empty"),
        (("jurisdiction: EU", "jurisdiction: |\n  E\n  U"), "line 11: jurisdiction: must stand in one line"),
        (("jurisdiction: EU", "jurisdiction: [EU]"), "line 11: jurisdiction: must be one text"),
        (("retention_period: P2Y", "retention_period: 2 years"), "line 10: retention_period: must be a duration"),
        (("eu-gdpr:A6-1-a", "consent"), "lawful_basis: must be one of eu-gdpr:A6-1-a"),
        (("ConsentGiven", "ConsentWithdrawn"), "event_state: must be one of ConsentGiven"),
        (("jurisdiction: EU", "jurisdiction: EU\nexpires_at: 31.10.2026"), "line 12: expires_at: must be a time"),
        (("jurisdiction: EU", "jurisdiction: EU\nexpires_at: 2569-01-31T12:00:00Z"),
         "line 12: expires_at: is in the year 2569, more than 100 years ahead"),
        (("source_batch_id: b1", "source_batch_id: b2"), "line 1: these are the terms of batch b2, and --batch is b1"),
        (("jurisdiction: EU", "jurisdiction: EU\nexpires_at: *x"), "line 12: aliases are not read"),
        (("jurisdiction: EU", "jurisdiction: &x EU"), "line 11: anchors are not read"),
        (("privacy_notice: n", "privacy_notice: \ufffd"), "privacy_notice: must not be empty, nor hold what"),
        (("privacy_notice: n", "privacy_notice: '#REF!'"), "line 14: privacy_notice: must not be empty, nor hold what"),
        (("- p2", "- NaN"), "line 2: purposes: must not be empty, nor hold what"),
        (("source_batch_id: b1", "source_batch_id: b1 #2025"), "line 1: ` #` behind a value begins a comment"),
    ],
)  # fmt: skip
def test_terms_of_another_form_are_refused_by_line(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = yaml.safe_dump(TERMS, sort_keys=False, allow_unicode=True)
    assert change[0] in text
    with pytest.raises(BadInput) as refused:
        terms_in(tmp_path, text.replace(*change))
    assert said in str(refused.value)
    assert "A Person" not in str(refused.value)


def test_a_line_becomes_what_a_whole_line_says() -> None:
    first, second = read(f"\ufeff{HEADER}\r\n\r\na.jpg, A person ,{DAY},\r\nanna/**,A person,{DAY},{LATER}\r\n,,,\r\n")
    assert (first.line, first.image, first.pattern, first.withdrawn_at) == (3, "a.jpg", None, None)
    assert first.record is not None
    assert second.record is not None
    assert first.record["pseudonyms"] == second.record["pseudonyms"] == NAMES.of("A person")
    assert "erson" not in str(first)
    assert first.record["source_batch_id"] == "b1"
    assert first.record["processing"]["purposes"] == ["p;1", "p2"]
    given = {"event_time": datetime(2026, 1, 31, 12, tzinfo=UTC), "validity_duration": "P1Y",
             "event_type": "explicit_consent", "event_state": "ConsentGiven"}  # fmt: skip
    assert first.record["events"] == [given]
    ended = {"event_time": datetime(2026, 2, 1, 12, tzinfo=UTC), "validity_duration": None,
             "event_type": "withdrawal", "event_state": "ConsentWithdrawn"}  # fmt: skip
    assert second.record["events"] == [given, ended]
    assert (second.line, second.folder, second.withdrawn_at) == (4, "anna", ended["event_time"])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"image,subject\na,A Person,{DAY}", 1, "the columns are image, subject, given_at"),
        (f"image,subject,given_at,given_at\na,A Person,{DAY},", 1, "each once"),
        ("", 1, "the columns are"),
        (f"{HEADER}\na.jpg,A Person,{DAY}", 2, "more or fewer cells"),
        (f"{HEADER}\n,A Person,{DAY},", 2, "nothing stands in image"),
        (f"{HEADER}\na.jpg,\u200b,{DAY},", 2, "nothing stands in subject"),
        (f"{HEADER}\na.jpg,A Person,,", 2, "nothing stands in given_at"),
        (f"{HEADER}\na.jpg,A Person,yesterday,", 2, "given_at is not a time"),
        (f"{HEADER}\na.jpg,A Person,2026-01-31,", 2, "as a spreadsheet writes it"),
        (f"{HEADER}\na.jpg,A Person,31.01.2026,", 2, "as a spreadsheet writes it"),
        (f"{HEADER}\na.jpg,A Person,{DAY},soon", 2, "withdrawn_at is not a time"),
        (f"{HEADER}\na.jpg,A Person,{DAY},{DAY}", 2, "withdrawn_at is not later than given_at"),
        (f"{HEADER}\na.jpg,A Pers\ufffdn,{DAY},", 2, "subject holds a replaced character"),
        (f"{HEADER}\na.jpg,?ers Persson,{DAY},", 2, "subject holds a replaced character"),
        (f"{HEADER}\na.jpg,A Person\x1a,{DAY},", 2, "subject holds a replaced character"),
        (f"{HEADER}\na.jpg,1.98501E+11,{DAY},", 2, "subject is a number that a program has rewritten"),
        (f"{HEADER}\na.jpg,#N/A,{DAY},", 2, "subject is no name"),
        (f"{HEADER}\na.jpg,A Person,{DAY},NULL", 2, "withdrawn_at is not a time"),
        (f"{HEADER}\nanna/,A Person,{DAY},", 2, "a folder is written as folder/*"),
        (f"{HEADER}\na**/x.jpg,A Person,{DAY},", 2, "stands for folders"),
        (f'{HEADER}\n"a.jpg,A Person,{DAY},', 2, "has a quote"),
    ],
)
def test_a_line_that_cannot_be_read_is_told_by_its_number_and_not_quoted(text: str, line: int, said: str) -> None:
    (found,) = read(text)
    assert (found.line, found.record) == (line, None)
    assert said in str(found.fault)
    assert "Pers" not in str(found)


def test_other_encodings_and_separators() -> None:
    text = f"sep=;\n{HEADER.replace(',', ';')}\na,b.jpg;A Person;{DAY};\n"
    assert [line.image for line in read(text.encode("utf-16"))] == ["a,b.jpg"]
    (found,) = read(f"{HEADER}\nM\u00fcller.jpg,A Person,{DAY},\n".encode("cp1252"))
    assert "line 2 is not UTF-8" in str(found.fault)


@pytest.mark.parametrize(
    ("image", "folder", "met", "not_met"),
    [
        ("anna/*", "anna", ["anna/a.jpg", "anna/.x"], ["anna/b/a.jpg", "anna", "annax/a.jpg", "x/anna/a.jpg"]),
        ("anna/**", "anna", ["anna/a.jpg", "anna/b/c/a.jpg", "anna/new\nline"], ["annax/a.jpg", "anna/"]),
        ("**/a*.jpg", "", ["a1.jpg", "b/c/a2.jpg", "a.jpg"], ["b/xa1.jpg", "a1xjpg", "a/b.jpg"]),
        ("b/**/c/*.jpg", "b", ["b/c/1.jpg", "b/x/y/c/2.jpg"], ["b/c/d/1.jpg", "b/xc/1.jpg"]),
        ("a+(1)/[x]*.jpg", "a+(1)", ["a+(1)/[x]2.jpg"], ["aa(1)/[x].jpg", "a+(1)/x.jpg"]),
        ("file:/x y/*", "file:/x y", ["file:/x y/a.jpg"], ["file:/x/a.jpg"]),
    ],
)
def test_patterns(image: str, folder: str, met: list[str], not_met: list[str]) -> None:
    found, pattern = looked_for(image)
    assert (found, pattern is not None) == (folder, True)
    whole = re.compile(rf"(?s)\A(?:{pattern})\Z")
    assert [name for name in met if not whole.match(name)] == []
    assert [name for name in not_met if whole.match(name)] == []
    # Whatever it meets lies in its folder: by that it is looked for.
    assert all(not folder or name.startswith(f"{folder}/") for name in met)


@pytest.mark.parametrize("name", ["\u674e\u5a1c.jpg", "\u0141ukasz.jpg", "\u5f20\u4f1f/*"])
def test_guarantee_1_a_letter_that_was_lost_means_no_other_persons_picture(name: str) -> None:
    """As a pattern, `??.jpg` met every picture whose name has two letters."""
    lines = f"{HEADER}\n{name},A Person,{DAY},\n".encode("cp1252", "replace")
    assert b"?" in lines
    (found,) = read(lines)
    assert (found.line, found.record, found.pattern) == (2, None, None)
    assert "image holds a ?, as programs write for a letter that they lack" in str(found.fault)


def test_a_name_without_marks_is_no_pattern() -> None:
    assert looked_for("a+[1].jpg") == (None, None)
    with pytest.raises(Fault):
        looked_for("anna/")


def test_the_lines_of_a_yaml_file() -> None:
    assert read_yaml_with_lines(b"# c\na: 1\n\nb:\n  c: 2\n") == (
        {"a": "1", "b": {"c": "2"}},
        {"": 2, "a": 2, "b": 4, "b.c": 5},
    )
    assert read_yaml_with_lines(b"") == (None, {})
    with pytest.raises(ValueError, match="line 3: a name stands twice"):
        read_yaml_with_lines(b"a:\n  b: 1\n  b: 2\n")
