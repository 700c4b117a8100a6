"""The ROC of an evaluation as a picture; needs matplotlib (the extra `plots`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

FORMATS: Final = ("png", "svg")
# Okabe and Ito's colours, told apart by the colour-blind; from the eighth line on the strokes differ.
_COLOURS: Final = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C6D31")
_STROKES: Final = ("-", "--", ":", "-.")
_ALL: Final = "#0072B2"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_roc(evaluation: dict[str, Any], folder: Path) -> list[str]:
    """Write roc.png and roc.svg into ``folder``; returns their names."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    level = round(100 * evaluation["intervals"]["level"])
    _line(axes, evaluation["roc"], _ALL, "-", f"all pairs, with {level} % band", width=2.2, band=True)
    groups = [(name, found) for name, found in evaluation["groups"].items() if found["stated"]]
    for number, (name, found) in enumerate(groups):
        stroke = _STROKES[number // len(_COLOURS) % len(_STROKES)]
        _line(axes, found["roc"], _COLOURS[number % len(_COLOURS)], stroke, _plain(name))
    fars = [point["far"] for point in evaluation["roc"]]
    axes.plot(fars, fars, color="#999999", linewidth=1, linestyle=(0, (1, 2)), label="chance")
    axes.set(xscale="log", xlim=(fars[0], 1), ylim=(-0.01, 1.01))
    axes.set_xlabel(
        f"false acceptance rate (log scale; begins at one of {evaluation['compared']['different']:,} impostor pairs)"
    )
    axes.set_ylabel("true acceptance rate")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(groups) < 8:
        axes.legend(frameon=False, loc="best")
    else:
        figure.legend(frameon=False, loc="outside right upper", fontsize="small")
    axes.set_title(_caption(evaluation), loc="left", fontsize=10)
    names = [f"roc.{form}" for form in FORMATS]
    # The same evaluation makes the same bytes: no date, and ids that do not hang on chance. Text stays text.
    with rc_context({"svg.hashsalt": evaluation["fingerprint"], "svg.fonttype": "none"}):
        for name in names:
            figure.savefig(folder / name, dpi=150, metadata={"Date": None} if name.endswith("svg") else None)
    return names


def _line(
    axes: Any,
    points: list[dict[str, float]],
    colour: str,
    stroke: str,
    label: str,
    *,
    width: float = 1.4,
    band: bool = False,
) -> None:
    fars = [point["far"] for point in points]
    axes.plot(fars, [point["tar"] for point in points], stroke, color=colour, linewidth=width, label=label)
    if band:
        low, high = ([point[edge] for point in points] for edge in ("low", "high"))
        axes.fill_between(fars, low, high, color=colour, alpha=0.18, linewidth=0)


def _caption(evaluation: dict[str, Any]) -> str:
    weights, accuracy = evaluation["weights"], evaluation["accuracy"]
    trained = "" if weights["trained"] else "\nUntrained weights: these curves say nothing about faces."
    return (
        f"1:1 verification, {sum(evaluation['compared'].values()):,} pairs; "
        f"accuracy {accuracy['mean']:.4f} ± {accuracy['standard_error']:.4f}\n"
        f"weights {_plain(weights['label'])}; model fingerprint {evaluation['fingerprint'][:16]}…{trained}"
    )


def _plain(text: str) -> str:
    """Without what matplotlib would take for formulas, or (an underscore in front) for a line to keep quiet about."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")
