"""A workspace with two facesets, and a server that shows it."""

import base64
import http.client
import io
import json
import re
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="faceswap[review] is not installed")

from faceswap.config import COVERAGE
from faceswap.faces.geometry import align_face
from faceswap.facesets.description import Description
from faceswap.facesets.writer import FacesetWriter
from faceswap.media.frame import Frame
from faceswap.review.server import prepare

SIZE = 64
FACES = {"ada": 48, "bob": 12}


@pytest.fixture
def workspace(tmp_path, collins, collins_face):
    """Faces of two people; those of ada get sharper and turn to the right one by one."""
    root = tmp_path / "workspace"
    random = np.random.default_rng(0)
    for name, count in FACES.items():
        writer = FacesetWriter(root / "data" / name / "faces", SIZE, COVERAGE, {})
        person = random.normal(0, 0.05, 128)
        for number in range(count):
            shift = random.normal(0, 2, (1, 2)).astype(np.float32)
            face = replace(collins_face, landmarks=collins_face.landmarks + shift)
            photo = Frame(collins, 0, Fraction(0), Path(f"{number:02}.jpg"))
            aligned = align_face(photo, face, SIZE, COVERAGE)
            other = number < 3  # the first three show somebody else
            embedding = (person + 0.1 * other + random.normal(0, 0.005, 128)).astype(np.float32)
            description = Description(
                (number - 24.0, 0.0 if name == "ada" else 40.0, 0.0), 0.2 + number / 100,
                {"jawOpen": 0.5}, 0.1, False, embedding,
            )  # fmt: skip
            writer.add(f"{number:02}.jpg", photo, [aligned], descriptions=[description])
    return root


@dataclass
class Server:
    """A running server."""

    address: str
    port: int
    token: str

    def ask(self, path, method="GET", body=None, token=True, **headers):
        """Send a request; return its status, its headers and its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Host": f"127.0.0.1:{self.port}"}
        if token:
            sent["Cookie"] = f"faceswap-{self.port}={self.token}"
        if method == "POST":
            sent |= {
                "Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json",
            }  # fmt: skip
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value is not None}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = json.dumps(body).encode() if body is not None else b""
        for name, value in ({"Content-Length": str(len(data))} | sent).items():
            connection.putheader(name, value)
        connection.endheaders(data)
        with closing(connection), connection.getresponse() as answer:
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()

    def json(self, path, **options):
        status, _, data = self.ask(path, **options)
        assert status == 200, data
        return json.loads(data)

    def faceset(self, name):
        """Return the address of a faceset."""
        from faceswap.review.workspace import id_of

        return f"/facesets/{id_of(Path('data', name, 'faces'))}"


@pytest.fixture
def server(workspace):
    with closing(prepare(workspace, 0)) as served:
        thread = threading.Thread(target=served.run)
        thread.start()
        port = int(re.search(r":(\d+)/", served.address)[1])
        yield Server(served.address, port, served.address.partition("token=")[2])
        served.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(ask, seconds=120):
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def at(page, selector):
    """Return the pixels of a canvas, (H, W, 3)."""
    url = page.eval_on_selector(selector, "canvas => canvas.toDataURL('image/png')")
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
