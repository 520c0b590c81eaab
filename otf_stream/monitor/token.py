"""The token of the monitor: one secret that a browser, a script or Prometheus shows to be let in.

It lies beside the keys of the machine, in a file that only its user can read, so that neither the command line nor the
configuration shows it. Tokens are compared in constant time, and one that was refused is never repeated in an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from otf_stream.acquire.keys import KeyFolder, KeysError

NAME = "monitor.token"
_SHORTEST, _LONGEST = 20, 1000  # characters


class TokenFile:
    """The file of the monitor's token.

    Parameters
    ----------
    keys
        The folder of the keys.
    path
        Where the token lies, if not in that folder.

    Attributes
    ----------
    path
        Where it lies. It need not exist.
    """

    def __init__(self, keys: KeyFolder, path: Path | None = None) -> None:
        self._command = keys.command("token")
        self.path = keys.folder / NAME if path is None else path

    def make(self, *, overwrite: bool = False) -> str:
        """Return the token, made now if there is none, or if ``overwrite`` asks for another.

        Raises
        ------
        KeysError
            If there is one that cannot be used.
        OSError
            If the file cannot be written.
        """
        if self.path.exists() and not overwrite:
            return self.read()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        token, partial = secrets.token_urlsafe(32), self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(token + "\n")
            partial.replace(self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return token

    def read(self) -> str:
        """Return the token.

        Raises
        ------
        KeysError
            If there is none, it is too short to be a secret, or every user of the machine can read it.
        """
        try:
            mode, token = self.path.stat().st_mode, self.path.read_text(encoding="ascii").strip()
        except FileNotFoundError as error:
            raise KeysError(f"there is no token at {self.path}; {self._command} makes one") from error
        except (OSError, ValueError) as error:
            raise KeysError(f"the token {self.path} cannot be read: {error}; give the user access to it") from error
        if os.name == "posix" and mode & stat.S_IRWXO:
            raise KeysError(
                f"every user of this machine has access to the token {self.path} (its mode is "
                f"{stat.S_IMODE(mode):o}); chmod it to 600, or make another with {self._command[:-1]} --overwrite`"
            )
        if not _SHORTEST <= len(token) <= _LONGEST or not token.isprintable() or " " in token:
            raise KeysError(
                f"{self.path} holds {len(token)} characters, but a token has {_SHORTEST} to {_LONGEST} and no spaces; "
                f"{self._command[:-1]} --overwrite` makes one"
            )
        return token


def is_same(given: str, token: str) -> bool:
    """Tell whether a token that was given is the right one, in a time that does not depend on how much of it is."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def cookie_of(token: str) -> str:
    """Return what a browser keeps in place of the token: who reads a cookie does not know the token."""
    return hmac.new(token.encode(), b"otf_stream monitor", hashlib.sha256).hexdigest()
