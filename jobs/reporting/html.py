"""The report as one HTML page: no script, no font, no picture from elsewhere, and so no network."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from jobs.formatting import digits, duration, percent, short, size, thousands
from jobs.index.verification import Proof
from jobs.reporting import charts, flow
from jobs.reporting.collect import Report
from jobs.reporting.timings import Throughput
from jobs.runs.results import Embedded, Imported, Indexed, Screened, Staged, Verified
from jobs.runs.step_result import StepResult
from udfs.statuses import Status

#: How a group of images is coloured; what is not here is neutral.
_TONES: Final = {
    flow.NOW: "now",
    flow.REUSED: "reused",
    flow.LEFT: "waiting",
    flow.PENDING: "waiting",
    flow.REFUSED: "refused",
}
_LAWFUL_BASES: Final = {
    "eu-gdpr:A6-1-a": "consent",
    "dpv:ExplicitlyExpressedConsent": "express consent",
    "eu-gdpr:A6-1-b": "contract",
    "eu-gdpr:A6-1-c": "legal obligation",
    "eu-gdpr:A6-1-d": "vital interests",
    "eu-gdpr:A6-1-e": "public task",
    "eu-gdpr:A6-1-f": "legitimate interests",
}


def render(report: Report) -> str:
    """The page."""
    verified = report.recorded.verified
    proof = None if verified is None else verified.proof
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            run=report.run,
            recorded=report.recorded,
            counts=report.recorded.counts,
            proof=proof,
            refusals=flow.refusals(report.recorded),
            statuses=flow.statuses(report.recorded),
            other_reasons=flow.other_reasons(report.recorded),
            diagram=charts.flow_diagram(report.links),
            timeline=charts.along(report.step_timings),
            rates=_chart(report.throughput, [point.rate for point in report.throughput]),
            shares=_chart(report.throughput, [point.share or 0.0 for point in report.throughput], top=1.0),
            ends=_months(report.permissions.months),
            apart=_apart(proof),
            on_gpu=[name for name in report.recorded.computed.devices if name.startswith("cuda")],
            step_units=_step_units(report),
        )
    )


def _chart(points: list[Throughput], values: list[float], top: float | None = None) -> dict[str, object]:
    end = top or charts.round_up(max(values, default=0.0))
    return {"bars": charts.over_time(points, values, end), "top": end}


def _months(counts: tuple[int, ...]) -> dict[str, object]:
    # Records are whole: an axis that ends at less than one would be drawn to nothing.
    end = max(1.0, charts.round_up(max(counts)))
    return {"bars": charts.side_by_side(counts, end), "top": end}


def _apart(proof: Proof | None) -> dict[str, Any] | None:
    """The histogram of nearest neighbours; None where the proof has none, of few faces or by an earlier release."""
    if proof is None or proof.distances is None:
        return None
    counts = proof.distances.nearest
    end = charts.round_up(max(counts))
    edges = [(n / len(counts), (n + 1) / len(counts)) for n in range(len(counts))]
    rows = [(low, high, count) for (low, high), count in zip(edges, counts, strict=True) if count]
    return {**asdict(proof.distances), "bars": charts.side_by_side(counts, end), "top": end, "rows": rows}


def _node_tone(node: charts.Node) -> str:
    if node.column == 2 and node.group != flow.REFUSED:
        return "good" if node.key == Status.EMBEDDED else "neutral"
    return _TONES.get(node.group, "neutral")


def _step_units(report: Report) -> dict[str, tuple[int, str]]:
    """What a step went through, where that is on record: how many, of what."""
    recorded = report.recorded
    imported = None if recorded.imported is None else recorded.imported.rows
    units: dict[type[StepResult], tuple[int | None, str]] = {
        Screened: (None if recorded.screened is None else recorded.screened.images, "images"),
        Embedded: (recorded.computed.images, "images"),
        Staged: (recorded.staged, "faces"),
        Imported: (imported, "faces"),
        Indexed: (imported, "faces"),
        Verified: (None if recorded.verified is None else recorded.verified.proof.rows_found, "faces"),
    }
    return {kind.STEP.rstrip("/"): (count, unit) for kind, (count, unit) in units.items() if count}


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        num=thousands,
        short=short,
        dur=duration,
        size=size,
        rate=digits,
        pct=percent,
        css=lambda share: f"{100 * share:.3f}%",
        moment=lambda at: f"{datetime.fromtimestamp(at, UTC):%-d %b %Y, %H:%M} UTC",
        clock=lambda at: f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}",
        words=lambda code: code.replace("_", " ").lower(),
        axis=lambda at: f"{datetime.fromtimestamp(at, UTC):%-d %b, %H:%M}",
        node_tone=_node_tone,
        tone=lambda group: _TONES.get(group, "neutral"),
        basis=lambda code: _LAWFUL_BASES.get(code, "other"),
    )
    return environment


def _source(name: str) -> str:
    # Not a path: the package may be inside the zip of --py-files.
    return resources.files("jobs.reporting").joinpath("templates", name).read_text(encoding="utf-8")
