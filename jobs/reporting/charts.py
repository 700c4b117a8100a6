"""Geometry of the report's diagrams: numbers in, places and paths out. Pure, and knows nothing of HTML.

Across, everything is a share of the width (paths: of 1,000 units), so that one drawing fits a screen and a phone. Down,
it is pixels: text beside the shapes keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobs.reporting.flow import Link
from jobs.reporting.timings import StepTiming, Throughput

_WIDTH: Final = 1000
_TALL: Final = 230  # all images, in pixels
_THIN: Final = 1.5  # the least that is still seen
_SLOT: Final = 22  # room for a line of text
_GAP: Final = 7
_COLUMNS: Final = (0.0, 0.42, 1.0)


@dataclass
class Node:
    """A bar of the flow diagram: ``left`` is a share of the width, ``top`` and ``height`` are pixels."""

    column: int
    key: str
    group: str
    images: int
    height: float
    top: float = 0.0

    @property
    def left(self) -> float:
        """Where it stands, as a share of the width."""
        return _COLUMNS[self.column]


@dataclass(frozen=True)
class Ribbon:
    """A band from one bar to the next."""

    group: str
    path: str


@dataclass(frozen=True)
class Flow:
    """The flow diagram."""

    nodes: list[Node]
    ribbons: list[Ribbon]
    height: float


@dataclass(frozen=True)
class Bar:
    """A bar over time; all four are shares of the chart."""

    left: float
    width: float
    height: float


def flow_diagram(links: Sequence[Link]) -> Flow:
    """All images on the left, how they were dealt with in the middle, how they ended on the right."""
    scale = _TALL / max(1, sum(link.images for link in links))
    thick = [max(_THIN, link.images * scale) for link in links]
    middle: dict[str, Node] = {}
    right: dict[str, Node] = {}
    for link, height in zip(links, thick, strict=True):
        _grow(middle, 1, link.group, link.group, link.images, height)
        if link.outcome:
            _grow(right, 2, link.outcome, link.group, link.images, height)
    first = Node(0, "images", "", sum(link.images for link in links), sum(thick))
    columns = [[first], list(middle.values()), list(right.values())]
    height = max(sum(_room(node) for node in column) for column in columns) + _GAP
    for column in columns:
        top = (height - sum(_room(node) for node in column)) / 2
        for node in column:
            node.top = top + (_room(node) - node.height) / 2
            top += _room(node)
    return Flow([node for column in columns for node in column], _ribbons(links, thick, first, middle, right), height)


def _grow(nodes: dict[str, Node], column: int, key: str, group: str, images: int, height: float) -> None:
    node = nodes.setdefault(key, Node(column, key, group, 0, 0.0))
    node.images += images
    node.height += height


def _room(node: Node) -> float:
    return max(node.height, _SLOT) + _GAP


def _ribbons(
    links: Sequence[Link], thick: Sequence[float], first: Node, middle: dict[str, Node], right: dict[str, Node]
) -> list[Ribbon]:
    ribbons = []
    used = first.top
    for node in middle.values():
        ribbons.append(Ribbon(node.group, _band(first.left, used, node.left, node.top, node.height)))
        used += node.height
    leaving = {key: node.top for key, node in middle.items()}
    arriving = {key: node.top for key, node in right.items()}
    for link, height in zip(links, thick, strict=True):
        if link.outcome:
            path = _band(
                middle[link.group].left,
                leaving[link.group],
                right[link.outcome].left,
                arriving[link.outcome],
                height,
            )
            ribbons.append(Ribbon(link.group, path))
            arriving[link.outcome] += height
        leaving[link.group] += height
    return ribbons


def _band(x0: float, y0: float, x1: float, y1: float, height: float) -> str:
    x0, x1 = x0 * _WIDTH, x1 * _WIDTH
    bend = (x0 + x1) / 2
    return (
        f"M{x0:.0f} {y0:.1f}C{bend:.0f} {y0:.1f} {bend:.0f} {y1:.1f} {x1:.0f} {y1:.1f}V{y1 + height:.1f}"
        f"C{bend:.0f} {y1 + height:.1f} {bend:.0f} {y0 + height:.1f} {x0:.0f} {y0 + height:.1f}Z"
    )


def over_time(points: Sequence[Throughput], values: Sequence[float], top: float) -> list[Bar]:
    """A bar for each point, as wide as it took; ``top`` is the value of a full height."""
    if not points:
        return []
    begin, end = points[0].begin, max(point.end for point in points)
    span = max(end - begin, 1e-3)
    return [
        Bar((point.begin - begin) / span, (point.end - point.begin) / span, min(1.0, value / top if top else 0.0))
        for point, value in zip(points, values, strict=True)
    ]


def side_by_side(values: Sequence[float], top: float) -> list[Bar]:
    """A bar for each value, all of one width; ``top`` is the value of a full height."""
    return [Bar(n / len(values), 1 / len(values), min(1.0, value / top)) for n, value in enumerate(values)]


def along(steps: Sequence[StepTiming]) -> list[Bar]:
    """For each step where it lies between the first one's begin and the last one's end."""
    if not steps:
        return []
    begin, end = min(step.begin for step in steps), max(step.end for step in steps)
    span = max(end - begin, 1e-3)
    return [Bar((step.begin - begin) / span, (step.end - step.begin) / span, 1.0) for step in steps]


def round_up(value: float) -> float:
    """The next round number: the end of an axis."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))
