"""Keys: who may connect to the listener of a machine, and which listeners a machine trusts.

They lie in one folder, as ssh's do, so that neither scripts nor services have to pass keys around: whatever connects or
listens looks there. The files are ZeroMQ's own certificates, which any other program with ZeroMQ reads and writes::

    own.key, own.key_secret     the pair of this machine, for listening and for connecting
    authorised/NAME.key         microscopes that may connect to the listener of this machine
    listeners/HOST.key          the listener that this machine trusts at HOST; HOST@PORT.key wins over it

A key is only ever replaced or added by who asks for that, and nothing is remembered: a change counts for the
next connection.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import stat
import string
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

FOLDER_VARIABLE = "OTF_STREAM_KEYS"
"""The environment variable that names the key folder."""

_KEY_LENGTH = 40
_NAME = re.compile(r"[A-Za-z0-9](?:[_+-]|\.(?!\.)|[A-Za-z0-9]){0,99}")
# Windows takes these for devices, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_ADDRESS = re.compile(r"tcp://(?:[^;]*;)?(?P<host>[^/;]+):(?P<port>[0-9]{1,5}|\*)")
_PORT = re.compile(r"[0-9]{1,5}")
# What no shell, of Windows or POSIX, reads as anything but a letter; of the rest of Z85 most is special to one.
_TAKEN_AS_IT_IS = frozenset(string.ascii_letters + string.digits + ".-:+/=@")


class KeysError(ValueError):
    """A key, a name or a key folder that cannot be used; the message says why, and what to do."""


@dataclass(frozen=True)
class Pair:
    """A public key and the secret one that belongs to it, in Z85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Pair({self.public!r}, secret)"


def default_folder() -> Path:
    """Return the key folder of this user: what ``OTF_STREAM_KEYS`` names, or ``~/.otf_stream/keys``.

    Raises
    ------
    KeysError
        If the user has no home folder.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return _home_folder()


def is_loopback(address: str) -> bool:
    """Tell whether ``tcp://HOST:PORT`` can be reached from its own machine only; what is not sure is not."""
    host = host_of(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """Return the host of ``tcp://HOST:PORT``, in lower case; empty if the address is none such."""
    return _split(address)[0].lower()


def read_key(text: str) -> str:
    """Return a public key that is given as such, or as the file that holds it.

    Raises
    ------
    KeysError
        If it is neither, or the file holds a secret key, which should not leave its machine.
    """
    if _is_key(text):
        return text
    try:
        public, secret = load_certificate(Path(text))
    except (OSError, ValueError) as error:
        raise KeysError(
            f"{text!r} is neither a public key ({_KEY_LENGTH} characters, such as `otf-stream keys show` prints; these "
            f"are {len(text)}) nor a file with one; quote the key if it has characters that the shell reads"
        ) from error
    if secret is not None:
        raise KeysError(f"{text} holds a secret key, which must not leave its machine; give its public key, own.key")
    return _checked(public, Path(text))


class KeyFolder:
    """The keys that a machine has, and those that it knows.

    Parameters
    ----------
    folder
        Where they lie; by default that of `default_folder`. It need not exist.

    Attributes
    ----------
    folder
        Where they lie.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._secret = self.folder / "own.key_secret"
        self._authorised = self.folder / "authorised"
        self._listeners = self.folder / "listeners"

    def make(self, *, overwrite: bool = False) -> Pair:
        """Return the pair of this machine, made now if there is none, or if ``overwrite`` asks for another.

        Raises
        ------
        KeysError
            If there is a pair that cannot be used.
        OSError
            If the folder cannot be written.
        """
        if self._secret.exists() and not overwrite:
            return self.own()
        pair = _new_pair()
        _write(self._secret, pair.public, pair.secret)
        _write(self.folder / "own.key", pair.public)
        return pair

    def own(self) -> Pair:
        """Return the pair of this machine.

        Raises
        ------
        KeysError
            If there is none, it is damaged, or every user of the machine can read it.
        """
        try:
            mode = self._secret.stat().st_mode
            public, secret = load_certificate(self._secret)
        except FileNotFoundError as error:
            raise KeysError(f"this machine has no key in {self.folder}; {self.command('make')} makes one") from error
        except (OSError, ValueError) as error:
            raise KeysError(f"the key {self._secret} cannot be read: {error}; give the user access to it") from error
        if os.name == "posix" and mode & stat.S_IRWXO:
            raise KeysError(
                f"every user of this machine has access to the secret key {self._secret} (its mode is "
                f"{stat.S_IMODE(mode):o}); chmod it to 600, or make another with {self.command('make', '--overwrite')}"
            )
        if secret is None or not _is_key(secret.decode("ascii", "replace")) or zmq.curve_public(secret) != public:
            raise KeysError(f"{self._secret} holds no pair; make another: {self.command('make', '--overwrite')}")
        return Pair(public.decode(), secret.decode())

    def authorise(self, name: str, key: str) -> str:
        """Let the microscope that has a key connect to the listener of this machine.

        Parameters
        ----------
        name
            What it is called here.
        key
            Its public key, or the file that holds it.

        Returns
        -------
        str
            The public key.

        Raises
        ------
        KeysError
            If the name or the key cannot be used, the name belongs to another key or the key has another name.
        OSError
            If the folder cannot be written.
        """
        path, public = self._authorised / f"{_file_name(name)}.key", read_key(key)
        for known, authorised in self.authorised().items():
            if known.lower() == name.lower() and authorised != public:
                raise KeysError(f"{known} has another key; {self.command('revoke', known)} first, or give another name")
            if known != name and authorised == public:
                raise KeysError(f"this key is authorised as {known} already; one name is enough, and one to revoke")
        _write(path, public)
        return public

    def revoke(self, name: str) -> None:
        """Let a microscope connect no more; a connection that it has lasts until it breaks.

        Raises
        ------
        KeysError
            If there is none of this name, or its key is authorised under another one too.
        """
        before = self.authorised()
        _remove(self._authorised / f"{_file_name(name)}.key", name, "authorised", before)
        if also := [other for other, key in before.items() if other != name and key == before.get(name)]:
            raise KeysError(f"{name} is revoked, but its key is authorised as {also[0]} as well: revoke that too")

    def authorised(self) -> dict[str, str]:
        """Return the public keys of the microscopes that may connect, by name; what is damaged is not among them."""
        return dict(_keys_in(self._authorised))

    def trust(self, host: str, key: str) -> str:
        """Connect to the listener at a host only if it has this key, and with the pair of this machine.

        Parameters
        ----------
        host
            As in the addresses that are given to publishers: ``HOST``, or ``HOST:PORT`` where there are several.
        key
            The listener's public key, or the file that holds it.

        Returns
        -------
        str
            The public key.

        Raises
        ------
        KeysError
            If the host or the key cannot be used, or another key is trusted there.
        OSError
            If the folder cannot be written.
        """
        path, public = self._listener_file(host), read_key(key)
        if (known := self.trusted().get(host.lower())) not in (None, public):
            raise KeysError(
                f"another key is trusted at {host} ({known}); make sure that its machine has a new one, then "
                f"{self.command('forget', host)} and trust it"
            )
        _write(path, public)
        return public

    def forget(self, host: str) -> None:
        """Connect to a host without keys again.

        Raises
        ------
        KeysError
            If none is trusted there.
        """
        _remove(self._listener_file(host), host, "trusted", self.trusted())

    def trusted(self) -> dict[str, str]:
        """Return the public keys of the listeners that are trusted, by ``HOST`` or ``HOST:PORT``."""
        return {name.replace("@", ":"): key for name, key in _keys_in(self._listeners)}

    def listener_at(self, address: str) -> str | None:
        """Return the key that the listener at ``tcp://HOST:PORT`` must have; None if none is trusted there.

        Raises
        ------
        KeysError
            If there is one that cannot be read.
        """
        host, port = _split(address)
        for trusted in (f"{host}:{port}", host):
            try:
                path = self._listener_file(trusted)
            except KeysError:  # No file can be called after it.
                continue
            try:
                if path.exists():
                    return _checked(load_certificate(path)[0], path)
            except (OSError, ValueError) as error:
                raise KeysError(
                    f"the key that is trusted at {host} cannot be read: {error}; remove {path} and trust it again"
                ) from error
        return None

    def command(self, *words: str) -> str:
        """Return the command line that does something to this folder, in backticks."""
        folder = () if self._is_default() else ("--keys", str(self.folder))
        return f"`{shlex.join(('otf-stream', 'keys', *words, *folder))}`"

    def _is_default(self) -> bool:
        try:
            return self.folder == _home_folder()
        except KeysError:
            return False

    def _listener_file(self, host: str) -> Path:
        name, colon, port = host.lower().partition(":")
        if colon and not _PORT.fullmatch(port):
            raise KeysError(f"{port!r} is no port; give HOST or HOST:PORT, as in tcp://HOST:PORT")
        return self._listeners / f"{_file_name(name)}{'@' if port else ''}{port}.key"


def _home_folder() -> Path:
    try:
        return Path.home() / ".otf_stream" / "keys"
    except RuntimeError as error:
        raise KeysError(f"this user has no home folder for keys; set {FOLDER_VARIABLE} to a folder") from error


def _new_pair() -> Pair:
    """Draw pairs until the public key needs no quotes in any shell: some 10,000, in a fraction of a second."""
    while True:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        if public[0].isalnum() and _TAKEN_AS_IT_IS.issuperset(public):
            return Pair(public, secret)


def _is_key(text: str) -> bool:
    if len(text) != _KEY_LENGTH:
        return False
    try:
        return len(z85.decode(text)) == 32
    except (KeyError, ValueError, struct.error):
        return False


def _checked(public: bytes, path: Path) -> str:
    text = public.decode("ascii", "replace")
    if not _is_key(text):
        raise KeysError(f"{path} holds no public key ({_KEY_LENGTH} characters of Z85), but {len(text)} characters")
    return text


def _file_name(name: str) -> str:
    """Return the name if a file may be called so on every system, whatever follows it."""
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        raise KeysError(
            f"{name[:100]!r} cannot be a name here; give 1 to 100 of A-Z a-z 0-9, and after the first also _ + - and "
            "single dots"
        )
    return name


def _split(address: str) -> tuple[str, str]:
    found = _ADDRESS.fullmatch(address)
    return (found["host"], found["port"]) if found else ("", "")


def _keys_in(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.key")):
        try:
            key = load_certificate(path)[0].decode("ascii", "replace")
        except (OSError, ValueError):  # Removed just now, or damaged: it opens nothing.
            continue
        if _is_key(key):
            yield path.stem, key


def _write(path: Path, public: str, secret: str | None = None) -> None:
    """Write a certificate that only this user can read; a file that was there is replaced at once."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = ["# ZeroMQ CURVE certificate, by otf-stream keys", "metadata", "curve", f'    public-key = "{public}"']
    if secret is not None:
        lines.append(f'    secret-key = "{secret}"')
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="ascii") as file:
        try:
            file.write("\n".join([*lines, ""]))
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def _remove(path: Path, name: str, what: str, there: dict[str, str]) -> None:
    try:
        path.unlink()
    except FileNotFoundError as error:
        raise KeysError(f"{name} is not {what}; {what} are: {', '.join(there) or 'none'}") from error
