"""What containers are made of and started with: linted and parsed, since nothing here can build or run one."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from otf_stream.config import ServiceConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = [DEPLOY / "compose.yaml", DEPLOY / "compose.cuda.yaml"]


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and their arguments, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_dockerfile_has_what_linters_ask_for() -> None:
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {name for name, _ in instructions()} <= known | {
        "ENTRYPOINT",
        "CMD",
    }  # COPY and never ADD; nothing deprecated
    for base in arguments("FROM"):
        assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+[\w.-]* AS \w+", base), (
            "a base has an exact version, and a name"
        )
    for ran in arguments("RUN"):
        assert "sudo" not in ran
        assert "apt-get install" not in ran or "--no-install-recommends" in ran
        assert "apt-get update" not in ran or "rm -rf /var/lib/apt/lists/*" in ran
        assert "| " not in ran.replace("|| ", ""), "a pipe hides failures without pipefail"
        assert "cd " not in ran, "WORKDIR is for that"
        for install in re.findall(r"pip install [^;&]*", ran):
            assert "--no-cache-dir" in install
            assert "--constraint constraints.txt" in install
    for path in arguments("WORKDIR"):
        assert path.startswith("/")
    for name in ("HEALTHCHECK", "ENTRYPOINT", "CMD", "STOPSIGNAL"):
        assert len(arguments(name)) == 1
    assert arguments("ENTRYPOINT") == ['["otf-stream"]']
    assert arguments("CMD")[0].startswith('["serve", ')


def test_it_does_not_run_as_root_and_its_last_stage_installs_nothing() -> None:
    names = [name for name, _ in instructions()]
    assert arguments("USER") == ["10001:10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    last = len(names) - names[::-1].index("FROM")
    assert not [rest for name, rest in instructions()[last:] if name == "RUN" and "pip" in rest]
    (stage,) = [rest for name, rest in instructions() if name == "COPY" and "--from" in rest]
    assert stage.startswith("--from=build ")


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert "*" in ignored
    for copied in arguments("COPY"):
        if "--from" not in copied:
            for source in copied.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored
    assert not {"!deploy", "!.", "!tests"} & set(ignored)


def test_the_health_check_asks_the_path_without_a_token() -> None:
    assert "http://127.0.0.1:8420/healthz" in arguments("HEALTHCHECK")[0]
    command = re.search(r'"-c", "(.*)"\]', arguments("HEALTHCHECK")[0])
    assert command
    compile(command[1], "healthcheck", "exec")


def test_the_settings_in_the_container_can_be_loaded_and_ask_for_keys() -> None:
    config = ServiceConfig.load(DEPLOY / "container.toml")
    assert (config.listen, config.monitor, config.security) == ("tcp://0.0.0.0:8421", "0.0.0.0:8420", "auto")
    volumes = arguments("VOLUME")[0]
    for path in (config.data, config.keys, config.monitor_token_file and config.monitor_token_file.parent):
        assert f'"{path}"' in volumes
    said = tomllib.loads((DEPLOY / "container.toml").read_text(encoding="utf-8"))
    assert said.keys() <= ServiceConfig.model_fields.keys()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load(COMPOSE[0].read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_compose_files_are_valid_by_the_schema_of_the_specification() -> None:
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE],
        capture_output=True, text=True, check=False, env=_with_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_reads_the_compose_files() -> None:
    tool = _compose_tool()
    files = [word for path in COMPOSE for word in ("--file", str(path))]
    done = subprocess.run([*tool, *files, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_microscopes_reach_the_service_from_outside(compose: dict[str, Any]) -> None:
    services = compose["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(published) == ["127.0.0.1:3000:3000", "127.0.0.1:8420:8420", "8421:8421"]
    assert compose["networks"]["watching"] == {"internal": True}
    assert services["prometheus"]["networks"] == ["watching"]
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":(v?\d+\.\d+\.\d+|local)$", service["image"])
        assert "privileged" not in service
        assert "docker.sock" not in str(service)


def test_prometheus_sees_the_token_and_not_the_keys(compose: dict[str, Any]) -> None:
    mounted = [volume.split(":")[0] for volume in compose["services"]["prometheus"]["volumes"]]
    assert "token" in mounted
    assert "keys" not in mounted
    assert compose["services"]["prometheus"]["group_add"] == ["10001"]


def test_no_password_is_in_any_file(compose: dict[str, Any]) -> None:
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"  # noqa: S105
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"(?i)(password|secret|token)[A-Z_]*\s*[:=]\s*['\"]?[\w-]{8,}['\"]?\s*$", text, re.M
            ), path
    assert not (DEPLOY / "secrets").exists() or "secrets/" in (DEPLOY / ".gitignore").read_text(encoding="utf-8")


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]


def _compose_tool() -> list[str]:
    for tool in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(tool[0]):
            asked = subprocess.run([*tool, "version", "--short"], capture_output=True, text=True, check=False)
            if asked.returncode == 0 and not asked.stdout.startswith("1."):  # which knows an older specification
                return tool
    pytest.skip("neither docker compose nor docker-compose, from version 2 on, is installed")


def _with_environment() -> dict[str, str]:
    """Let programs be found that were installed with the tests."""
    import os
    import sys

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
