"""The command prints an address that works, ends with Ctrl-C, and says what it lacks."""

import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from http.cookiejar import CookieJar

import pytest

from faceswap.errors import InputError, OutputError
from faceswap.review.server import prepare
from tests.support.commands import faceswap, one_line_error


def test_address_works_until_ctrl_c(workspace):
    with subprocess.Popen(
        [sys.executable, "-m", "faceswap", "review", workspace],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        line = process.stdout.readline()
        address = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/\?token=\S{32})\n", line)[1]
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        with urllib.request.build_opener(jar).open(address, timeout=30) as answer:
            assert b"data/ada/faces" in answer.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        prepare(tmp_path / "nowhere", 0)


def test_port_that_is_taken_is_named(tmp_path):
    served = prepare(tmp_path, 0)
    port = int(re.search(r":(\d+)/", served.address)[1])
    with (
        closing(served),
        pytest.raises(OutputError, match=f"port {port} cannot be used: .* in use"),
    ):
        prepare(tmp_path, port)


def test_missing_extra_is_one_line(tmp_path):
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, '.'); "
         "sys.argv = ['faceswap', 'review']; from faceswap.cli.main import main; main()"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 7
    assert one_line_error(done).endswith("uvicorn is not installed: pip install 'faceswap[review]'")


def test_empty_folder_says_how_to_begin(tmp_path):
    (tmp_path / "x").mkdir()
    refused = faceswap("review", "nowhere", cwd=tmp_path, code=3)

    assert "nowhere is not a folder" in one_line_error(refused)


def test_error_pages_are_pages(server):
    status, headers, body = server.ask("/nothing", Accept="text/html")

    assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"there is nothing at this address" in body
    status, _, body = server.ask("/training/0123456789ab", Accept="text/html,*/*")
    assert (status, b"this model is not in the workspace any more" in body) == (404, True)


def test_pages_without_anything_say_how_to_begin(server, workspace):
    for folder in ("data/ada/faces", "data/bob/faces"):
        for path in (workspace / folder).iterdir():
            path.unlink()
    for address, words in (
        ("/facesets", b"faceswap extract data/"), ("/training", b"needs the facesets of two"),
        ("/review", b"faceswap convert video.mp4"), ("/jobs", b"Jobs go on"),
    ):  # fmt: skip
        status, _, body = server.ask(address)
        assert (status, words in body) == (200, True), address
