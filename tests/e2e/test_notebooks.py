"""The notebooks: executed as a whole on a fresh kernel, what they must show, and what is committed of them.

governance.ipynb takes minutes, so `make test-faults` executes it. In `make test`, test_erased.py asserts what it walks
through by the same commands, and here its commands and its committed outputs are looked at.
"""

from __future__ import annotations

import ast
import getpass
import importlib
import json
import re
from pathlib import Path
from typing import Any

import click
import nbformat
import pytest

from bench.record import RESULTS
from notebooks.execute import METADATA, NOTEBOOKS, execute, read, text
from tests.e2e.line import trained

pytestmark = pytest.mark.e2e

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
LARGEST_OUTPUT, LARGEST_FILE = 60_000, 250_000
OF_A_MACHINE = re.compile(
    r"(?<![\w.:/~-])/(home|root|tmp|work|usr|opt|var|mnt|srv|Users|dev/shm)/|[Ww]arning|Traceback"
)
ROW, CELL = re.compile(r"<tr.*?</tr>", re.DOTALL), re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL)


def outputs(notebook: Any) -> dict[str, list[Any]]:
    """Outputs of the code cells, by the cell's id."""
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def shape(notebook: Any) -> dict[str, list[str]]:
    """What kinds of output each cell has."""
    return {
        cell: [" ".join([one.output_type, one.get("name", ""), *sorted(one.get("data", ()))]) for one in found]
        for cell, found in outputs(notebook).items()
    }


def parts(output: Any) -> list[str]:
    """The output's texts and pictures."""
    return [output.text] if "text" in output else [str(part) for part in output.get("data", {}).values()]


def said(notebook: Any) -> dict[str, str]:
    """What each cell printed, and its value as plain text."""
    return {
        cell: "\n".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in found)
        for cell, found in outputs(notebook).items()
    }


def table(notebook: Any, cell: str) -> list[list[str]]:
    """The rows of the table that a cell shows, without its heading."""
    (html,) = [one.data["text/html"] for one in outputs(notebook)[cell] if "text/html" in one.get("data", {})]
    return [CELL.findall(row) for row in ROW.findall(html)][1:]


def executed(name: str, folder: Path) -> Any:
    """The notebook after execution; its outputs must be of the committed kinds, and fit to be committed."""
    done = execute(read(name), folder)
    assert shape(done) == shape(read(name)), f"what {name}.ipynb shows has changed: make notebooks NAME={name}"
    assert unfit(done) == []
    return done


def unfit(notebook: Any) -> list[str]:
    """Cells whose outputs are too large, tell of the machine, or are no results."""
    user = getpass.getuser()
    of_a_user = re.compile(rf"\b{re.escape(user)}\b") if user != "root" else None
    found = []
    for cell, given in outputs(notebook).items():
        for one in given:
            texts = [part for part in parts(one) if len(part) < LARGEST_OUTPUT]
            if (
                one.output_type == "error"
                or one.get("name") == "stderr"
                or len(texts) < len(parts(one))
                or any(OF_A_MACHINE.search(part) or (of_a_user and of_a_user.search(part)) for part in texts)
            ):
                found.append(cell)
    return found


# --- What is committed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_whole_small_and_of_no_machine(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert text(notebook) == (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text(notebook)) < LARGEST_FILE
    assert (notebook.metadata, [c.id for c in notebook.cells if c.metadata]) == (METADATA, [])
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert unfit(notebook) == []
    assert any(given for given in outputs(notebook).values()), f"no outputs: make notebooks NAME={name}"


@pytest.mark.parametrize("name", NAMES)
def test_each_begins_with_what_one_will_know_and_has_short_cells_with_lasting_ids(name: str) -> None:
    cells = read(name).cells
    assert cells[0].source.startswith("# ")
    assert "At the end you know" in cells[0].source
    assert [cell.id for cell in cells if len(cell.source.splitlines()) > 50] == []
    # A tool that saves a notebook anew gives random ones, and the next diff is all of it.
    assert [cell.id for cell in cells if not re.fullmatch(r"[a-z]+(-[a-z]+)*", cell.id)] == []


@pytest.mark.parametrize("name", NAMES)
def test_linked_files_exist(name: str) -> None:
    markdown = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", markdown) if "://" not in link]
    assert [link for link in links if not (NOTEBOOKS / link).resolve().exists()] == []


def test_what_is_looked_at_is_not_a_stranger() -> None:
    """Pictures come from bench/pictures.py; no notebook reads others, or asks who somebody is."""
    sources = {name: "\n".join(cell.source for cell in read(name).cells) for name in NAMES}
    for name, source in sources.items():
        if "ImageInput" in source or "Image.open" in source:
            assert "from bench.pictures import make_pictures" in source, name
        # What is searched for is a sample of the index's own vectors, as in its proof.
        assert not re.search(r"skimage|requests\.(get|post)|urllib|\.search\((?!name, sample\.vectors)", source), name


def test_the_jobs_and_options_of_the_walk_through_exist() -> None:
    code = "\n".join(cell.source for cell in read("governance").cells if cell.cell_type == "code")
    tree = ast.parse(re.sub(r"(?m)^%.*$", "", code))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run"]
    ran = []
    for call in sorted(calls, key=lambda call: call.lineno):
        words = [str(node.value) for node in call.args if isinstance(node, ast.Constant)]
        command: click.Command = importlib.import_module(f"jobs.{words[0]}").main
        command.make_context(words[0], words[1:])
        ran.append(words[0])
    assert " ".join(ran) == "ingest reindex ingest reindex sync erase erase erase verify ingest verify"


# --- Executed --------------------------------------------------------------------------------------------------------


def test_quickstart(tmp_path: Path) -> None:
    done = executed("quickstart", tmp_path)
    assert {row[0]: tuple(row[1:]) for row in table(done, "outcomes")} == {
        "progressive": ("1", "embedded", "", "1"),
        "face_level": ("1", "embedded", "", "1"),
        "bystanders": ("1", "uncovered_faces", "UNCOVERED_FACES", "0"),
        "no_face": ("1", "no_face", "NO_FACE", "0"),
        "truncated": ("1", "broken", "TRUNCATED", "0"),
        "no record": ("0", "uncovered_faces", "NO_COVERED_RECORD", "0"),
    }
    words = said(done)
    # As tests/e2e/line.py: what the notebook's kernel finds in the cache, too.
    known = trained()
    assert ("weights: casia-webface |" if known else "UNTRAINED") in words["pipeline"]
    length, numbers, alone, two = re.findall(r"-?\d+\.?\d*", words["vectors"])
    assert (length, numbers, alone) == ("1.0000", "512", "1.0000")
    # Two pictures of one face.
    assert (0.7 if known else -1) < float(two) < 1
    assert ("(UNTRAINED)" in words["vectors"]) != known


@pytest.mark.faults
def test_index(tmp_path: Path) -> None:
    done = executed("index", tmp_path)
    words = said(done)
    same, different = (float(value) for value in re.findall(r"-?\d\.\d+", words["cosines"]))
    # As bench/faces.py makes them.
    assert same == pytest.approx(0.83, abs=0.02)
    assert different == pytest.approx(0.155, abs=0.02)
    two, eleven = (int(value) for value in re.findall(r"(\d+)%", words["projection"]))
    assert 2 * 100 / 512 < two < eleven < 100
    assert "rows: 8000 | fields: face_id, embedding, bucket, purposes, expires_at" in words["rows"]
    assert "every row is its own nearest: True" in words["truth"]
    found: dict[str, list[float]] = {}
    for _, index_type, _, recall, itself, *_ in table(done, "trials"):
        found.setdefault(index_type, []).append(float(recall))
        assert float(itself) > 0.9
    assert found.pop("FLAT") == [1.0]
    for index_type, recalls in found.items():
        assert recalls[0] < recalls[-1], index_type
        assert recalls[-1] > 0.95, index_type


def test_bench_says_what_the_committed_results_say(tmp_path: Path) -> None:
    done = executed("bench", tmp_path)
    # Nothing in it is measured: a result that was measured anew is to be shown anew.
    assert said(done) == said(read("bench")), "make notebooks NAME=bench"
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    assert {row[0] for row in table(done, "results")} == set(results)
    ratios = results["pipeline"]["ratios"]
    assert {name: float(value) for name, value in table(done, "ratios")} == ratios
    machine, *_ = said(done)["made-up"].splitlines()
    assert machine.startswith("machine.cpu: ")
    compared = {row[0]: row[1:] for row in table(done, "made-up")}
    assert compared.keys() == ratios.keys()
    assert {name for name, (*_, change, _) in compared.items() if float(change)} == {"ours_spark_to_daft"}
    assert [name for name, (*_, news) in compared.items() if news == "True"] == ["ours_spark_to_daft"]


@pytest.mark.faults
def test_governance(tmp_path: Path) -> None:
    words = said(executed("governance", tmp_path))
    assert "{'embedded': 3, 'refused': 1}, {'refused:NO_BASIS': 1}" in words["reindex"]
    assert ("weights casia-webface" if trained() else "UNTRAINED") in words["reindex"]
    live = [int(words[cell].split("faces in the live index: ")[1]) for cell in ("live", "sync", "erase")]
    assert live == [3, 2, 1]
    assert ast.literal_eval(words["withdrawal"].splitlines()[-1]) == {"NO_BASIS": 1, "CONSENT_ENDED": 1}
    assert ast.literal_eval(words["held"].splitlines()[-1]) == {"images": 1, "faces": 1, "records": 1}
    receipt = json.loads(words["receipt"])
    assert receipt["erased"] == {"images": 1, "faces": 1, "records": 1, "shared_images": 0}
    stores = [*receipt["stores"]["collections"].values(), *receipt["stores"]["tables"].values()]
    assert len(stores) == 6
    for store in stores:
        assert (store["before"], store["left"]) == (store["after"] + store["erased"], 0)
    assert words["again"].splitlines()[-1] == "True"
    assert "nothing of" in words["proof"]
    assert "Ada's vector is unchanged: True" in words["proof"]
    counts = ast.literal_eval(words["back"].splitlines()[-1])
    assert (counts["new"], counts["unchanged"], counts["barred"]) == (0, 2, 2)
    assert "audit events follow from each other" in words["audit"]
