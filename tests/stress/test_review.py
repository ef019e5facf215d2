"""A killed server of ``faceswap review`` loses nothing that it confirmed."""

import base64
import http.client
import json
import random
import re
import subprocess
import sys
import threading
from contextlib import suppress

import cv2
import numpy as np
import pytest

from faceswap.facesets.edits import EDITS, MASKS
from faceswap.facesets.faceset import Faceset
from faceswap.files import read_lines
from tests.review.conftest import SIZE, Server, workspace  # noqa: F401 - a fixture

KILLS = 8
ADDRESS = re.compile(r"open (http://127\.0\.0\.1:(\d+)/\?token=(\S+))")


@pytest.mark.stress
def test_killed_server_loses_no_confirmed_edit(workspace):  # noqa: F811
    folder = workspace / "data" / "ada" / "faces"
    chance, confirmed = random.Random(0), 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-m", "faceswap", "review", workspace],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            found = ADDRESS.match(process.stdout.readline())
            server = Server(found[1], int(found[2]), found[3])
            threading.Timer(chance.uniform(0.2, 1.2), process.kill).start()
            with suppress(OSError, http.client.HTTPException):
                while True:
                    painted = np.full((SIZE, SIZE), chance.randrange(256), np.uint8)
                    png = base64.b64encode(cv2.imencode(".png", painted)[1]).decode()
                    mask = {"edit": "mask", "faces": ["05.jpg#0-0"], "mask": png}
                    for edit in ({"edit": "reject", "faces": ["07.jpg#0-0"]}, mask):
                        status, _, body = server.ask(f"{server.faceset('ada')}/edits", "POST", edit)
                        assert status == 200, body
                        confirmed += 1
        written = read_lines(folder / EDITS) if (folder / EDITS).exists() else []
        assert len([json.loads(line) for line in written]) >= confirmed
        faceset = Faceset.read(folder)  # refuses damaged lines, and masks missing or damaged
        if confirmed:
            assert "07.jpg#0-0" not in faceset.keys
            last = json.loads([line for line in written if '"mask"' in line][-1])["mask"]
            assert (folder / MASKS / last).is_file()
    assert confirmed > KILLS
