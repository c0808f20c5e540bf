"""The app is closed: it answers its own machine, and no text makes a browser fetch anything."""

import http.client
import re
from urllib.parse import quote, urlsplit

from csreft_core.runs.all_runs import example_runs
from tests import hostile

# Streamlit looks for its server below a page's own address first and finds it one level up.
_PROBE = re.compile(r"404 \(Not Found\) \S+/_stcore/(health|host-config)$")
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
_FOREIGN_LINKS = """() => [...document.links].map(link => link.href).filter(
    href => !href.startsWith(location.origin + '/')
)"""
PAGES = ("", "Compare", "Train", "Runs", "Model", "Router")


def handshake(address: str, host: str, origin: str | None = None) -> int:
    """The status that a websocket gets which asks for this host."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    headers = {**_WEBSOCKET, "Host": host} | ({"Origin": origin} if origin else {})
    connection.request("GET", "/_stcore/stream", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_foreign_hosts_and_pages_get_no_answer(address):
    port = urlsplit(address).port
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert handshake(address, own) == 101
        assert handshake(address, own, f"http://{own}") == 101
        assert handshake(address, own, "http://evil.example") == 403
    for foreign in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
        assert handshake(address, foreign) == 403
        assert handshake(address, foreign, f"http://{foreign}") == 403


def test_no_hostile_text_makes_a_request(address, open_page, runs):
    config = example_runs()[0].config()
    assert config.provenance is not None
    run = hostile.hostile_run(runs, config.provenance.base_fingerprint)
    query = f"run={quote(run.name)}&prompt={quote(hostile.EVERYTHING)}"
    query += f"&temperature={quote(hostile.IMAGE)}&base-from=folder"
    query += f"&base-folder={quote(hostile.EVERYTHING)}"
    for name in PAGES:
        page, faults = open_page(f"{address}/{name}?{query}")
        page.get_by_text(f"run {hostile.FOLDER}").wait_for()  # the foot of a finished page
        assert [fault for fault in faults if not _PROBE.search(fault)] == [], name
        # Drawn as nothing but text: the icon's name would be in a font of its own.
        assert page.locator("img[src*='evil']").count() == 0
        assert page.evaluate(_FOREIGN_LINKS) == []
        assert page.get_by_role("img", name="skull icon").count() == 0
        page.close()


def test_a_message_is_read_as_it_was_written(address, open_page):
    page, _ = open_page(f"{address}/Compare?temperature={quote(hostile.IMAGE)}&run=*a*_b_~c~$d$")
    alerts = page.get_by_test_id("stAlert")
    alerts.first.wait_for()
    page.get_by_text("address asks for").wait_for()
    said = " ".join(alerts.all_inner_texts()).replace("\u2060", "")
    assert "'*a*_b_~c~$d$' cannot name a run" in said
    assert f"temperature={hostile.IMAGE}"[:50] in said
