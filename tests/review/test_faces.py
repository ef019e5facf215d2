"""What the grid shows and sorts by."""

import io

import numpy as np
import pytest
from PIL import Image

from faceswap.facesets.faceset import Faceset
from faceswap.facesets.people import groups_of
from faceswap.review import faces
from tests.review.conftest import FACES, SIZE


@pytest.fixture
def ada(workspace):
    return workspace / "data" / "ada" / "faces"


def test_near_duplicates_are_grouped():
    hashes = np.array([0, 0b1111, 0xFFFF << 20, 1, 0xFFFF << 40, 0xFFFF << 40], np.uint64)

    assert faces._twins(hashes) == [0, 0, None, 0, 1, 1]


def test_people_are_those_of_the_list(server, ada):
    listed = faces.Faces().listed(ada)
    found = faces.people(ada, listed)
    embeddings = Faceset.read(ada).embeddings
    groups = groups_of(embeddings)

    assert groups[1].members == [0, 1, 2]
    assert found["person"][:4] == [1, 1, 1, 0]
    assert len(server.json(f"{server.faceset('ada')}/people")["person"]) == FACES["ada"]


@pytest.mark.parametrize("side", faces.THUMBS)
def test_thumbnails_are_small_jpegs(server, side):
    status, headers, data = server.ask(f"{server.faceset('ada')}/thumb/3/{side}")

    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(data)).size == (min(side, SIZE),) * 2


def test_light_of_a_crop_is_the_mean_of_its_middle(ada):
    path = ada / "000007-0.png"
    Image.fromarray(np.full((SIZE, SIZE, 3), 200, np.uint8)).save(path)
    (ada / "000009-0.png").write_bytes(b"no image")

    light = faces.looks(ada, faces.Faces().listed(ada))["light"]

    assert light[7] == 200
    assert light[9] is None
    assert 20 < light[8] < 190


def test_changed_faceset_is_read_again(ada):
    kept = faces.Faces()
    before = kept.listed(ada)
    assert kept.listed(ada) is before
    (ada / "000007-0.png").unlink()

    assert len(kept.listed(ada).lines) == len(before.lines) - 1
