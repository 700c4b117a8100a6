"""What Prometheus and Grafana are told to look for is in the files that a run writes. No Prometheus, no Grafana."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs.runs.metrics import RunMetrics
from jobs.runs.results import Outlook
from jobs.runs.step_watcher import ActiveStep
from jobs.steps.accumulators import Counters
from tests.unit.promql import Malformed, parse
from tests.unit.runs.samples import GATE, VERIFY

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "conf/prometheus-rules.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((ROOT / "conf/grafana-dashboard.json").read_text(encoding="utf-8"))
#: Put there by whoever scrapes.
SCRAPED = {"instance", "job"}
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")


class Context:
    """Accumulators of a driver without Spark."""

    def accumulator(self, value: int) -> Any:
        return type("Accumulator", (), {"value": value})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every metric that a run can write, with its labels: as Prometheus's own parser reads them in the file."""
    path = tmp_path_factory.mktemp("metrics") / "m.prom"
    watch = ActiveStep("embed/3-5", "", "group", 0.0, done=4, total=9, stalled=True)
    metrics = RunMetrics(str(path), "reindex", "night-1", active=lambda: [watch])
    metrics.also(Counters(Context()).totals())  # type: ignore[arg-type]
    ahead = Outlook(records=900, ending=40, open_requests=2, oldest_request=1767225600.0)
    steps: dict[str, dict[str, Any]] = {"gate": GATE, "embed/0-0": {"images": 1, "faces": 1}, "verify": VERIFY}
    for name, result in {**steps, "outlook": ahead.record()}.items():
        metrics.step_done(name, result, 1.0)
    metrics.ended("done")
    assert metrics.write() is None
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target


EXPRESSIONS = [
    *((rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()),
    *((title, target["expr"]) for title, target in panels()),
]


@pytest.mark.parametrize(("name", "text"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_what_is_asked_for_is_written(name: str, text: str, written: dict[str, set[str]]) -> None:
    recorded = {rule["record"]: parse(rule["expr"]).labels for rule in rules() if "record" in rule}
    found = parse(text)
    assert found.metrics, text
    labels: set[str] = set()
    for metric, asked in found.metrics:
        known = written[metric] if metric in written else recorded[metric]
        assert asked <= known | SCRAPED, f"{name}: {metric} has no {asked - known - SCRAPED}"
        labels |= known
    assert found.labels <= labels | SCRAPED, name


def test_rules_are_as_prometheus_reads_them() -> None:
    assert set(RULES) == {"groups"}
    names = [group["name"] for group in RULES["groups"]]
    assert len(set(names)) == len(names)
    for group in RULES["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
    for rule in rules():
        if "record" in rule:
            assert set(rule) <= {"record", "expr", "labels"}
            assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z_]+", rule["record"])
        else:
            assert set(rule) == {"alert", "expr", "labels", "annotations"} | {"for"} & set(rule), rule["alert"]
            assert DURATION.fullmatch(rule.get("for", "1m")), rule["alert"]
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert set(rule["annotations"]) == {"summary", "next"}
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(set(alerts)) == len(alerts)


def test_texts_of_alerts_name_what_is_there(written: dict[str, set[str]]) -> None:
    labels = set().union(*written.values()) | SCRAPED
    humanize = {"humanizeDuration", "humanizePercentage", "humanize"}
    for rule in rules():
        for text in rule.get("annotations", {}).values():
            for inside in re.findall(r"\{\{(.*?)\}\}", text):
                value, _, function = (part.strip() for part in inside.partition("|"))
                assert value == "$value" or value.removeprefix("$labels.") in labels, text
                assert function in humanize | {""}, text
            for page in re.findall(r"docs/[\w-]+\.md(?:, ([A-Z][\w ]+))?", text):
                (name,) = re.findall(r"docs/[\w-]+\.md", text)
                assert not page or f"\n## {page}" in (ROOT / name).read_text(), text


@pytest.mark.parametrize(
    ("what", "metrics"),
    [
        ("no run for 26 h", {"last_success_timestamp_seconds"}),
        ("a run failed", {"run_state"}),
        ("refusals up", {"refused:ratio"}),
        ("pace down", {"pace:images_per_second", "embedded_images"}),
        ("expiries ahead", {"records_ending_30d", "records_in_force"}),
        ("erasures overdue", {"oldest_open_erasure_timestamp_seconds"}),
    ],
)
def test_there_is_an_alert_for(what: str, metrics: set[str]) -> None:
    watched = [{m.rpartition("face_reindex_")[2] for m, _ in parse(r["expr"]).metrics} for r in rules() if "alert" in r]
    assert metrics in watched, what


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD))) <= variables


def test_each_metric_is_explained(written: dict[str, set[str]]) -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([a-z0-9_]+)(?:\{[a-z_,]+\})?`", page))
    assert {name.removeprefix("face_reindex_") for name in written} <= explained


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 + 2 * 3 ^ 2 ^ -1", "scalar"),
        ("time() - x > bool 3", "vector"),
        ("1 > bool 2", "scalar"),
        ('sum by (a, b) (rate(x_total{c=~"d|e", f!="g"}[5m])) or vector(0)', "vector"),
        ("sum(x) without (a) / on (b) group_left (c) y", "vector"),
        ("max_over_time(avg(x)[7d:1h] offset 1d)", "vector"),
        ("a and on (b) c unless ignoring (d) e", "vector"),
        ("-x / 1e3", "vector"),
        ("a:b:c >= 0.5 < 1", "vector"),
    ],
)
def test_promql_is_read(text: str, kind: str) -> None:
    assert parse(text).kind == kind


@pytest.mark.parametrize(
    "text",
    [
        "", "x +", "x y", "(x", "x)", "x{a=b}", 'x{a="b"', 'x{a=="b"}', "x[5]", "x[5m]", "rate(x)", "rate(x[5m]",
        "1 > 2", "1 and x", "sum by a (x)", "sum()", "foo(x)", "x or on (a) group_left y", "absent(x, y)", "time()[5m]",
        "x offset", "x > > y", "x and bool y", '"text"', "x $ y", "sum by (a,,b) (x)", "1 + on (a) x", "5q",
    ],
)  # fmt: skip
def test_what_is_no_promql_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)
