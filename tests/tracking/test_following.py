"""Follow the same person: through cuts, dissolves, darkness, gaps, turned pictures and the edge."""

import cv2
import numpy as np
import pytest

from faceswap.faces.detection import DetectorSpec, detect_hog
from faceswap.faces.geometry import Face, typical_box
from faceswap.faces.pool import DetectorPool
from faceswap.tracking import tracker
from tests.tracking.test_tracker import frames_of

WIDTH, HEIGHT = 640, 360
SIDE = 150  # pixels of a pasted portrait


def background():
    noise = np.random.default_rng(1).integers(70, 160, (10, 17, 3), np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def portrait(photo, side=SIDE):
    """A square around the face, and an oval that shows the head only."""
    box = detect_hog(photo, 0.2)[0].box
    margin = round(0.25 * (box.right - box.left))
    rows = slice(max(round(box.top) - margin, 0), round(box.bottom) + margin)
    columns = slice(max(round(box.left) - margin, 0), round(box.right) + margin)
    head = cv2.resize(photo[rows, columns], (side, side), interpolation=cv2.INTER_AREA)
    y, x = np.indices((side, side)) / (side / 2) - 1
    oval = np.clip((1 - (x / 0.9) ** 2 - y**2) * 6, 0, 1)
    return head, oval[..., None]


def pasted(image, pair, x, y):
    """Paste a portrait with its top left corner at (x, y), which may lie outside."""
    head, oval = pair
    side = len(head)
    large = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE)
    rows, columns = slice(y + side, y + 2 * side), slice(x + side, x + 2 * side)
    large[rows, columns] = large[rows, columns] * (1 - oval) + head * oval
    return large[side:-side, side:-side].copy()


@pytest.fixture(scope="module")
def heads(collins, hopper):
    return portrait(collins), portrait(hopper)


def place_of(index):
    """Where the head of a person who hardly moves is in a frame."""
    return round(230 + 3 * np.sin(index / 5)), round(90 + 2 * np.cos(index / 4))


def tracks_of(images, spec=None):
    """Return for each frame its faces by track."""
    with DetectorPool(0.2, 1) as pool:
        found = tracker.track_faces(frames_of(images), pool, spec or DetectorSpec(), smooth=False)
        return [{face.track: face for face in faces} for _, faces in found]


@pytest.mark.parametrize("cut", [24, 27, 32])
def test_track_ends_at_a_cut_on_an_unchanged_background(heads, cut):
    images = [pasted(background(), heads[k >= cut], *place_of(k)) for k in range(48)]

    found = tracks_of(images)

    assert all(len(faces) == 1 for faces in found)
    numbers = [next(iter(faces)) for faces in found]
    assert len(set(numbers[:cut])) == len(set(numbers[cut:])) == 1
    assert numbers[0] != numbers[-1]


def test_track_ends_in_a_dissolve_to_another_person(heads):
    def mixed(k):
        share = min(max((k - 20) / 16, 0), 1)
        one, other = (pasted(background(), head, *place_of(k)) for head in heads)
        return cv2.addWeighted(one, 1 - share, other, share, 0)

    found = tracks_of([mixed(k) for k in range(64)])

    assert not found[16].keys() & found[48].keys()
    assert len({next(iter(faces)) for faces in found[48:]}) == 1


def test_person_who_moves_fast_keeps_the_track(heads):
    places = [round(40 + 10 * k) for k in range(40)]

    found = tracks_of([pasted(background(), heads[0], x, 90) for x in places])

    assert all(set(faces) == {0} for faces in found)


@pytest.mark.parametrize("hidden", [range(5, 8), range(14, 19), range(20, 29)])
def test_short_gap_is_filled_in_between(heads, hidden):
    empty = background()
    images = [
        empty if k in hidden else pasted(background(), heads[0], 200 + 2 * k, 90) for k in range(40)
    ]

    found = tracks_of(images)

    assert all(set(faces) == {0} for faces in found)
    middle = hidden[len(hidden) // 2]
    moved = found[middle][0].landmarks.mean(axis=0) - found[0][0].landmarks.mean(axis=0)
    assert np.abs(moved - [2 * middle, 0]).max() < 3


def test_long_absence_ends_the_track(heads):
    images = [
        background() if 10 <= k < 30 else pasted(background(), heads[0], 230, 90) for k in range(40)
    ]

    found = tracks_of(images)

    assert not any(found[12:28])
    assert not found[0].keys() & found[-1].keys()


def test_face_in_low_light_is_found_in_every_frame(heads):
    noise = np.random.default_rng(0).normal(0, 3, (24, HEIGHT, WIDTH, 3))
    images = [pasted(background(), heads[0], *place_of(k)) * 0.16 + noise[k] for k in range(24)]

    found = tracks_of([np.clip(image, 0, 255).astype(np.uint8) for image in images])

    assert all(set(faces) == {0} for faces in found)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_video_is_tracked(heads, quarters):
    upright = tracks_of([pasted(background(), heads[0], 230, 90)])[0][0].landmarks
    images = [pasted(background(), heads[0], *place_of(k)) for k in range(20)]

    found = tracks_of([np.ascontiguousarray(np.rot90(image, quarters)) for image in images])

    assert all(set(faces) == {0} for faces in found)
    x, y = found[0][0].landmarks.T
    turned = np.stack([x, y], axis=1)
    size = [WIDTH, HEIGHT] if quarters == 2 else [HEIGHT, WIDTH]
    for _ in range(4 - quarters):
        turned = np.stack([turned[:, 1], size[0] - 1 - turned[:, 0]], axis=1)
        size = size[::-1]
    eyes = np.linalg.norm(upright[36:42].mean(axis=0) - upright[42:48].mean(axis=0))
    shift = np.array(place_of(0)) - [230, 90]
    assert np.linalg.norm(turned - upright - shift, axis=1).mean() < 0.1 * eyes


@pytest.mark.parametrize("choice", ["auto", "dlib", "mesh"])
def test_face_that_leaves_the_picture_is_followed_to_the_edge(heads, choice):
    """It moves out 5 pixels per frame; at the end, a sliver of it is left."""
    lefts = [60 - 5 * k for k in range(36)]
    images = [pasted(background(), heads[0], x, 90) for x in lefts]

    found = tracks_of(images, DetectorSpec(landmarks=choice))

    present = [0 in faces for faces in found]
    assert all(present[:33])
    start = found[0][0].landmarks.mean(axis=0)
    for k in (20, 26, 30):
        moved = found[k][0].landmarks.mean(axis=0) - start
        assert np.abs(moved - [-5 * k, 0]).max() < 12


def test_small_faces_are_found_if_the_frame_shows_no_others(collins):
    frame = cv2.resize(background(), (1280, 720), interpolation=cv2.INTER_CUBIC)
    small, oval = portrait(collins, 50)
    area = frame[500:550, 900:950]
    area[:] = area * (1 - oval) + small * oval

    found = tracks_of([frame] * 17)

    assert all(len(faces) == 1 for faces in found)
    face: Face = next(iter(found[0].values()))
    assert 20 < face.box.right - face.box.left < 50
    assert typical_box(face.landmarks).left == pytest.approx(face.box.left, abs=0.5)
