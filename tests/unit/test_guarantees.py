"""Each of the sixteen guarantees is named in code, has tests with its number, and stands in docs/governance.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
NUMBERS = range(1, 17)
TESTS = {
    (path, name)
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"(?m)^def (test_guarantees?_\w+)", path.read_text(encoding="utf-8"))
}


def numbers_of(name: str) -> set[int]:
    """The numbers that a test's name begins with: guarantee_9_…, guarantees_7_9_13_and_14_…"""
    leading = re.match(r"test_guarantees?((?:_and|_\d+)+)_", name)
    return {int(number) for number in re.findall(r"\d+", leading[1])} if leading else set()


@pytest.mark.parametrize("number", NUMBERS)
def test_every_guarantee_has_its_tests(number: int) -> None:
    mine = {(path, name) for path, name in TESTS if number in numbers_of(name)}
    assert mine, f"no test carries Guarantee {number}"
    row = re.search(rf"(?m)^\| {number} \|.*$", (ROOT / "docs" / "governance.md").read_text(encoding="utf-8"))
    assert row is not None
    files = {path.name for path, _ in mine}
    named = set(re.findall(r"\[(test_\w+\.py)\]", row[0])) | ({"test_gate.py"} if "both files" in row[0] else set())
    assert named & files, f"docs/governance.md names {named} for Guarantee {number}; its tests are in {files}"


@pytest.mark.parametrize("number", NUMBERS)
def test_every_guarantee_is_named_in_code(number: int) -> None:
    code = [p.read_text(encoding="utf-8") for package in ("jobs", "udfs") for p in (ROOT / package).rglob("*.py")]
    texts = [text for source in code for text in re.findall(r"Guarantees? [\d, and]+", source)]
    assert any(str(number) in re.findall(r"\d+", text) for text in texts)


def test_files_that_the_page_links_to_are_there() -> None:
    page = (ROOT / "docs" / "governance.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((\.\./[^)]+)\)", page)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / "docs" / link).resolve().exists()] == []
