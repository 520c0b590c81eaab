"""Key folders: what is in them, what is refused, and what a careless hand cannot do."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from otf_stream.acquire.keys import KeyFolder, KeysError, default_folder, is_loopback, read_key

BAD_NAMES = (
    "", ".", "..", "../own", "a/b", "a\\b", "/etc/passwd", "a..b", "C:", "a:1", "a b", "a\n", "a\0", "\x1b[2J", "-x",
    "é", "con", "NUL.txt", "x" * 101,
)  # fmt: skip
POSIX = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def a_key() -> str:
    return zmq.curve_keypair()[0].decode()


def test_a_pair_is_made_once(keys: KeyFolder) -> None:
    with pytest.raises(KeysError, match=r"no key in .*`otf-stream keys make --keys .*keys` makes one"):
        keys.own()
    pair = keys.make()
    assert keys.make() == keys.own() == pair
    assert pair.secret not in repr(pair)
    assert zmq.curve_public(pair.secret.encode()).decode() == pair.public
    assert load_certificate(keys.folder / "own.key") == (pair.public.encode(), None)
    other = keys.make(overwrite=True)
    assert other.public != pair.public
    assert keys.own() == other
    assert sorted(path.name for path in keys.folder.iterdir()) == ["own.key", "own.key_secret"]


def test_a_public_key_needs_no_quotes_in_any_shell(keys: KeyFolder) -> None:
    for _ in range(3):
        public = keys.make(overwrite=True).public
        assert public[0].isalnum()
        assert not set(public) & set("!*?&<>()[]{}%$#^'\"\\ ")


@POSIX
def test_only_its_user_reads_the_secret(keys: KeyFolder) -> None:
    keys.make()
    secret = keys.folder / "own.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    secret.chmod(0o644)
    with pytest.raises(KeysError, match=r"every user .* 644.*chmod it to 600"):
        keys.own()
    secret.chmod(0o640)  # of a group that it was given to on purpose, as a mounted secret is
    keys.own()


@pytest.mark.parametrize("text", ["", "metadata\ncurve\n", 'curve\n public-key = "abc"\n secret-key = "abc"\n'])
def test_a_pair_that_is_damaged_is_said_to_be(keys: KeyFolder, text: str) -> None:
    keys.folder.mkdir()
    (keys.folder / "own.key_secret").write_text(text)
    (keys.folder / "own.key_secret").chmod(0o600)
    with pytest.raises(KeysError, match=r"own.key_secret"):
        keys.make()
    assert keys.make(overwrite=True) == keys.own()


def test_a_pair_of_two_halves_is_none(keys: KeyFolder) -> None:
    pair, other = keys.make(), a_key()
    secret = keys.folder / "own.key_secret"
    secret.write_text(secret.read_text().replace(pair.public, other))
    with pytest.raises(KeysError, match="holds no pair"):
        keys.own()


def test_certificates_of_pyzmq_are_taken(keys: KeyFolder) -> None:
    keys.folder.mkdir()
    create_certificates(keys.folder, "own")
    (keys.folder / "own.key_secret").chmod(0o600)
    assert read_key(str(keys.folder / "own.key")) == keys.own().public


def test_microscopes_are_authorised_and_revoked(keys: KeyFolder, tmp_path: Path) -> None:
    assert keys.authorised() == {}
    confocal, sheet = a_key(), KeyFolder(tmp_path / "sheet").make().public
    keys.authorise("confocal-2", confocal)
    keys.authorise("light_sheet.west", str(tmp_path / "sheet" / "own.key"))
    assert keys.authorised() == {"confocal-2": confocal, "light_sheet.west": sheet}
    keys.authorise("confocal-2", confocal)
    with pytest.raises(KeysError, match="confocal-2 has another key; `otf-stream keys revoke confocal-2 --keys"):
        keys.authorise("CONFOCAL-2", a_key())
    for name in ("again", "Confocal-2"):
        with pytest.raises(KeysError, match="authorised as confocal-2 already"):
            keys.authorise(name, confocal)
    keys.revoke("confocal-2")
    assert keys.authorised() == {"light_sheet.west": sheet}
    with pytest.raises(KeysError, match=r"confocal-2 is not authorised; authorised are: light_sheet.west"):
        keys.revoke("confocal-2")


def test_revoking_says_when_the_key_has_another_name(keys: KeyFolder) -> None:
    keys.authorise("one", a_key())
    copy = keys.folder / "authorised" / "copy.key"
    copy.write_bytes((keys.folder / "authorised" / "one.key").read_bytes())
    with pytest.raises(KeysError, match=r"revoked, but .* as copy as well"):
        keys.revoke("one")
    assert [*keys.authorised()] == ["copy"]


def test_what_is_damaged_authorises_nobody_and_harms_no_other(keys: KeyFolder) -> None:
    key = a_key()
    keys.authorise("good", key)
    folder = keys.folder / "authorised"
    (folder / "empty.key").touch()
    (folder / "bytes.key").write_bytes(bytes(range(256)))
    (folder / "short.key").write_text('curve\n public-key = "abc"\n')
    (folder / "folder.key").mkdir()
    (folder / "good.key~").write_bytes((folder / "good.key").read_bytes())
    assert keys.authorised() == {"good": key}


def test_listeners_are_trusted_and_forgotten(keys: KeyFolder) -> None:
    near, far = a_key(), a_key()
    keys.trust("Restoration-PC.lab.org", near)
    keys.trust("restoration-pc.lab.org:8422", far)
    assert keys.trusted() == {"restoration-pc.lab.org": near, "restoration-pc.lab.org:8422": far}
    for address, key in {
        "tcp://restoration-pc.lab.org:8421": near,
        "tcp://RESTORATION-PC.lab.org:8421": near,
        "tcp://10.0.0.1:0;restoration-pc.lab.org:8421": near,
        "tcp://restoration-pc.lab.org:8422": far,
        "tcp://other:8421": None,
        "tcp://lab.org:8421": None,
        "tcp://[::1]:8421": None,
        "tcp://../own:8421": None,
        "nonsense": None,
    }.items():
        assert keys.listener_at(address) == key, address
    keys.trust("restoration-pc.lab.org", near)
    with pytest.raises(KeysError, match=r"another key is trusted at .*`otf-stream keys forget"):
        keys.trust("restoration-pc.lab.org", far)
    keys.forget("restoration-pc.lab.org")
    assert keys.listener_at("tcp://restoration-pc.lab.org:8421") is None
    assert keys.listener_at("tcp://restoration-pc.lab.org:8422") == far
    with pytest.raises(KeysError, match="is not trusted"):
        keys.forget("restoration-pc.lab.org")
    with pytest.raises(KeysError, match="'x' is no port"):
        keys.trust("host:x", near)


def test_a_trusted_key_that_cannot_be_read_is_not_taken_for_none(keys: KeyFolder) -> None:
    keys.trust("host", a_key())
    for spoilt in ("", 'public-key = "abc"'):
        (keys.folder / "listeners" / "host.key").write_text(spoilt)
        with pytest.raises(KeysError, match=r"host\.key"):
            keys.listener_at("tcp://host:8421")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out_of_the_folder(keys: KeyFolder, name: str, tmp_path: Path) -> None:
    key = a_key()
    keys.make()
    before = sorted(tmp_path.rglob("*"))
    for do in (lambda: keys.authorise(name, key), lambda: keys.revoke(name)):
        with pytest.raises(KeysError, match="cannot be a name"):
            do()
    if name != "a:1":
        for do in (lambda: keys.trust(name, key), lambda: keys.forget(name)):
            with pytest.raises(KeysError, match=r"cannot be a name|is no port|is not trusted"):
                do()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_public_key_is_refused(keys: KeyFolder, tmp_path: Path) -> None:
    pair = keys.make()
    assert read_key(pair.public) == pair.public
    for wrong in ("", "abc", pair.public[:-1], pair.public + "0", "~" * 40, "#" * 40, "é" * 40, "a\0b", str(tmp_path)):
        with pytest.raises(KeysError, match="neither a public key"):
            read_key(wrong)
    with pytest.raises(KeysError, match="holds a secret key"):
        read_key(str(keys.folder / "own.key_secret"))
    short = tmp_path / "short.key"
    short.write_text(f'curve\n public-key = "{z85.encode(bytes(28)).decode()}"\n')
    with pytest.raises(KeysError, match=r"holds no public key .* 35 characters"):
        read_key(str(short))


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTF_STREAM_KEYS", str(tmp_path / "other"))
    assert default_folder() == KeyFolder().folder == tmp_path / "other"
    monkeypatch.delenv("OTF_STREAM_KEYS")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_folder() == tmp_path / ".otf_stream" / "keys"
    assert KeyFolder().command("make", "--overwrite") == "`otf-stream keys make --overwrite`"
    assert "--keys" in KeyFolder(tmp_path / "other").command("make")


@pytest.mark.parametrize(
    ("address", "alone"),
    [
        ("tcp://127.0.0.1:8421", True),
        ("tcp://127.1.2.3:*", True),
        ("tcp://localhost:8421", True),
        ("tcp://LOCALHOST:8421", True),
        ("tcp://[::1]:8421", True),
        ("tcp://0.0.0.0:8421", False),
        ("tcp://*:8421", False),
        ("tcp://eth0:8421", False),
        ("tcp://192.168.1.5:8421", False),
        ("tcp://128.0.0.1:8421", False),
        ("tcp://127.0.0.1.example.org:8421", False),
        ("tcp://localhost.example.org:8421", False),
        ("tcp://[::]:8421", False),
        ("tcp://127.1:8421", False),
        ("nonsense", False),
    ],
)
def test_what_is_not_surely_loopback_is_not(address: str, alone: bool) -> None:
    assert is_loopback(address) is alone
