"""The demo's last table, without networks: what is compared with what, and what is said of untrained weights."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench import damage, demo, weights
from bench.damage import AT_MOST, Damage, damages, ordered
from bench.pictures import Picture, make_pictures
from jobs.settings import load_settings
from udfs import casia
from udfs.arrays import EMBEDDING_DIM
from udfs.params import PipelineParams
from udfs.weights import WeightsError

pytestmark = pytest.mark.unit

KINDS = ("single_face", "several_faces", "cmyk", "no_face")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    return make_pictures(tmp_path_factory.mktemp("pictures"), kinds=KINDS)


def test_portraits_are_compared_with_their_own_pictures_and_few_of_a_kind(
    pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def embedded(portraits: Mapping[str, Any], *_: object) -> dict[str, np.ndarray]:
        asked.extend(portraits)
        # Of one portrait no face is found.
        return {path: np.eye(EMBEDDING_DIM, dtype=np.float32)[0] for path in portraits if "cmyk-005" not in path}

    monkeypatch.setattr(damage, "embedded", embedded)
    turned = {"cmyk": 0.5, "single_face": 0.1}
    vectors = {}
    for picture in pictures:
        vectors[picture.path] = np.zeros(EMBEDDING_DIM, np.float32)
        vectors[picture.path][:2] = np.cos(turned.get(picture.kind, 0)), np.sin(turned.get(picture.kind, 0))
    del vectors["cmyk/cmyk-000.jpg"]  # not indexed
    rows = damages(pictures, vectors, Path("model.pt"), PipelineParams())
    assert [(row.kind, row.pictures) for row in rows] == [("single_face", AT_MOST), ("cmyk", 4)]
    assert [row.median for row in rows] == pytest.approx([np.cos(0.1), np.cos(0.5)])
    assert not any(path.startswith(("several_faces", "no_face")) for path in asked)


def test_the_least_damaged_come_first() -> None:
    rows = ordered({"b": [0.1, 0.9, 0.5], "a": [0.8, 0.7], "none": []})
    assert rows == [Damage("a", 2, 0.75, 0.7), Damage("b", 3, 0.5, 0.1)]
    out = io.StringIO()
    Console(file=out, width=100).print(damage.table(rows))
    assert "0.750" in out.getvalue()


def test_with_untrained_weights_no_cosine_is_shown(pictures: list[Picture]) -> None:
    out = io.StringIO()
    settings = load_settings(overrides=["model.weights=random"], environ={})
    nothing: Any = None
    demo._damages(Console(file=out, width=200), nothing, nothing, pictures, settings)
    assert "UNTRAINED" in out.getvalue()
    assert "median" not in out.getvalue()


# --- Which weights ---------------------------------------------------------------------------------------------------


def test_without_fetching_the_cache_alone_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udfs.weights.resolve_weights", None)
    monkeypatch.setattr(weights, "_cache", lambda: tmp_path)
    assert weights.demo_weights(fetch=False) == "random"
    casia.cached_file(tmp_path).touch()
    assert weights.demo_weights(fetch=False) == weights.TRAINED == casia.NAME


def test_where_none_can_be_had_the_random_ones_are_called_untrained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, "unavailable")
    assert weights.demo_weights() == weights.UNTRAINED == "random"
    assert "UNTRAINED" in capsys.readouterr().out


def test_other_bytes_than_the_pinned_ones_are_told_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "mismatch")
    with pytest.raises(WeightsError):
        weights.demo_weights()


def failing(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise WeightsError(kind, "not there")

    monkeypatch.setattr("udfs.weights.resolve_weights", resolve)


def test_no_job_chooses_by_what_is_reached() -> None:
    root = Path(weights.__file__).parents[1]
    sources = [path for folder in ("jobs", "udfs") for path in (root / folder).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if "demo_weights" in path.read_text(encoding="utf-8")] == []


def test_who_asks_for_weights_has_not_imported_torch_yet() -> None:
    """An import of udfs says how OpenMP's threads wait; the benchmarks' others are timed with nobody's settings."""
    code = "import sys, bench.weights, bench.demo, bench.pipeline, bench.growth; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
