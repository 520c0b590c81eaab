"""What a service is told, in one declarative object: from a TOML file, from flags, or from both.

A flag given on the command line wins over the file, the file over the default. The names of methods and devices are
defined here, below the modules that implement them, so that reading settings costs no import of torch.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from otf_stream.acquisition import MAX_PLANES, faults

MethodName = Literal["auto", "finetune", "pretrained", "richardson-lucy", "interpolate"]
DeviceName = Literal["auto", "cpu", "cuda"]
LayerChoice = Literal["all", "zest"]
Sync = Literal["plane", "group", "interval"]
ReportChoice = Literal["ends", "each", "none"]
Security = Literal["auto", "curve", "none"]

_METHODS = {
    "finetune": "a network that learnt from this stack",
    "pretrained": "the network as it ships",
    "richardson-lucy": "Richardson–Lucy deconvolution",
    "interpolate": "interpolation",
    "scaled": "what was restored, made as bright as the planes",
}


def method_name(method: str) -> str:
    """Return how a volume was made, for people."""
    return _METHODS.get(method, method)


def _listening(address: str) -> str:
    if not re.fullmatch(r"tcp://[^:]+:(\d{1,5}|\*)", address):
        raise ValueError("give tcp://HOST:PORT, such as tcp://127.0.0.1:8421; * for the port takes a free one")
    return _port(address)


def _monitoring(address: str) -> str:
    if not re.fullmatch(r"|[^:/]+:(\d{1,5}|\*)", address):
        raise ValueError("give HOST:PORT, such as 127.0.0.1:8420, or nothing for no monitor")
    return _port(address)


def _port(address: str) -> str:
    port = address.rpartition(":")[2]
    if address and port != "*" and not 0 < int(port) < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535; * takes a free one")
    return address


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("there is no such file; give one, or leave it out")
    return path


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it, its limit and the remedy."""


class ServiceConfig(BaseModel):
    """How ``otf-stream serve`` runs.

    Parameters
    ----------
    data
        Folder of the session stores.
    listen
        Where microscopes connect, as ``tcp://HOST:PORT``.
    security
        ``curve``: only microscopes that have an authorised key, and encrypted. ``none``: whoever reaches ``listen`` may
        write planes. ``auto``: ``curve``, but for an address that can be reached from this machine only.
    keys
        Folder of the keys; that of the user where not given.
    monitor
        Where the dashboard and the HTTP interface are, as ``HOST:PORT``; nowhere if empty.
    monitor_token_file
        File of the token that the monitor asks for; ``monitor.token`` in the folder of the keys where not given. At an
        address that can be reached from this machine only, it asks for one only if a file is given here; where
        ``security`` is ``none``, for none.
    budget_s
        Seconds from the first plane of a stack to its restored volume.
    tail_s
        Seconds granted after the last plane in any case.
    method, device, seed
        How stacks are restored.
    psf
        TIFF of a measured point spread function; estimated from each stack where not given.
    weights
        Of the network to start from; the shipped ones where not given.
    layers
        Which of its layers are fine-tuned.
    threads
        Processor cores of the worker; all but one where not given.
    reports
        Of which restored stacks a page is written beside the store: the first and the latest time point of each channel
        (``ends``), ``each`` or ``none``.
    sync
        When planes are made safe from power cuts: before their acknowledgement, each by itself (``plane``) or with
        those that come at the same moment (``group``), or every ``sync_interval_s`` after it (``interval``). The death
        of any process loses none that was acknowledged in any case.
    sync_interval_s
        Seconds, for the latter.
    max_plane_mb, max_planes, max_sessions, max_connections
        The largest plane, the most planes of a session, and the most sessions and connections at the same time.
    disk_reserve_gb
        Planes are held back at their senders while less than this is free on the disk.
    silence_s
        A session from which nothing was heard for so long is closed, and a stack of which no plane came for so long is
        restored, from what is there. What comes later is kept all the same, and the stack restored anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Path("otf-data")
    listen: Annotated[str, AfterValidator(_listening)] = "tcp://127.0.0.1:8421"
    security: Security = "auto"
    keys: Path | None = None
    monitor: Annotated[str, AfterValidator(_monitoring)] = "127.0.0.1:8420"
    monitor_token_file: Path | None = None
    budget_s: Annotated[float, Field(gt=0)] = 300.0
    tail_s: Annotated[float, Field(ge=0)] = 60.0
    method: MethodName = "auto"
    device: DeviceName = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    psf: Annotated[Path, AfterValidator(_readable)] | None = None
    weights: Annotated[Path, AfterValidator(_readable)] | None = None
    layers: LayerChoice = "all"
    threads: Annotated[int, Field(ge=1)] | None = None
    reports: ReportChoice = "ends"
    sync: Sync = "group"
    sync_interval_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    max_plane_mb: Annotated[float, Field(ge=0.001, le=2000)] = 268.4
    max_planes: Annotated[int, Field(ge=1, le=MAX_PLANES)] = MAX_PLANES
    max_sessions: Annotated[int, Field(ge=1, le=10_000)] = 256
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 512
    disk_reserve_gb: Annotated[float, Field(ge=0)] = 2.0
    silence_s: Annotated[float, Field(gt=0)] = 120.0

    @classmethod
    def load(cls, path: Path | None, **flags: Any) -> Self:
        """Read a TOML file, if given, and lay ``flags`` that are not None over it.

        Raises
        ------
        ConfigError
            If the file cannot be read or parsed, or a setting is unknown or out of range.
        """
        settings: dict[str, Any] = {}
        if path is not None:
            try:
                settings = tomllib.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} is not valid TOML: {error}") from error
        settings |= {name: value for name, value in flags.items() if value is not None}
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            said = "; ".join(faults(error))
            if any(one["type"] == "extra_forbidden" for one in error.errors()):
                said += f"; the settings are {', '.join(cls.model_fields)}"
            raise ConfigError(said) from error
