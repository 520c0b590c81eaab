"""``bench quality`` as it is typed: which cases are in which choice, and that what is there is not run again."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otf_stream.bench.cases import Case, all_cases
from otf_stream.bench.contenders import version_of_ours
from otf_stream.bench.gaussian import gaussian_cases
from otf_stream.cli.commands import app


def result(case: Case, budget: float = 120.0) -> dict:
    return {
        "case": case.name, **asdict(case), "machine": "2 cores", "budget": budget, "ours": version_of_ours(),
        "psnr": {"linear": 20.0, "otf_stream": 26.0}, "ssim": {"linear": 0.8, "otf_stream": 0.9},
        "provenance": {"method": "finetune"}, "seconds": {"otf_stream": 118.0},
        "axial_width": {"estimated": 5.5, "true": 5.0}, "gain": {"estimated": 1.98, "true": 2.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "count"), [("few", 8), ("cells", 40), ("all", 72), ("held-out", 36), ("gaussian", 10)]
)
def test_a_page_is_written_of_what_is_there(tmp_path: Path, cases: str, count: int) -> None:
    rows = [json.dumps(result(case)) for case in [*all_cases(), *gaussian_cases()]]
    (tmp_path / "page.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = tmp_path / "page.md"
    done = CliRunner().invoke(app, ["bench", "quality", "--cases", cases, "--out", str(page)])
    assert done.exit_code == 0, done.output
    told = page.read_text(encoding="utf-8")
    assert f"{count} cases" in told
    assert f"`otf-stream bench quality --cases {cases} --budget 120`" in told
    assert ("another simulator" in told) == (cases == "gaussian")
    assert (tmp_path / "page.jsonl").read_text(encoding="utf-8").splitlines() == rows


def test_what_is_kept_apart_has_pages_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, cases in (("quality", all_cases()), ("held-out", all_cases()), ("gaussian", gaussian_cases())):
        rows = [json.dumps(result(case)) for case in cases]
        (docs / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for choice in ("few", "held-out", "gaussian"):
        assert CliRunner().invoke(app, ["bench", "quality", "--cases", choice]).exit_code == 0
    assert "8 cases" in (docs / "quality.md").read_text(encoding="utf-8")
    assert "36 cases" in (docs / "held-out.md").read_text(encoding="utf-8")
    assert "10 cases" in (docs / "gaussian.md").read_text(encoding="utf-8")
