"""What README and docs tell people to type exists: commands, options, settings, files, make targets."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml

import udfs
from docs import api
from jobs.__main__ import JOBS
from jobs.errors import NOTHING_FOUND, FaceReindexError
from jobs.governance.decide import Reason
from jobs.settings import all_keys, reference

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Stands for any job in the pages.
ANY = "NAME"


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match[1] in languages:
            yield match[2]


def inline(page: Path) -> list[str]:
    return INLINE.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the page's shell blocks and inline code."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline(page)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe in code that is no command
            continue
        if words:
            yield words


def invocation(words: list[str]) -> tuple[str, list[str]] | None:
    """Job and arguments of `[face-reindex] NAME …`, `python -m jobs.NAME …` or `spark-submit … jobs/NAME.py …`."""
    if words[0] == "face-reindex" and len(words) > 1 and words[1] != ANY:
        return words[1], words[2:]
    if "jobs.runs.submit" in words and "--" in words:
        command = words[words.index("--") + 1 :]
        return invocation(command) if command else None
    for position, word in enumerate(words):
        module = words[position - 1] == "-m" and word.startswith("jobs.") and word != f"jobs.{ANY}"
        script = "spark-submit" in words[0] and re.fullmatch(r"jobs/\w+\.py", word)
        if module or script:
            return word.removeprefix("jobs.").removeprefix("jobs/").removesuffix(".py"), words[position + 1 :]
    if words[0] in JOBS and len(words) > 1:
        return words[0], words[1:]
    return None


def names(pages: list[Path]) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        called = invocation(words)
        if called is None:
            continue
        job, arguments = called
        assert job in {*JOBS, "index.roles", "runs.submit"}, words
        command: click.Command = importlib.import_module(f"jobs.{job}").main
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.split("=")[0] for word in arguments if word.startswith("-")}
        assert used <= known, words


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_whole_commands_parse(page: Path) -> None:
    """Commands of the shell blocks are complete: each value has its option and each option its value."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            called = invocation(words) if words else None
            if called:
                command: click.Command = importlib.import_module(f"jobs.{called[0]}").main
                context = command.make_context(called[0], list(called[1]))
                config = context.params["config"]
                # A driver on the cluster has it beside itself.
                sent = {Path(name).name: name for at, name in pairwise(words) if at == "--files"}
                assert config is None or (ROOT / sent.get(config, config)).is_file(), line


def test_the_readme_shows_the_commands_that_matter() -> None:
    shown = {called[0] for words in commands(ROOT / "README.md") if (called := invocation(words))}
    assert shown >= {"ingest", "reindex", "status"}


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    """1,200 words; its picture comes second, after what this is."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= 1200
    assert readme.split("\n\n")[2].startswith("![")
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(readme)}
    pages = {page for page in PAGES if ".github" not in page.parts and page.parent.name != "decisions"}
    assert pages - {ROOT / "README.md"} <= linked


def test_every_job_is_explained() -> None:
    table = (ROOT / "docs/jobs.md").read_text(encoding="utf-8")
    first = " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert {name.split()[0] for name in re.findall(r"`(.+?)`", first)} == set(JOBS)


def test_every_option_named_alone_belongs_to_some_command() -> None:
    known = {
        option
        for name in JOBS
        for parameter in importlib.import_module(f"jobs.{name}").main.params
        for option in parameter.opts
    }
    elsewhere = {"--py-files", "--properties-file", "--master", "--archives", "--files"}  # spark-submit's own
    elsewhere |= {"--collector.textfile.directory"}  # node_exporter's
    elsewhere |= {"--help"}  # every command's
    used = {word.split()[0].split("=")[0] for page in PAGES for word in inline(page) if word.startswith("--")}
    assert used - known - elsewhere == set()


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_linked_files_and_headings_exist(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_files_named_in_code_exist(page: Path) -> None:
    text = " ".join([*inline(page), *blocks(page, "bash")])
    named = re.findall(r"(?<![\w./-])((?:jobs|udfs|conf|docs|tests|notebooks|bench)/[\w./-]*\w)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = re.findall(r"`(\w+\.(?:py|md))`", page.read_text(encoding="utf-8"))
    assert [name for name in modules if not any(ROOT.glob(f"[!.]*/**/{name}")) and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {words[1] for words in commands(page) if words[0] == "make" and len(words) > 1}
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_settings_named_in_code_exist(page: Path) -> None:
    sections = {key.split(".")[0] for key in all_keys() if "." in key}
    dotted = {word.split(":")[0] for word in inline(page) if re.match(r"\w+\.\w+", word)}
    unknown = {key for key in dotted if key.split(".")[0] in sections and key not in all_keys()}
    assert {key for key in unknown if not key.endswith((".py", ".md", ".conf", ".yaml"))} == set()


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_tests_named_as_proof_exist(page: Path) -> None:
    """`test_x_…` stands for the tests whose names begin so."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in inline(page):
        if re.fullmatch(r"test_\w+…?", name):
            assert f"def {name.removesuffix('…')}" + ("" if name.endswith("…") else "(") in tests, name


def test_every_reason_of_refusal_is_explained() -> None:
    page = (ROOT / "docs/basis-record.md").read_text(encoding="utf-8")
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


def test_every_exit_code_is_explained() -> None:
    def tree(kind: type[FaceReindexError]) -> Iterator[type[FaceReindexError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    page = (ROOT / "docs/jobs.md").read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d) \|", page, re.MULTILINE)}
    assert rows == {0, NOTHING_FOUND} | {kind.exit_code for kind in tree(FaceReindexError)}


def test_the_pages_that_are_made_are_those_of_the_code() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == reference()
    made = api.page()
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == made
    assert set(re.findall(r"^from udfs import (\w+)$", made, re.MULTILINE)) == set(udfs.__all__)


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    words = [re.sub(r"\[|\]\(.*\)", "", word).lower() for word in re.findall(r"^\| (.+?) \|", page, re.MULTILINE)[1:]]
    words.remove("---")
    assert words == sorted(set(words))


def test_the_batch_file_of_the_docs_is_accepted(tmp_path: Path) -> None:
    from jobs.governance.batch_file import read_batch

    _, example = blocks(ROOT / "docs/basis-record.md", "yaml")
    path = tmp_path / "b.yaml"
    path.write_text(example, encoding="utf-8")
    assert read_batch(str(path)).keys() == yaml.safe_load(example).keys()


def test_the_csv_of_the_docs_has_known_columns_and_full_rows() -> None:
    import csv

    from jobs.governance.basis_lines import CSV_COLUMNS

    example, _ = blocks(ROOT / "docs/basis-record.md", "csv")
    header, *rows = csv.reader(example.splitlines())
    assert set(header) <= set(CSV_COLUMNS)
    assert {len(row) for row in rows} == {len(header)}


def test_the_terms_and_the_short_file_of_the_docs_are_accepted(tmp_path: Path) -> None:
    from jobs.governance.short_lines import short_lines
    from jobs.governance.terms import Terms, read_terms

    terms, _ = blocks(ROOT / "docs/basis-record.md", "yaml")
    _, people = blocks(ROOT / "docs/basis-record.md", "csv")
    (tmp_path / "terms.yaml").write_text(terms, encoding="utf-8")
    read = read_terms(str(tmp_path / "terms.yaml"), "staff-2026")
    # All that is needed, and each of the others by its name.
    assert read.model_dump(exclude_none=True).keys() == yaml.safe_load(terms).keys()
    page = (ROOT / "docs/basis-record.md").read_text(encoding="utf-8")
    assert [name for name in Terms.model_fields if f"`{name}`" not in page] == []
    lines = list(short_lines(people.encode(), read.cells(), lambda name: [name]))
    assert [(line.line, line.fault) for line in lines] == [(2, None), (3, None), (4, None)]


@pytest.mark.parametrize(("arguments", "code", "said"), [(["--help"], 0, ""), (["--nope"], 1, "exit code 2")])
def test_the_wrapper_of_the_docs_ends_well_or_with_the_code(arguments: list[str], code: int, said: str) -> None:
    """`SystemExit` is what Databricks takes for a failure, also with 0: the wrapper lets none out."""
    (wrapper,) = blocks(ROOT / "docs/platforms.md", "python")
    watched = f"try:\n    exec({wrapper!r})\nexcept SystemExit:\n    raise AssertionError"
    command = [sys.executable, "-c", watched, "status", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (code, True)
    assert "AssertionError" not in done.stderr


def test_the_versions_of_the_platforms_page_are_the_pinned_ones() -> None:
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock.txt").read_text().splitlines() if "==" in line)
    page = (ROOT / "docs/platforms.md").read_text(encoding="utf-8")
    assert f"| this project | {lock['pyspark']} | 3.11 | {lock['delta_spark']} | 17 |" in page


def test_nothing_here_points_at_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|/root/|localhost", page.read_text(encoding="utf-8")), page.name


def test_figures_are_those_of_the_committed_results() -> None:
    from bench import scaling, table

    page = table.PAGE.read_text(encoding="utf-8")
    assert table.with_figures(page) == page
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.with_scaling(page) == page
