"""What `evaluate` prints and draws of figures that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.evaluation import roc_plot
from jobs.evaluation.roc_plot import can_draw, draw_roc
from jobs.evaluation.summary import evaluate_pairs, result_of
from tests.unit.evaluation.scored import labelled, made

pytestmark = pytest.mark.unit


def evaluation(*, groups: int = 2, trained: bool = False) -> dict[str, Any]:
    """A whole evaluation of invented scores."""
    scored = made(60, 20, spread=0.3)
    pairs = labelled(scored, groups=groups)
    label = "vggface2" if trained else "random(seed=0), UNTRAINED"
    found = np.ones(2 * len(pairs), bool)
    found[:3] = False
    return {
        "weights": {"label": label, "trained": trained, "sha256": "0" * 64},
        "fingerprint": "ab" * 32,
        "pairs": {"pairs": len(pairs)},
        **evaluate_pairs(pairs, scored.scores, found),
    }


def test_the_last_line_says_which_weights_and_what_was_left_out() -> None:
    whole = evaluation()
    result = result_of(whole, ["evaluation.json"], "out", None)
    assert result.exit_code == 0
    for part in ("UNTRAINED", "abababababab", "accuracy 0.", "over 10 folds", "at FAR 0.01", "3 pairs without a face"):
        assert part in result.message
    assert not {"roc", "groups"} & set(result.data)


def test_the_floor_is_for_the_stricter_figure() -> None:
    whole = evaluation()
    strict, published = whole["accuracy_failures_wrong"]["mean"], whole["accuracy"]["mean"]
    assert strict < published
    assert result_of(whole, [], "out", strict).exit_code == 0
    between = result_of(whole, [], "out", (strict + published) / 2)
    assert between.exit_code == 4
    assert between.message.startswith("below the floor of 0.")


def test_the_picture_names_the_weights_and_the_groups(tmp_path: Path) -> None:
    assert draw_roc(evaluation(), tmp_path) == ["roc.png", "roc.svg"]
    svg = (tmp_path / "roc.svg").read_text(encoding="utf-8")
    for part in ("UNTRAINED", "abababababababab", "group 0", "group 1", "all pairs", "log scale", "say nothing"):
        assert part in svg
    with Image.open(tmp_path / "roc.png") as image:
        assert image.size == (1200, 840)
    again = tmp_path / "again"
    again.mkdir()
    draw_roc(evaluation(), again)
    assert (again / "roc.svg").read_bytes() == (tmp_path / "roc.svg").read_bytes()


def test_trained_weights_are_not_called_untrained(tmp_path: Path) -> None:
    draw_roc(evaluation(trained=True), tmp_path)
    svg = (tmp_path / "roc.svg").read_text(encoding="utf-8")
    assert "vggface2" in svg
    assert "ntrained" not in svg.lower()


def test_a_group_s_name_is_text_and_no_formula(tmp_path: Path) -> None:
    whole = evaluation(groups=1)
    whole["groups"] = {r"$\frac{a": whole["groups"]["group 0"], "_hidden <b>": whole["groups"]["group 0"]}
    draw_roc(whole, tmp_path)
    svg = (tmp_path / "roc.svg").read_text(encoding="utf-8")
    assert "_hidden &lt;b&gt;" in svg


def test_without_matplotlib_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_draw()
    monkeypatch.setattr(roc_plot, "find_spec", lambda _: None)
    assert not can_draw()
