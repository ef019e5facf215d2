"""Only the user's own browser gets in, and nothing outside the workspace is read or written."""

import hashlib
import json
import re
import shutil
import socket
import time
from contextlib import ExitStack, suppress

import msgspec
import pytest
from starlette.routing import Route

from faceswap.review.app import build
from faceswap.review.guard import MAX_BODY
from faceswap.review.workspace import Workspace
from faceswap.swapping.records import FrameRecord
from faceswap.swapping.report import FrameReport, write_report
from tests.review.browser import opened
from tests.support.clips import write_lossless


def snapshot(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


@pytest.fixture
def addresses(server, clip_addresses):
    home = server.faceset("ada")
    return [
        "/", "/facesets", home, f"{home}/faces", f"{home}/people", f"{home}/looks",
        f"{home}/thumb/0/96", f"{home}/crop/0", f"{home}/mask/0", f"{home}/landmarks/0",
        "/training", "/conversion", "/review", "/jobs",
        *clip_addresses, "/static/review.css", "/nothing",
    ]  # fmt: skip


@pytest.fixture
def clip_addresses(workspace):
    """What the page of a clip asks for."""
    (workspace / "clip.mp4").write_bytes(b"no video")
    (place,) = Workspace(workspace).clips()
    home = f"/conversion/{place.id}"
    return [home, f"{home}/facts", f"{home}/survey", f"{home}/frame/0", f"{home}/person/0",
            f"{home}/cast/0"]  # fmt: skip


def test_without_the_token_nothing_is_shown(server, addresses):
    for address in addresses:
        for cookie in (None, f"faceswap-{server.port}=wrong", "faceswap-1=x; =;", "\xff"):
            status, headers, body = server.ask(address, token=False, Cookie=cookie)
            assert (status, body) == (
                403,
                b"refused: open the address that faceswap review printed: it carries the key to "
                b"this page\n",
            )
            assert "set-cookie" not in headers


def test_token_in_the_first_address_becomes_a_cookie(server):
    status, headers, _ = server.ask(f"/facesets?x=1&token={server.token}", token=False)

    assert (status, headers["location"]) == (303, "/facesets?x=1")
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"faceswap-{server.port}={server.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_token_never_leads_to_another_host(server):
    status, headers, _ = server.ask(f"//evil.example/?token={server.token}", token=False)

    assert (status, headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", ""]
)
def test_other_hosts_are_refused(server, addresses, host):
    for address in addresses:
        status, _, body = server.ask(address, Host=host.format(port=server.port))
        assert (status, body) == (403, b"refused: this server answers only on this machine\n")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": None}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"}, {"Content_Type": "text/plain"}, {"Content_Type": None},
        {"Content_Type": "application/x-www-form-urlencoded"}, {"Cookie": None},
    ],
    ids=str,
)  # fmt: skip
def test_changes_from_elsewhere_are_refused(server, workspace, headers):
    before = snapshot(workspace)

    status, _, body = server.ask(
        f"{server.faceset('ada')}/edits", "POST", {"edit": "reject", "faces": ["00.jpg#0-0"]},
        **headers,
    )  # fmt: skip

    assert status in (403, 415)
    assert body.startswith(b"refused: ")
    assert snapshot(workspace) == before


def routes_of(method, workspace):
    """Return every address of the app that takes a method, with something for its parameters."""
    with ExitStack() as helpers:
        routes = build(Workspace(workspace), "token", 1, helpers)._app.routes
    found = [route for route in routes if isinstance(route, Route) and method in route.methods]
    return [re.sub(r"{\w+(:int)?}", "0", route.path) for route in found]


def test_no_address_answers_without_the_token(server, workspace):
    addresses = routes_of("GET", workspace)
    assert len(addresses) > 30
    for address in addresses:
        assert server.ask(address, token=False)[0] == 403, address


def test_no_address_takes_changes_from_elsewhere(server, workspace):
    addresses = routes_of("POST", workspace)
    assert len(addresses) > 10
    before = snapshot(workspace)
    for address in addresses:
        for headers in ({"Origin": "http://evil.example"}, {"Origin": None}, {"Cookie": None}):
            assert server.ask(address, "POST", {}, **headers)[0] == 403, address
        assert server.ask(address, "POST", {}, Content_Type="text/plain")[0] == 415, address
        for body in ({}, [], "x", {"model": [[]]}, None):
            status, _, answer = server.ask(address, "POST", body)
            assert (status, b"Traceback" in answer) == (404, False), (address, body, answer)
    assert snapshot(workspace) == before


def test_token_in_an_address_changes_nothing(server, workspace):
    before = snapshot(workspace)

    status, _, _ = server.ask(
        f"{server.faceset('ada')}/edits?token={server.token}", "POST",
        {"edit": "reject", "faces": ["00.jpg#0-0"]}, token=False,
    )  # fmt: skip

    assert status == 403
    assert snapshot(workspace) == before


def test_pages_load_nothing_from_elsewhere(server, addresses):
    for address in addresses:
        _, headers, _ = server.ask(address)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


TRAVERSALS = (
    "../secret", "..%2fsecret", "%2e%2e/secret", "....//secret", "/etc/passwd", "%2fetc%2fpasswd",
    "..\\secret", "%00", "\u0000", "a" * 3000, "-1", "1e9", "999999999999999999999", "0x0",
)  # fmt: skip


@pytest.mark.parametrize("value", TRAVERSALS, ids=lambda value: value[:20])
def test_no_parameter_reaches_out_of_the_workspace(server, workspace, value, clip_addresses):
    secret = workspace.parent / "secret"
    secret.write_text("secret")
    home = server.faceset("ada")
    sent = value.replace("\u0000", "%00").replace("\\", "%5c")
    for address in (
        f"/{sent}", f"/static/{sent}", f"/facesets/{sent}", f"/facesets/{sent}/faces",
        f"{home}/thumb/{sent}/96", f"{home}/thumb/0/{sent}", f"{home}/crop/{sent}",
        f"{home}/mask/{sent}", f"{home}/landmarks/{sent}", f"{home}/{sent}",
        f"{home}/thumb/0/96?v={sent}", f"/conversion/{sent}", f"/conversion/{sent}/facts",
        f"{clip_addresses[0]}/frame/{sent}", f"{clip_addresses[0]}/person/{sent}",
        f"{clip_addresses[0]}/cast/{sent}", f"/training/{sent}", f"/review/{sent}",
        f"/review/{sent}/before/0", f"/jobs/{sent}",
    ):  # fmt: skip
        status, _, body = server.ask(address)
        assert status in ((200,) if "?v=" in address else (400, 404, 405)), address
        assert b"secret" not in body.replace(value.encode(), b"")
        assert b"Traceback" not in body
    before = snapshot(workspace.parent)
    for request in (
        {"edit": "reject", "faces": [value]}, {"edit": value, "faces": ["00.jpg#0-0"]},
        {"edit": "mask", "faces": ["00.jpg#0-0"], "mask": value},
        {"edit": "landmarks", "faces": ["00.jpg#0-0"], "points": value},
    ):  # fmt: skip
        status, _, body = server.ask(f"{home}/edits", "POST", request)
        assert status in (404, 409), (request, body)
        assert set(json.loads(body)) == {"error"}
    for what, request in (
        ("choose", {"model": value, "look": {}}),
        ("choose", {"model": "x", "look": {"color": value}}),
        ("preview", {"model": value, "frame": 0}), ("loop", {"model": value, "frame": 0}),
        ("assign", {"model": value, "frame": 0, "x": 1, "y": 1}), ("start", {"model": value}),
        ("cast", {"entry": 0, "model": value}), ("cast", {"entry": value, "model": None}),
        ("choose", {"model": "x", "look": {}, "shot": [value, value]}),
    ):  # fmt: skip
        status, _, body = server.ask(f"{clip_addresses[0]}/{what}", "POST", request)
        assert status in (404, 409), (request, body)
        assert set(json.loads(body)) == {"error"}
    assert snapshot(workspace.parent) == before


def test_links_out_of_the_workspace_are_not_followed(server, workspace):
    outside = workspace.parent / "outside"
    (workspace / "data" / "bob").rename(outside)
    (workspace / "data" / "bob").symlink_to(outside)
    crop = next((workspace / "data" / "ada" / "faces").glob("*.png"))
    crop.rename(workspace.parent / "crop.png")
    crop.symlink_to(workspace.parent / "crop.png")
    number = int(crop.stem.split("-")[0])

    status, _, page = server.ask("/facesets")
    assert (status, b"data/ada" in page, b"data/bob" in page) == (200, True, False)
    assert server.ask(f"{server.faceset('bob')}/faces")[0] == 404
    for what in (f"thumb/{number}/96", f"crop/{number}", f"mask/{number}", f"landmarks/{number}"):
        status, _, body = server.ask(f"{server.faceset('ada')}/{what}")
        assert status == 404
        assert b"leaves the workspace" in body
    assert server.json(f"{server.faceset('ada')}/looks")["light"][number] is None


def test_list_of_edits_that_is_a_link_is_neither_read_nor_written(server, workspace):
    outside = workspace.parent / "edits.jsonl"
    outside.write_text("")
    (workspace / "data" / "ada" / "faces" / "edits.jsonl").symlink_to(outside)

    status, _, body = server.ask(
        f"{server.faceset('ada')}/edits", "POST", {"edit": "reject", "faces": ["00.jpg#0-0"]}
    )

    assert status == 404
    assert b"link" in body
    assert outside.read_text() == ""


def test_masks_folder_that_is_a_link_is_not_written(server, workspace):
    import base64

    import cv2
    import numpy as np

    outside = workspace.parent / "masks"
    outside.mkdir()
    (workspace / "data" / "ada" / "faces" / "masks").symlink_to(outside)
    png = base64.b64encode(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1]).decode()

    status, _, body = server.ask(
        f"{server.faceset('ada')}/edits", "POST",
        {"edit": "mask", "faces": ["00.jpg#0-0"], "mask": png},
    )  # fmt: skip

    assert (status, b"link" in body) == (404, True)
    assert not list(outside.iterdir())


HOSTILE = "\"><img src=x onerror=alert(1)>{{ 7 * 7 }}'&amp;\u202e"


def test_hostile_names_are_shown_as_text(server, workspace):
    (workspace / "data" / "ada").rename(workspace / "data" / HOSTILE)

    status, _, page = server.ask("/facesets")

    assert status == 200
    assert b"<img src=x" not in page
    assert b"&gt;&lt;img src=x onerror=alert(1)&gt;{{ 7 * 7 }}" in page


@pytest.mark.browser
def test_hostile_names_are_shown_as_text_on_every_page(server, workspace, model, together):
    """A script that runs would be an error of the page, as it opens a dialog."""
    name = HOSTILE.replace("/", "")
    (workspace / "models").mkdir()
    shutil.copytree(model, workspace / "models" / name)
    clip = write_lossless(workspace / f"{name}.mkv", [together] * 2)
    shutil.copy(clip, workspace / f"{name}.swapped.mkv")
    record = {"index": 0, "time": 0.0, "file": name, "faces": []}
    report = FrameReport(
        1, name, f"{name}.swapped.mkv", name, name, None, "", {}, name, {}, [],
        [msgspec.convert(record, FrameRecord)],
    )  # fmt: skip
    write_report(workspace / f"{name}.swapped.report.json", report)
    job = workspace / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    job.mkdir(parents=True)
    command = {"title": name, "args": ["train", name], "about": name}
    (job / "job.json").write_text(json.dumps(command))
    (job / "log.txt").write_text(f"{name}\n")
    (job / "end.json").write_text('{"exit_code": 1}')
    with opened(server.address, "Failed to load resource") as page:  # the output lacks its frame
        for title, link in (
            ("Training", ".cards a"), ("Conversion", ".cards a"), ("Review", ".cards a"),
            ("Compare", None), ("Jobs", None),
        ):  # fmt: skip
            page.click(f"nav a >> text={title}")
            if link:
                page.locator(link, has_text=name[:12]).first.click()
            ready = ".job" if title == "Jobs" else "[data-ready]"
            page.wait_for_selector(ready)
            assert name.partition("\u202e")[0] in page.content().replace("&amp;", "&").replace(
                "&lt;", "<"
            ).replace("&gt;", ">").replace("&#34;", '"').replace("&#39;", "'")
            assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    "line", ["no JSON", "[" * 100_000, '{"file": "../../x.png"}', "{}", "\x00"], ids=lambda x: x[:9]
)
def test_hostile_faceset_is_one_line(server, workspace, line):
    with (workspace / "data" / "ada" / "faces" / "faces.jsonl").open("a") as file:
        file.write(f"{line}\n")

    status, _, body = server.ask(f"{server.faceset('ada')}/faces")
    assert status == 404
    assert "damaged" in json.loads(body)["error"]
    status, _, page = server.ask("/facesets")
    assert (status, b"data/bob" in page) == (200, True)


@pytest.mark.parametrize("announced", [True, False])
def test_body_of_gigabytes_is_stopped(server, workspace, announced):
    before = snapshot(workspace)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        length = "Content-Length: 5000000000" if announced else "Transfer-Encoding: chunked"
        connection.sendall(
            f"POST {server.faceset('ada')}/edits HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Origin: http://127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            f"Cookie: faceswap-{server.port}={server.token}\r\n{length}\r\n\r\n".encode()
        )
        sent, block = 0, b"10000\r\n" + b"x" * 65536 + b"\r\n"
        connection.settimeout(10)
        with suppress(OSError):  # the server closes the connection
            while sent < 4 * MAX_BODY:
                connection.sendall(block)
                sent += len(block)
        answer = b""
        with suppress(OSError):
            answer = connection.recv(1000)
    assert sent < 4 * MAX_BODY or b"413" in answer
    assert server.ask("/facesets")[0] == 200
    assert snapshot(workspace) == before


def test_thousand_connections_at_once_do_not_stop_it(server):
    resource = pytest.importorskip("resource", reason="Windows has no limits on open files")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    with ExitStack() as connections:
        for _ in range(1000):
            one = connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            one.sendall(b"GET / HTTP/1.1\r\n")  # and never ends it
        assert server.ask("/facesets")[0] in (200, 503)
    deadline = time.monotonic() + 20
    while server.ask("/facesets")[0] != 200:
        assert time.monotonic() < deadline
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_bug_shows_no_traceback(capfd, server, monkeypatch):
    from faceswap.review import faces

    def broken(*_):
        raise RuntimeError("secret words")

    monkeypatch.setattr(faces, "columns", broken)
    status, _, body = server.ask(f"{server.faceset('ada')}/faces")

    assert (status, json.loads(body)) == (
        500, {"error": "this is a bug in faceswap; the terminal says more"},
    )  # fmt: skip
    shown, deadline = "", time.monotonic() + 20
    while "RuntimeError: secret words" not in shown:  # after the answer
        assert time.monotonic() < deadline
        shown += capfd.readouterr().err


def test_it_listens_on_this_machine_only(server):
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in addresses - {"127.0.0.1", "::1"}:
        if address.startswith("127."):
            continue
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, server.port), timeout=2)
