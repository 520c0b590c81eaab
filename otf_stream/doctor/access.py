"""Keys and token of a service: whether it would start with them, by the code that it asks when it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from otf_stream.acquire.keys import KeyFolder, KeysError, is_loopback
from otf_stream.config import ServiceConfig
from otf_stream.doctor.findings import Finding
from otf_stream.service.monitoring import required_token
from otf_stream.service.supervisor import ServiceError, required_keys


def check_keys(config: ServiceConfig) -> Finding:
    """Say whether microscopes need keys to connect, and whether there are some."""
    folder = _refusal(lambda: required_keys(config))
    if isinstance(folder, Finding):
        return folder
    if folder is None:
        if not is_loopback(config.listen):
            return Finding(
                "keys",
                "warning",
                f"security is none: whoever reaches {config.listen} may write planes, and read those on the way",
                'set security = "auto", unless this is a network of its own between two machines',
                {"required": False},
            )
        return Finding("keys", "ok", f"{config.listen} is for this machine only: none needed", "", {"required": False})
    names = sorted(KeyFolder(folder).authorised())
    said = f"{len(names)} microscopes are authorised in {folder}: {', '.join(names[:10])}"
    return Finding("keys", "ok", said, "", {"required": True, "authorised": names})


def check_token(config: ServiceConfig) -> Finding:
    """Say whether the monitor asks for a token, and whether there is one."""
    if not config.monitor:
        return Finding("monitor's token", "ok", "there is to be no monitor", "", {"required": False})
    try:
        token = required_token(config)
    except KeysError as error:
        return _told("monitor's token", str(error))
    said = f"the monitor at {config.monitor} asks for {'a token, which is there' if token else 'none'}"
    return Finding("monitor's token", "ok", said, "", {"required": token is not None})


def _refusal(ask: Callable[[], Path | None]) -> Path | Finding | None:
    try:
        return ask()
    except ServiceError as error:
        return _told("keys", str(error))


def _told(check: str, why: str) -> Finding:
    """Divide what an error says into what was found and what to do."""
    found, _, remedy = why.partition("; ")
    return Finding(check, "problem", found, remedy or "docs/security.md has the commands")
