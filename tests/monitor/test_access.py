"""Who may ask the monitor: names of this machine, tokens, and pages of its own."""

from contextlib import ExitStack

import pytest
from monitor_folders import at_work
from monitor_server import serving
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from otf_stream.acquire.keys import KeyFolder, KeysError
from otf_stream.monitor.access import COOKIE, Access
from otf_stream.monitor.api import create_app
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.token import TokenFile, cookie_of, is_same

TOKEN = "a-token-that-is-long-enough"  # noqa: S105 - no real one
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(tmp_path):
    """Make a client of a monitor."""
    with ExitStack() as opened:

        def make(access):
            at_work(tmp_path)
            monitor = Monitor(tmp_path, access, throughput=False)
            opened.callback(monitor.close)
            app = create_app(monitor)

            @app.websocket("/live")
            async def live(socket: WebSocket):
                await socket.accept()
                await socket.send_text("seen")

            return opened.enter_context(serving(app))

        yield make


def own(client):
    """Where a page of the monitor itself comes from."""
    return str(client.base_url).rstrip("/")


def heard(client, **options):
    """Open a web socket; return what it says, or with which status it is refused."""
    address = own(client).replace("http:", "ws:") + "/live"
    try:
        with connect(address, proxy=None, **options) as socket:
            return socket.recv()
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8420", "[::1]:8420", "LOCALHOST."])
def test_this_machine_is_let_in_under_its_own_name(client, host):
    assert client(Access()).get("/api/v1/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"])
def test_another_name_is_refused_so_that_no_page_gets_in_by_rebinding(client, host):
    access = Access()
    answer = client(access).get("/api/v1/status", headers={"Host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert "127.0.0.1" in answer.json()["limit"]
    assert access.refused == {"host": 1}


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9"])
def test_pages_of_others_change_nothing_and_open_no_socket(client, origin):
    access = Access()
    browser = client(access)
    assert browser.post("/api/v1/pause", headers={"Origin": origin}).status_code == 403
    assert heard(browser, origin=origin) == 403
    assert access.refused == {"origin": 2}
    assert browser.post("/api/v1/pause", headers={"Origin": own(browser)}).status_code == 202
    assert heard(browser, origin=own(browser)) == "seen"


def test_no_other_page_reads_an_answer_or_frames_a_page(client):
    answer = client(Access()).get("/api/v1/status", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http:" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_elsewhere_a_token_is_asked_for(client):
    access = Access(TOKEN, loopback=False)
    browser = client(access)
    wrong = {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": f"{COOKIE}={TOKEN}"}
    for headers in ({}, *wrong):
        answer = browser.get("/api/v1/status", headers=headers)
        assert answer.status_code == 401
        assert "otf-stream keys token" in answer.json()["remedy"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert heard(browser) == 403
    assert access.refused == {"token": 5}
    assert browser.get("/api/v1/status", headers=BEARER | {"Host": "scope.example"}).status_code == 200
    assert heard(browser, additional_headers=BEARER) == "seen"
    assert browser.get("/healthz").status_code == 200
    assert browser.get("/readyz").status_code == browser.get("/openapi.json").status_code == 401


def test_a_browser_brings_the_token_once_and_keeps_a_cookie(client):
    browser = client(Access(TOKEN, loopback=False))
    assert browser.get(f"/?token={TOKEN}x").status_code == 401
    answer = browser.get(f"/api/v1/sessions?limit=3&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/api/v1/sessions?limit=3")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    assert cookie_of(TOKEN) in cookie
    assert browser.get("/api/v1/sessions?limit=3").status_code == 200  # with the cookie
    assert browser.get(f"{own(browser)}//evil.example/?token={TOKEN}").headers["location"] == "/evil.example/"
    # Browsers leave tabs in addresses out.
    assert browser.get(f"{own(browser)}/%09/evil.example/?token={TOKEN}").headers["location"] == "/%09/evil.example/"
    assert browser.post("/api/v1/pause", headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_token_changes_nothing_by_being_in_an_address(client):
    browser = client(Access(TOKEN, loopback=False))
    assert browser.post(f"/api/v1/pause?token={TOKEN}").status_code == 401


def test_a_token_is_made_once_for_this_user_alone(tmp_path):
    file = TokenFile(KeyFolder(tmp_path / "keys"))
    with pytest.raises(KeysError, match="otf-stream keys token"):
        file.read()
    token = file.make()
    assert file.make() == file.read() == token
    assert len(token) >= 40
    assert file.path.stat().st_mode & 0o077 == 0
    assert file.make(overwrite=True) != token
    file.path.chmod(0o644)
    with pytest.raises(KeysError, match="chmod it to 600"):
        file.read()
    file.path.chmod(0o600)
    file.path.write_text("short\n")
    with pytest.raises(KeysError, match="5 characters"):
        file.read()


def test_tokens_are_compared_whole():
    assert is_same(TOKEN, TOKEN)
    assert not is_same(TOKEN[:-1], TOKEN)
    assert not is_same("é", TOKEN)
