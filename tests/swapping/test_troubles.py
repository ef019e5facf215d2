"""Troubles are found in what a conversion noted, and nothing is found where all is well."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap.errors import OutputError
from faceswap.faces.detection import DetectorSpec, detect_hog
from faceswap.faces.geometry import Box, align_face
from faceswap.media.frame import Frame
from faceswap.swapping.compositor import Swap
from faceswap.swapping.records import (
    SAME_PLACE,
    FaceRecord,
    FrameRecord,
    from_json,
    record_of,
    to_json,
    why_none,
)
from faceswap.swapping.troubles import BRIEF, troubles_in
from faceswap.tracking.appearance import Visits

# Numbers of clear frontal faces, from scripts/benchmarks/troubles.py.
AREA, CERTAINTY = 0.31, 0.93
FACE = FaceRecord(
    "swapped", 0, 0, (100, 100, 200, 220), 1.6, 5.0, -3.0, None, AREA, certainty=CERTAINTY
)


def clip_of(count=60, rate=25, **changes):
    """Build frames with one face that drifts slowly and trembles a little."""
    rng = np.random.default_rng(0)
    frames = []
    for index in range(count):
        x, y = 2 * index + rng.normal(0, 1, 2)
        left, top, right, bottom = FACE.box
        face = replace(
            FACE,
            box=tuple(map(float, (left + x, top + y, right + x, bottom + y))),
            area=float(AREA + rng.normal(0, 0.01)),
            certainty=float(CERTAINTY + rng.normal(0, 0.005)),
        )
        frames.append(FrameRecord(index, index / rate, None, [replace(face, **changes)]))
    return frames


def with_faces(frame, **changes):
    return replace(frame, faces=[replace(face, **changes) for face in frame.faces])


def kinds(frames, numbers=()):
    return {(t.kind, t.first, t.last) for t in troubles_in(frames, numbers)}


def test_clean_clip_has_no_troubles():
    assert troubles_in(clip_of()) == troubles_in([]) == []


def test_lost_face_is_told_from_a_face_that_is_absent():
    frames = clip_of()
    for index in (20, 21, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59):
        frames[index] = replace(frames[index], faces=[])

    assert kinds(frames) == {("lost face", 20, 21), ("no face", 50, 59)}


def test_brief_changes_at_one_place_are_flicker():
    for change in ({"fate": "not chosen", "track": 1}, {"target": 1}, {"track": 7}):
        frames = clip_of()
        for index in (30, 31):
            frames[index] = with_faces(frames[index], **change)
        assert ("identity flicker", 30, 31) in kinds(frames), change
    changed_for_good = [
        frame if frame.index < 30 else with_faces(frame, track=1) for frame in clip_of()
    ]
    assert kinds(changed_for_good) == set()


def test_somebody_else_who_keeps_the_track_is_flicker():
    frames = clip_of()
    frames[33] = with_faces(frames[33], away=3)  # seen in the picture: back after three frames

    assert kinds(frames) == {("identity flicker", 30, 32)}


def test_jumps_and_strange_masks_are_found():
    frames = clip_of()
    left, top, right, bottom = frames[10].faces[0].box
    frames[10] = with_faces(frames[10], box=(left + 40, top, right + 40, bottom))
    for index in (40, 41, 42):
        frames[index] = with_faces(frames[index], area=0.12)

    assert kinds(frames) == {("sudden jump", 10, 10), ("mask anomaly", 40, 42)}


@pytest.mark.parametrize("length", [1, 3, 10])
def test_thing_before_half_of_the_face_is_a_mask_anomaly_on_whatever_track(length):
    """A thing that covers much of the picture looks like a cut, at which tracks end."""
    frames = clip_of(80)
    for index in range(30, 30 + length):
        frames[index] = with_faces(frames[index], area=0.19, track=1)
    for index in range(30 + length, 80):
        frames[index] = with_faces(frames[index], track=2)

    assert ("mask anomaly", 30, 29 + length) in kinds(frames)


def test_mask_may_change_slowly_or_for_good():
    turning = [with_faces(f, area=0.36 - 0.003 * f.index, track=0) for f in clip_of()]
    another_shot = [
        with_faces(f, area=0.31 if f.index < 30 else 0.2, track=f.index // 30) for f in clip_of()
    ]

    assert kinds(turning) == kinds(another_shot) == set()


def test_face_that_is_doubted_for_a_while_has_a_low_score():
    frames = clip_of()
    for index in range(30, 40):
        frames[index] = with_faces(frames[index], certainty=0.87)  # half hidden, or blurred

    assert kinds(frames) == {("low score", 30, 39)}
    profile = [with_faces(frame, certainty=0.85) for frame in clip_of()]
    assert kinds(profile) == set()


@pytest.mark.parametrize("score", [-1.0, 0.3, 12.0])
def test_scale_of_the_detector_does_not_matter(score):
    assert kinds(clip_of(score=score)) == set()
    assert kinds(clip_of(score=score, certainty=0.7)) == {("low score", 0, 59)}


def test_missing_frames_are_found_by_time_or_number():
    frames = [replace(frame, time=frame.time + 0.08 * (frame.index >= 30)) for frame in clip_of()]
    assert kinds(frames) == {("missing frame", 30, 30)}
    numbers = [1001 + index + (index >= 12) for index in range(60)]
    assert kinds(clip_of(), numbers) == {("missing frame", 12, 12)}
    varying = [replace(frame, time=frame.index**2 / 25) for frame in clip_of()]
    assert kinds(varying) == set()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("low score", {"certainty": 0.78}), ("extreme pose", {"yaw": 75.0}),
     ("extreme pose", {"pitch": 50.0}),
     ("small face", {"box": (10, 10, 35, 40)}),
     ("no match", {"fate": "not chosen", "area": None, "distance": 0.8})],
)  # fmt: skip
def test_poor_faces_are_found(kind, changes):
    assert kinds(clip_of(**changes)) == {(kind, 0, 59)}


def test_worst_comes_first():
    frames = clip_of(certainty=0.6)
    frames[20] = replace(frames[20], faces=[])

    found = troubles_in(frames)

    severities = [trouble.severity for trouble in found]
    assert severities == sorted(severities, reverse=True)
    assert {trouble.kind for trouble in found} == {"lost face", "low score"}


def test_record_says_how_certain_the_face_is_and_who_was_away(collins, hopper):
    visits = Visits(BRIEF, SAME_PLACE)
    wide = cv2.resize(collins, None, fx=1.25, fy=1.0)  # looks less like the other person
    found = []
    for index, photo in enumerate([wide, wide, hopper, wide]):
        (face,) = detect_hog(photo, 0.2)
        frame = Frame(photo, index, Fraction(index, 25), Path("clip.mp4"))
        aligned = align_face(frame, face, 256, 0.625)
        here = replace(aligned, face=replace(face, box=Box(0, 0, 100, 100)))
        swap = Swap(here, aligned.image, np.ones((256, 256), np.float32))
        found += record_of(frame, [swap], [], None, DetectorSpec("hog"), visits).faces

    assert [face.away for face in found] == [None, None, None, 1]
    assert all(face.certainty > 0.9 and face.fate == "swapped" for face in found)
    without_yunet = record_of(frame, [swap], [], None, DetectorSpec("blaze")).faces
    assert [face.certainty for face in without_yunet] == [None]


def test_records_survive_json():
    record = clip_of(1)[0]

    assert from_json([to_json(record)], Path("x.parts")) == [record]
    with pytest.raises(OutputError, match=r"x\.parts are damaged .*index.*: delete x\.parts"):
        from_json([{"time": 0}], Path("x.parts"))


def test_why_no_face_was_swapped():
    found = clip_of(3)
    frames = [with_faces(f, fate="not chosen", distance=0.7 + f.index / 100) for f in found]

    assert why_none([replace(f, faces=[]) for f in found], "frame") == "no face found in 3 frames"
    assert why_none(frames, "frame") == (
        "3 faces found in 3 frames, but none is swapped: 3 left out by --who, --not or --cast "
        "(nearest distance 0.70; below 0.6 is the same person)"
    )
    outside = [with_faces(frame, fate="outside") for frame in found[:1]]
    assert why_none(outside, "photo") == (
        "1 face found in 1 photo, but none is swapped: 1 outside --frames"
    )
