"""What those who carry on find beside the code: hooks, templates, a version that fits the changelog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
VERSION = re.findall(r'(?m)^VERSION = "(.+)"$', (ROOT / "setup.py").read_text(encoding="utf-8"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_hooks_are_what_make_lint_runs() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    lint = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert lint is not None
    assert [hook["entry"] for hook in local["hooks"]] == [line.strip("\t@") for line in lint[1].splitlines()]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_whole(path: Path) -> None:
    form = read(path)
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)


def test_the_changelog_has_the_version_that_is_built() -> None:
    """The newest one with a date is the one of setup.py; what is not out yet stands above it."""
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert headings[0] == "[Unreleased]"
    found = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:]]
    versions = [Version(match[1]) for match in found if match]
    assert len(versions) == len(headings) - 1
    assert versions == sorted(versions, reverse=True)
    assert [str(versions[0])] == VERSION


def test_every_place_names_the_version_that_is_built() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(path for path in (ROOT / "conf").iterdir())]
    named = re.compile(r"face_reindex-(\d[\d.]*\d)[.-]|face-reindex:(\d[\d.]*\d)")
    texts = [path.read_text(encoding="utf-8") for path in pages]
    found = {"".join(pair) for text in texts for pair in named.findall(text)}
    assert found == set(VERSION)
