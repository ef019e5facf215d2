"""Troubles are found in what a conversion noted, and nothing is found where all is well."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceswap.errors import OutputError
from faceswap.swapping.records import FaceRecord, FrameRecord, from_json, to_json, why_none
from faceswap.swapping.troubles import troubles_in

FACE = FaceRecord("swapped", 0, 0, (100, 100, 200, 220), 2.5, 5.0, -3.0, None, 0.3)


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
            area=float(0.3 + rng.normal(0, 0.01)),
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


def test_jumps_and_strange_masks_are_found():
    frames = clip_of()
    left, top, right, bottom = frames[10].faces[0].box
    frames[10] = with_faces(frames[10], box=(left + 40, top, right + 40, bottom))
    for index in (40, 41, 42):
        frames[index] = with_faces(frames[index], area=0.12)

    assert kinds(frames) == {("sudden jump", 10, 10), ("mask anomaly", 40, 42)}


def test_missing_frames_are_found_by_time_or_number():
    frames = [replace(frame, time=frame.time + 0.08 * (frame.index >= 30)) for frame in clip_of()]
    assert kinds(frames) == {("missing frame", 30, 30)}
    numbers = [1001 + index + (index >= 12) for index in range(60)]
    assert kinds(clip_of(), numbers) == {("missing frame", 12, 12)}
    varying = [replace(frame, time=frame.index**2 / 25) for frame in clip_of()]
    assert kinds(varying) == set()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("low score", {"score": 0.3}), ("extreme pose", {"yaw": 75.0}),
     ("extreme pose", {"pitch": 50.0}),
     ("small face", {"box": (10, 10, 35, 40)}),
     ("no match", {"fate": "not chosen", "area": None, "distance": 0.8})],
)  # fmt: skip
def test_poor_faces_are_found(kind, changes):
    assert kinds(clip_of(**changes)) == {(kind, 0, 59)}


def test_worst_comes_first():
    frames = clip_of(score=0.3)
    frames[20] = replace(frames[20], faces=[])

    found = troubles_in(frames)

    severities = [trouble.severity for trouble in found]
    assert severities == sorted(severities, reverse=True)
    assert {trouble.kind for trouble in found} == {"lost face", "low score"}


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
        "3 faces found in 3 frames, but none is swapped: 3 not among the people chosen (nearest "
        "distance 0.70; below 0.6 is the same person)"
    )
    outside = [with_faces(frame, fate="outside") for frame in found[:1]]
    assert why_none(outside, "photo") == (
        "1 face found in 1 photo, but none is swapped: 1 outside --frames"
    )
