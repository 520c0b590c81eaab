"""`report` and `view` as a user types them."""

import json
import sys

from typer.testing import CliRunner

from otf_stream.cli.commands import app

RUN = CliRunner()


def test_report_writes_a_page_beside_the_store(restored):
    result = RUN.invoke(app, ["report", str(restored), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"reports": [str(restored.with_name("cells.report.t0-c0.html"))]}


def test_report_writes_a_page_where_it_is_told_to(restored, tmp_path):
    page = tmp_path / "mine.html"
    result = RUN.invoke(app, ["report", str(restored), "--stack", "0", "0", "--out", str(page)])
    assert result.exit_code == 0
    assert page.is_file()


def test_a_stack_that_is_not_there_is_an_error_in_one_line(restored):
    result = RUN.invoke(app, ["report", str(restored), "--stack", "9", "0"])
    assert result.exit_code == 1
    assert "has no stack t=9" in result.stderr


def test_view_says_what_is_no_store_and_what_is_not_installed(restored, tmp_path, monkeypatch, capsys):
    assert RUN.invoke(app, ["view", str(tmp_path)]).exit_code == 1
    monkeypatch.setitem(sys.modules, "napari", None)
    result = RUN.invoke(app, ["view", str(restored)])
    assert result.exit_code == 1
    assert ".[napari]" in " ".join(capsys.readouterr().err.split()) + result.output + result.stderr
