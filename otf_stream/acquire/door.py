"""Who may come in: the listener's side of ZeroMQ's CURVE, with a thread that answers for every new connection.

ZeroMQ encrypts, and proves that each side has the secret key to its public one; what is left to decide is whether the
public key is authorised, and libzmq asks that over its own protocol (ZAP). The key folder is read for each answer, so
that what is authorised or revoked counts at once. Connections that never come so far, for want of a key or with
another listener's, are counted where connections are followed.

Of pyzmq, this uses the `Authenticator` in a thread of its own: its ``ThreadAuthenticator`` needs a further package
under Windows, does not tell where a connection comes from, and ends for good with the first exception.
"""

from __future__ import annotations

import asyncio
import logging
import threading

import zmq
from zmq.auth import Authenticator

from otf_stream.acquire.counters import Counters
from otf_stream.acquire.keys import KeyFolder

log = logging.getLogger(__name__)

UNAUTHORISED = "unauthorised"
"""Why connections are not let in: the key is not among the authorised ones."""

_DOMAIN = "otf_stream"
_LOOK_MS = 100


class Door:
    """Lets in whom the key folder authorises, in a thread of its own, until it is closed.

    Parameters
    ----------
    router
        The listener's socket, before it is bound; it belongs to the thread that makes this.
    keys
        The pair of this machine, and who is authorised.
    counters
        Count who was not let in.

    Raises
    ------
    KeysError
        If this machine has no pair.
    """

    def __init__(self, router: zmq.Socket[bytes], keys: KeyFolder, counters: Counters) -> None:
        self._keys, self._counters = keys, counters
        self._peer = ""
        self._closing = threading.Event()
        own = keys.own()
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = own.public.encode(), own.secret.encode()
        router.zap_domain = _DOMAIN.encode()
        # Without it libzmq would let everybody in while nobody answers for the keys.
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._authenticator = Authenticator(router.context)
        self._authenticator.configure_curve_callback(_DOMAIN, credentials_provider=self)
        self._authenticator.start()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let nobody in any more; once more is harmless."""
        self._closing.set()
        self._thread.join()

    def callback(self, domain: str, key: bytes) -> bool:
        """Tell whether a public key is authorised; what the `Authenticator` asks."""
        public = key.decode("ascii")
        if public in self._keys.authorised().values():
            return True
        lets_in = self._keys.command("authorise", "NAME", public)
        self._counters.refuse(UNAUTHORISED, f"the key of {self._peer} is not authorised; {lets_in} lets it in")
        return False

    def _run(self) -> None:
        zap = self._authenticator.zap_socket
        with asyncio.Runner() as runner:
            while not self._closing.is_set():
                if zap.poll(_LOOK_MS):
                    self._answer(runner, zap.recv_multipart())
        self._authenticator.stop()

    def _answer(self, runner: asyncio.Runner, question: list[bytes]) -> None:
        self._peer = question[3].decode("ascii", "replace") if len(question) > 3 else "somebody"
        try:
            runner.run(self._authenticator.handle_zap_message(question))
        except Exception:  # The next one may get in, once the socket has given this answer.
            log.exception("cannot tell whether %s may connect", self._peer)
            self._authenticator._send_zap_reply(question[1], b"500", b"Internal error")
