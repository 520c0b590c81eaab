"""Prometheus' and Grafana's files: parsed by Prometheus' own tool, by Grafana's types, and against the real metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from otf_stream.monitor.metrics import Metrics
from otf_stream.monitor.monitor import Monitor

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "otf-stream.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "otf-stream.json"
GRAFANA = DEPLOY / "grafana" / "provisioning"

PROMTOOL = shutil.which("promtool")
promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)")


def run(*words: object, folder: Path) -> str:
    done = subprocess.run([str(PROMTOOL), *map(str, words)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    (group,) = loaded(RULES)["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


@promtool
def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    (folder / "token").mkdir()
    (folder / "token" / "monitor.token").write_text("not one that counts")
    assert "SUCCESS" in run("check", "config", "prometheus.yml", folder=folder)


@promtool
def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    assert f"{len(alerts())} rules found" in run("check", "rules", RULES.name, folder=RULES.parent)
    assert "SUCCESS" in run("test", "rules", "otf-stream.rules.test.yml", folder=RULES.parent)


def test_each_alert_has_a_test_a_remedy_and_a_page() -> None:
    tests = loaded(DEPLOY / "prometheus" / "otf-stream.rules.test.yml")["tests"]
    fired = {test["alertname"] for case in tests for test in case["alert_rule_test"] if test.get("exp_alerts")}
    assert fired == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["labels"]["severity"] in ("warning", "critical")
        told = alert["annotations"]
        assert told.keys() == {"summary", "description", "runbook"}
        pages = re.findall(r"docs/\w+\.md", told["runbook"])
        assert "docs/monitoring.md" in pages
        assert all((DEPLOY.parent / page).exists() for page in pages)


def metrics_of(data: Path) -> set[str]:
    """Names of the metrics that a monitor has."""
    from monitor_folders import at_work

    at_work(data)
    monitor = Monitor(data, throughput=False)
    try:
        text = Metrics(monitor).text().decode()
    finally:
        monitor.close()
    names = set(re.findall(r"(?m)^(otf_stream_\w+)", text))
    # Those that there are only while a stack has a deadline, and once one was restored.
    return names | {"otf_stream_nearest_deadline_seconds", "otf_stream_last_margin_seconds"}


def test_every_metric_that_is_asked_for_exists(tmp_path: Path) -> None:
    there = metrics_of(tmp_path)
    assert "otf_stream_listener_refused_total" in there
    for path in (RULES, DASHBOARD):
        asked = set(re.findall(r"\botf_stream_[a-z_]+\b", path.read_text(encoding="utf-8")))
        assert len(asked) > 10
        assert asked <= there, f"{path.name} asks for metrics that there are not"


def test_grafana_loses_nothing_of_the_dashboard() -> None:
    # What Grafana's own types write has every field that they read: none is unknown, or in the wrong place.
    register_default_plugins()
    written = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert list(_lost(written, read)) == []


def _lost(written: Any, read: Any, place: str = "") -> list[str]:
    if isinstance(written, dict):
        return [lost for key in written for lost in _lost(written[key], read.get(key), f"{place}.{key}")]
    if isinstance(written, list):
        if len(written) != len(read or ()):
            return [place]
        return [
            lost
            for i, (one, other) in enumerate(zip(written, read, strict=True))
            for lost in _lost(one, other, f"{place}[{i}]")
        ]
    return [] if written == read else [place]


def test_panels_have_a_place_and_a_source_of_their_own() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    (source,) = loaded(GRAFANA / "datasources" / "prometheus.yml")["datasources"]
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_grafana_is_told_where_to_find_all_of_it() -> None:
    compose = loaded(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    (provider,) = loaded(GRAFANA / "dashboards" / "otf-stream.yml")["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose
    (source,) = loaded(GRAFANA / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"


@promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 15
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, expression in enumerate(asked)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    run("check", "rules", "rules.yml", folder=tmp_path)
