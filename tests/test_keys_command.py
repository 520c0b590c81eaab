"""``otf-stream keys``: two machines that get to know each other by what the commands print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from otf_stream.acquire.keys import KeyFolder
from otf_stream.cli.commands import app


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


def commands(told: str) -> list[list[str]]:
    """The commands of ``keys`` that a text tells to run, as a shell would read them."""
    return [shlex.split(command) for command in re.findall(r"otf-stream keys ([^`\n]+)", told)]


def test_two_machines_get_to_know_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, microscope = tmp_path / "listener", tmp_path / "microscope"
    monkeypatch.setattr("platform.node", lambda: "restoration-pc.lab.org")

    made = keys("make", "--keys", listener)
    assert made.exit_code == 0
    public = made.stdout.strip()
    assert public == KeyFolder(listener).own().public
    trust, _ = commands(made.stderr)
    assert trust == ["trust", "restoration-pc", public]

    trusted = keys(*trust, "--keys", microscope)
    assert trusted.exit_code == 0
    (authorise,) = commands(trusted.stderr)
    assert authorise[0] == "authorise"
    assert authorise[2] == KeyFolder(microscope).own().public

    authorised = keys("authorise", "confocal", authorise[2], "--keys", listener)
    assert authorised.exit_code == 0
    assert commands(authorised.stderr) == [["trust", "restoration-pc", public]]
    assert KeyFolder(microscope).trusted() == {"restoration-pc": public}
    assert KeyFolder(listener).authorised() == {"confocal": authorise[2]}

    shown = keys("show", "--keys", listener)
    assert shown.exit_code == 0
    for word in (public, "confocal", authorise[2], str(listener)):
        assert word in shown.stdout
    told = json.loads(keys("show", "--json", "--keys", listener).stdout)
    assert told == {
        "folder": str(listener), "public_key": public, "authorised": {"confocal": authorise[2]}, "listeners": {},
    }  # fmt: skip

    revoked = keys("revoke", "confocal", "--keys", listener)
    assert revoked.exit_code == 0
    assert "restart the service" in revoked.stderr
    assert keys("forget", "restoration-pc", "--keys", microscope).exit_code == 0
    assert KeyFolder(listener).authorised() == KeyFolder(microscope).trusted() == {}


def test_keys_are_made_where_the_environment_says_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTF_STREAM_KEYS", str(tmp_path / "keys"))
    first = json.loads(keys("make", "--json").stdout)
    assert first["folder"] == str(tmp_path / "keys")
    assert json.loads(keys("make", "--json").stdout) == first
    assert json.loads(keys("make", "--json", "--overwrite").stdout)["public_key"] != first["public_key"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show",), "no key in"),
        (("authorise", "../x", "0" * 40), "'../x' cannot be a name"),
        (("authorise", "x", "absent.key"), "'absent.key' is neither a public key"),
        (("authorise", "x", "{secret}"), "holds a secret key"),
        (("revoke", "x"), "x is not authorised; authorised are: none"),
        (("trust", "a/b", "0" * 40), "'a/b' cannot be a name"),
        (("trust", "host:port", "0" * 40), "'port' is no port"),
        (("forget", "host"), "host is not trusted"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    KeyFolder(tmp_path / "other").make()
    secret = str(tmp_path / "other" / "own.key_secret")
    done = keys(*(word.format(secret=secret) for word in arguments), "--keys", tmp_path / "keys")
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not list((tmp_path / "keys").rglob("*.key"))
