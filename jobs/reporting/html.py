"""The report as one HTML page: no script, no font, no picture from elsewhere, and so no network."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

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
        num=lambda value: f"{value:,}",
        short=short,
        dur=duration,
        size=size,
        rate=rate,
        pct=lambda share, digits=1: f"{100 * share:.{digits}f} %",
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


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 38 s, 2 min 14 s, 3 h 5 min.

    >>> duration(134), duration(0.42), duration(11100), duration(59.7)
    ('2 min 14 s', '0.4 s', '3 h 5 min', '1 min 0 s')
    """
    if round(seconds) < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{minutes} min {rest} s" if hours == 0 else f"{hours} h {left} min"


def short(count: int) -> str:
    """A count for a diagram, where there is room for a few characters.

    >>> short(9_999), short(212_300), short(12_340_000), short(3_000_000_000)
    ('9,999', '212 k', '12.3 M', '3.0 bn')
    """
    for unit, name in ((10**9, "bn"), (10**6, "M")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1000:.0f} k" if count >= 10**5 else f"{count:,}"


def size(count: float) -> str:
    """Bytes with a binary unit.

    >>> size(900), size(5_000_000)
    ('900 B', '4.8 MiB')
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if count < 1024 or unit == units[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def rate(value: float) -> str:
    """A rate with as many digits as mean something.

    >>> rate(0.4567), rate(18.23), rate(12345.6)
    ('0.46', '18.2', '12,346')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
