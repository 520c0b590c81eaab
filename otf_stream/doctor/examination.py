"""Which checks a machine is put through, for its part, and in which order: the quick ones first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from otf_stream.acquire.keys import host_of
from otf_stream.acquire.status import read_status
from otf_stream.config import ServiceConfig
from otf_stream.doctor import disks, installation, ports, reaching
from otf_stream.doctor.findings import Finding, Fitting, Report


def examine_service(config: ServiceConfig, *, planes_per_second: float | None = None) -> Report:
    """Look whether this machine can run a service, and what it is fit for; takes half a minute at the most.

    Parameters
    ----------
    config
        Of the service.
    planes_per_second
        Of the camera, for the verdict; all planes at once if None.
    """
    versions = installation.judge_versions(
        installation.installed((*installation.EVERYWHERE, *installation.OF_A_SERVICE))
    )
    findings = [versions, _cores(), *_place(config), *_ports(config)]
    if versions.level == "problem":
        return Report("service", findings, "This machine cannot run a service: packages are missing.")
    from otf_stream.doctor import access

    findings += [access.check_keys(config), access.check_token(config)]
    findings.append(ports.judge_loopback(ports.loopback_rate()))
    findings.append(installation.judge_adapters(installation.find_adapters(), needed=False))
    computing, verdict, fitting = _computing(config, planes_per_second)
    findings.append(computing)
    stopping = [finding.check for finding in findings if finding.level == "problem"]
    if stopping:
        verdict = f"The service cannot work as it is: {', '.join(stopping)}. Once that is mended: {verdict}"
    return Report("service", findings, verdict, fitting)


def examine_microscope(address: str, keys: Path | None = None, spill: Path | None = None) -> Report:
    """Look whether a microscope's PC can send planes to a service.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``.
    keys
        Folder of the keys; the user's if None.
    spill
        Where planes wait that the listener does not take; the folder for temporary files if None.
    """
    folder, host = spill or Path(tempfile.gettempdir()), host_of(address)
    answer = reaching.judge_answer(address, reaching.ask_listener(address, keys))
    findings = [
        installation.judge_versions(installation.installed(installation.EVERYWHERE)),
        _cores(),
        reaching.check_trust(address, keys),
        answer,
        reaching.judge_clock(host, reaching.clock_difference(host)),
        disks.judge_spill(folder, disks.free_bytes(folder)),
        disks.judge_write_rate("spill rate", disks.write_rate(folder)),
        installation.judge_adapters(installation.find_adapters(), needed=True),
    ]
    stopping = [finding.check for finding in findings if finding.level == "problem"]
    verdict = (
        f"This machine cannot send planes to {address} as it is: {', '.join(stopping)}"
        if stopping
        else f"This machine can send planes to {address}"
    )
    return Report("microscope", findings, verdict)


def _cores() -> Finding:
    return installation.judge_cores(os.cpu_count() or 1, installation.load_of_machine())


def _place(config: ServiceConfig) -> Iterator[Finding]:
    folder, reserve = config.data, int(config.disk_reserve_gb * 1e9)
    writable = disks.check_writable(folder)
    yield writable
    if other := disks.judge_other_service(read_status(folder)):
        yield other
    yield disks.judge_room(folder, disks.free_bytes(folder), reserve)
    if writable.level == "ok":
        yield disks.judge_write_rate("disk", disks.write_rate(folder, reserve=reserve))


def _ports(config: ServiceConfig) -> Iterator[Finding]:
    serving = ports.is_serving(read_status(config.data))
    for setting, address, vital in (("listen", config.listen, True), ("monitor", config.monitor, False)):
        if address:
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            yield ports.judge_port(setting, address, ports.try_port(host, port), serving=serving, vital=vital)


def _computing(config: ServiceConfig, planes_per_second: float | None) -> tuple[Finding, str, list[Fitting]]:
    """Measure what this machine computes; return what was found, the verdict, and the largest stacks."""
    from otf_stream.doctor import capacity
    from otf_stream.doctor.measuring import measure
    from otf_stream.service.settings import Settings

    try:
        speed = measure(config)
    except (RuntimeError, ValueError, OSError) as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("computing", "problem", found, remedy), "nothing can be said of stacks.", []
    budget = Settings.of(config).budget
    fitting = [capacity.largest(speed, planes, budget, planes_per_second) for planes in capacity.DEPTHS]
    said = capacity.verdict(speed, fitting, budget, planes_per_second)
    return capacity.judge_speed(speed, fitting, budget, planes_per_second), said, fitting
