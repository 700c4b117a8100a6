"""The notebooks, executed cell by cell. They hold no outputs, so that no face is ever committed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.e2e

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def code_cells(name: str) -> list[str]:
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def executed(name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(code_cells(name)):
        exec(compile(source, f"{name}[{number}]", "exec"), namespace)  # noqa: S102 - a notebook of this repository
    return namespace


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_no_outputs_are_kept(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_quickstart(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = executed("quickstart.ipynb")
    outcomes = {name: (result.status, result.reason) for name, result in found["results"].items()}
    assert outcomes == {
        "portrait": ("embedded", ""),
        "crop": ("embedded", ""),
        "no face": ("no_face", "NO_FACE"),
        "no record": ("uncovered_faces", "NO_COVERED_RECORD"),
        "not an image": ("broken", "NOT_AN_IMAGE"),
    }
    assert np.linalg.norm(found["first"].embedding) == pytest.approx(1, abs=1e-5)
    assert found["repeated"] == pytest.approx(1, abs=1e-5)
    assert -1 <= found["cosine"] < 1 - 1e-5
    assert (found["uncovered"].status, len(found["uncovered"].faces)) == ("uncovered_faces", 0)
    assert (found["boxed"].status, len(found["boxed"].faces), found["boxed"].dropped.uncovered) == ("embedded", 1, 1)
    assert found["weights"].trained is False
    assert capsys.readouterr().out.count("UNTRAINED") == 2
