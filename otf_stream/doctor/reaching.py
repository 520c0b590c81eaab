"""The microscope's end: whether a listener can be reached from here, lets this machine in and speaks its language.

A listener is asked for a sign of life of nobody's session. It answers that it does not know it, which is all there is
to see: no session is opened, nothing is written there, and nothing is counted as refused.
"""

from __future__ import annotations

import http.client
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import zmq

from otf_stream.acquire.dealer import Dealer
from otf_stream.acquire.keys import KeyFolder, KeysError, host_of, is_loopback
from otf_stream.acquire.protocol import NOBODY, Error, ErrorCode, Message, Ping, ProtocolError, decode, encode
from otf_stream.doctor.findings import Finding

_PATIENCE = 6.0  # seconds, longer than a handshake that is refused
_APART = 2.0  # seconds between two clocks; a Date header has whole ones
_POLL_MS = 50


@dataclass(frozen=True)
class Answer:
    """What came of asking a listener.

    Parameters
    ----------
    message
        Its answer; None if there was none.
    refusal
        Why the connection was refused, or cannot be made.
    seconds
        How long it took to answer, once there was a connection.
    """

    message: Message | None = None
    refusal: str | None = None
    seconds: float = 0.0


def ask_listener(address: str, keys: Path | None = None, *, patience: float = _PATIENCE) -> Answer:
    """Ask a listener for a sign of life.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT``.
    keys
        Folder of the keys; the user's if None.
    patience
        Seconds to wait for an answer.
    """
    try:
        socket.getaddrinfo(host_of(address).strip("[]") or None, None)
        with _untold():
            dealer = Dealer(address, keys)
    except OSError as error:
        return Answer(
            refusal=f"the host of {address} is not known ({error.strerror}); correct the name, or give its number"
        )
    except ValueError as error:
        return Answer(refusal=str(error))
    try:
        with _untold():
            return _asked(dealer, time.monotonic() + patience)
    finally:
        dealer.close()


def _asked(dealer: Dealer, deadline: float) -> Answer:
    begun: float | None = None
    while time.monotonic() < deadline:
        dealer.look()
        if dealer.refusal:
            return Answer(refusal=dealer.refusal)
        if begun is None and dealer.send([encode(Ping(session=NOBODY))]):
            begun = time.monotonic()
        if begun is not None and (frames := dealer.receive()):
            try:
                return Answer(decode(frames[0]), seconds=time.monotonic() - begun)
            except ProtocolError as error:
                return Answer(
                    refusal=f"what answers speaks another language ({error.message}); install matching versions"
                )
        zmq.select(dealer.sockets, [], [], _POLL_MS / 1000)
    return Answer()


def judge_answer(address: str, answer: Answer) -> Finding:
    """Say whether a listener answers.

    Parameters
    ----------
    address
        That was asked.
    answer
        What came of it.
    """
    if answer.refusal:
        found, _, remedy = answer.refusal.partition("; ")
        return Finding("listener", "problem", found, remedy or "docs/security.md has the commands")
    if answer.message is None:
        return Finding(
            "listener",
            "problem",
            f"nothing answers at {address} within {_PATIENCE:.0f} s",
            "start `otf-stream serve` there; let it listen on an address that other machines reach (--listen "
            "tcp://0.0.0.0:8421, docs/security.md); open the port in the firewalls between",
        )
    figures = {"address": address, "answered_s": answer.seconds}
    message = answer.message
    if isinstance(message, Error) and message.code is ErrorCode.UNKNOWN_SESSION:
        said = f"the listener at {address} answers after {1000 * answer.seconds:.0f} ms, in the same protocol"
        return Finding("listener", "ok", said, "", figures)
    said = message.message if isinstance(message, Error) else f"it answers with {message.type!r}"
    return Finding("listener", "problem", said, "install the same version of otf_stream at both ends", figures)


def check_trust(address: str, keys: Path | None) -> Finding:
    """Say whether this machine trusts a listener, and has a pair of its own.

    Parameters
    ----------
    address
        Of the listener, ``tcp://HOST:PORT``.
    keys
        Folder of the keys; the user's if None.
    """
    host = host_of(address)
    try:
        folder = KeyFolder(keys)
        trusted = folder.listener_at(address)
        own = folder.own().public if trusted else None
    except KeysError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("keys", "problem", found, remedy)
    figures = {"trusted": trusted, "own": own}
    if trusted:
        return Finding("keys", "ok", f"the key {trusted} is trusted at {host}, in {folder.folder}", "", figures)
    if is_loopback(address):
        return Finding("keys", "ok", f"{address} is this machine and is connected to without keys", "", figures)
    return Finding(
        "keys",
        "warning",
        f"no key is trusted at {host}: planes would be sent unencrypted, if the listener took them at all",
        f"{folder.command('trust', host, 'KEY')}, with the key that `otf-stream keys show` prints there",
        figures,
    )


def clock_difference(host: str, port: int = 8420, *, patience: float = 2.0) -> float | None:
    """Return by how many seconds the clock of a service's monitor is ahead; None if it cannot be asked.

    Parameters
    ----------
    host, port
        Of the monitor; the path that is asked needs no token.
    patience
        Seconds to wait.
    """
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    try:
        before = time.time()
        connection.request("GET", "/healthz")
        date = connection.getresponse().getheader("Date")
        between = (before + time.time()) / 2
        # The header leaves out the fraction, which is half a second on average.
        return parsedate_to_datetime(date).timestamp() + 0.5 - between if date else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def judge_clock(host: str, difference: float | None) -> Finding:
    """Say whether two clocks agree.

    Parameters
    ----------
    host
        Of the service.
    difference
        Seconds by which its clock is ahead; None if it could not be asked.
    """
    if difference is None:
        said = f"not compared: the monitor at {host}:8420 cannot be reached from here; deadlines go by the clock there"
        return Finding("clocks", "ok", said)
    figures = {"ahead_s": difference}
    if abs(difference) > _APART:
        return Finding(
            "clocks",
            "warning",
            f"the clock of {host} is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this one, "
            f"more than {_APART:.0f} s: times of exposure do not fit the rest of the provenance",
            "let both machines ask the same time server (NTP); deadlines are kept all the same",
            figures,
        )
    return Finding("clocks", "ok", f"the clock of {host} agrees with this one within {_APART:.0f} s", "", figures)


@contextmanager
def _untold() -> Iterator[None]:
    """Keep a sender's own warnings, meant for who waits for planes, from being printed: the finding says it all."""
    log = logging.getLogger("otf_stream.acquire.dealer")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
