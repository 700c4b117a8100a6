"""The report's sums, its diagrams and its page, from reports made here: no JVM, no browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import ClassVar

import pytest

from jobs.reporting import charts, flow, html, timings
from tests.unit.reporting.reports import EARLY, FAILED, GOOD, LARGE, NOTHING, PROOF, RESULTS, recorded

pytestmark = pytest.mark.unit

ALL = {"good": GOOD, "large": LARGE, "failed": FAILED, "early": EARLY, "nothing": NOTHING}


# --- Where the images went -------------------------------------------------------------------------------------------


def test_every_image_goes_one_way() -> None:
    links = flow.links(GOOD.recorded)
    assert sum(link.images for link in links) == 1_000
    assert [(link.group, link.outcome, link.images) for link in links] == [
        (flow.NOW, "embedded", 152),
        (flow.NOW, "no_face", 40),
        (flow.NOW, "broken", 10),
        (flow.REUSED, "embedded", 598),
        (flow.REUSED, "no_face", 50),
        (flow.LEFT, "", 2),
        (flow.REFUSED, "NO_BASIS", 100),
        (flow.REFUSED, "CONSENT_ENDED", 48),
    ]
    assert GOOD.reconciles


def test_before_the_proof_the_rest_is_reused_or_not_reached() -> None:
    links = {(link.group, link.outcome): link.images for link in EARLY.links}
    assert links == {
        (flow.NOW, "embedded"): 60,
        (flow.REUSED, ""): 650,
        (flow.PENDING, ""): 142,
        (flow.REFUSED, "NO_BASIS"): 100,
        (flow.REFUSED, "CONSENT_ENDED"): 48,
    }
    assert EARLY.reconciles


def test_many_reasons_are_shown_as_eight() -> None:
    reasons = {f"REASON_{n}": 100 - n for n in range(20)}
    gate = {"images": sum(reasons.values()), "accepted": 0, "refused": sum(reasons.values()), "reasons": reasons}
    links = flow.links(recorded({"gate": gate}))
    assert [link.outcome for link in links] == [*(f"REASON_{n}" for n in range(7)), "other reasons"]
    assert sum(link.images for link in links) == gate["images"]


@pytest.mark.parametrize(
    ("step", "changes", "check"),
    [
        ("gate", {"images": 1_001}, "Images in"),
        ("gate", {"refused": 147}, "Refused at the gate"),
        ("plan", {"images": 201}, "Images in"),
        ("verify", {"counts": {**PROOF["counts"], "images": 999}}, "Images at the proof"),
        ("verify", {"counts": {**PROOF["counts"], "faces": 799}}, "Faces of all images"),
        ("verify", {"rows_expected": 801}, "Faces permitted"),
        ("verify", {"rows_found": 801}, "Faces staged"),
    ],
)
def test_a_sum_that_does_not_agree_is_said_loudly(step: str, changes: dict[str, object], check: str) -> None:
    checks = flow.checks(recorded({**RESULTS, step: {**RESULTS[step], **changes}}, GOOD.recorded))
    assert check in {one.name for one in checks if not one.agrees}
    shown = html.render(replace(GOOD, checks=checks))
    assert 'role="alert"' in shown
    assert "The sums do not agree" in shown
    assert "✗ off by 1" in shown


def test_a_file_that_was_not_loaded_is_missed() -> None:
    assert GOOD.recorded.imports is not None
    short = replace(GOOD.recorded, imports=replace(GOOD.recorded.imports, loaded_rows=700))
    assert [check.difference for check in flow.checks(short) if not check.agrees] == [-105]


# --- Diagrams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [GOOD.links, EARLY.links, GOOD.links[:1]], ids=["good", "early", "one"])
def test_bars_of_the_flow_do_not_overlap_and_ribbons_join_them(links: list[flow.Link]) -> None:
    diagram = charts.flow_diagram(links)
    for column in range(3):
        nodes = [node for node in diagram.nodes if node.column == column]
        for above, below in pairwise(nodes):
            # Room for a line of text each.
            middles = [node.top + node.height / 2 for node in (above, below)]
            assert middles[1] - middles[0] >= 20
            assert above.top + above.height < below.top
        assert all(node.top >= 0 and node.top + node.height <= diagram.height for node in nodes)
    assert sum(node.images for node in diagram.nodes if node.column == 1) == sum(link.images for link in links)
    groups = {link.group for link in links}
    assert len(diagram.ribbons) == len(groups) + sum(bool(link.outcome) for link in links)


def test_a_share_of_a_thousandth_is_still_seen() -> None:
    diagram = charts.flow_diagram([flow.Link(flow.NOW, "embedded", 10**9), flow.Link(flow.REFUSED, "NO_BASIS", 1)])
    assert min(node.height for node in diagram.nodes) >= 1
    assert diagram.height < 400


def test_bars_over_time_lie_where_their_chunks_did() -> None:
    points = [timings.Throughput(0, 10, 100, 80, 10, 0.5), timings.Throughput(30, 40, 50, 40, 10, 0.9)]
    bars = charts.over_time(points, [point.rate for point in points], charts.round_up(10))
    assert [(bar.left, bar.width, bar.height) for bar in bars] == [(0, 0.25, 1), (0.75, 0.25, 0.5)]


@pytest.mark.parametrize(("value", "end"), [(0, 1), (0.34, 0.4), (1, 1), (18.2, 20), (2100, 2500), (10**6, 10**6)])
def test_an_axis_ends_at_a_round_number(value: float, end: float) -> None:
    assert charts.round_up(value) == pytest.approx(end)


# --- The page --------------------------------------------------------------------------------------------------------


class Strict(HTMLParser):
    """Open elements must be closed in order; addresses and inline handlers are collected."""

    EMPTY: ClassVar = {"meta", "link", "br", "path"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value for name, value in attrs if name in {"src", "href", "action", "srcset"}]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ALL)
def test_the_page_is_well_formed_and_asks_nobody(name: str) -> None:
    shown = html.render(ALL[name])
    parser = Strict()
    parser.feed(shown)
    parser.close()
    assert parser.open == []
    assert set(parser.addresses) == {"data:,"}
    assert not re.search(r"url\(|@import|https?:", shown)
    assert "default-src 'none'" in shown


def test_what_was_recorded_cannot_become_markup() -> None:
    run = replace(FAILED.run, message="<script>alert(1)</script> & more", next_step="<b>now</b>")
    shown = html.render(replace(FAILED, run=run))
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in shown
    assert "&lt;b&gt;now" in shown


def test_each_diagram_has_its_numbers_as_text() -> None:
    shown = html.render(GOOD)
    assert "<desc" in shown
    for link in GOOD.links:
        assert f"{link.images:,} {link.group}" in shown
    assert shown.count("The same as a table") == 4


def test_how_far_apart_faces_are_is_a_histogram_of_the_sample() -> None:
    trained = replace(GOOD, run=replace(GOOD.run, weights="casia-webface"))
    shown = html.render(trained)
    assert "How far apart are faces" in shown
    assert "Near 1 lie other pictures of the same person" in shown
    assert '<td>0.85 to 0.90</td><td class="n">51</td>' in shown
    assert "0.35 to 0.40" not in shown  # nobody's nearest
    assert "median 0.17; one pair in a hundred is below -0.15, one above 0.51" in shown
    # Untrained weights say nothing of faces, and the page says so.
    shown = html.render(GOOD)
    assert "so this says nothing of faces" in shown
    assert "Near 1 lie" not in shown


@pytest.mark.parametrize("proof", [{**PROOF, "distances": None}, {k: v for k, v in PROOF.items() if k != "distances"}])
def test_a_proof_of_few_faces_or_of_an_earlier_release_has_no_histogram(proof: dict[str, object]) -> None:
    without = recorded({**RESULTS, "verify": proof}, GOOD.recorded)
    shown = html.render(replace(GOOD, recorded=without))
    assert "too few faces, or its release did not record it" in shown
    assert shown.count("The same as a table") == 3


def test_a_refused_index_is_told_with_its_histogram() -> None:
    """All nearest neighbours at 1: what a collapsed network makes."""
    fault = "the vectors have collapsed: 99 of 100 pairs of faces have a cosine of 0.9990 or more"
    alike = {"faces": 200, "nearest": [0] * 19 + [200], "low": 0.999, "median": 1.0, "high": 1.0, "spread": 0.7}
    proof = {**PROOF, "passed": False, "faults": [fault], "implausible": fault, "distances": alike}
    shown = html.render(replace(FAILED, recorded=recorded({"verify": proof}, FAILED.recorded)))
    assert fault in shown
    assert "✗ not proven" in shown
    assert '<td>0.95 to 1.00</td><td class="n">200</td>' in shown


def test_without_a_gpu_and_without_times_the_page_says_so() -> None:
    assert "No GPU was used." in html.render(EARLY)
    timed = replace(GOOD.recorded.computed, share=None, devices=())
    untimed = [replace(point, share=None) for point in GOOD.throughput]
    shown = html.render(replace(GOOD, recorded=replace(GOOD.recorded, computed=timed), throughput=untimed))
    assert "Not measured" in shown


def test_a_run_that_stopped_at_once_has_a_page() -> None:
    shown = html.render(NOTHING)
    assert "before any step was done" in shown
    assert "write a template" in shown
    assert "embedded nothing" in shown
