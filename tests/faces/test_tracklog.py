import json

import numpy as np
import pytest

from faceswap.errors import InputError
from faceswap.faces.geometry import Box, Face
from faceswap.faces.tracklog import FaceLog, SpanRecord


def some_face(random, track):
    left, top = random.uniform(-20, 600, 2)
    box = Box(left, top, left + np.pi * 40, top + random.uniform(30, 90))
    landmarks = random.normal(300, 100, (68, 2)).astype(np.float32)
    return Face(box, float(random.uniform(0, 3)), landmarks, track)


def facts(placed):
    return [
        (place, f.track, f.score, f.box.left, f.box.top, f.box.right, f.box.bottom,
         f.landmarks.tobytes(), f.landmarks.dtype)
        for place, f in placed
    ]  # fmt: skip


@pytest.fixture
def entries():
    random = np.random.default_rng(0)
    return [
        SpanRecord(
            first=7 + 16 * number, count=16, joined=number != 1, tracks=2 * number + 1,
            faces=[(place, some_face(random, place % 3)) for place in range(5)],
            before=[(15, some_face(random, 4))] if number else [],
        )
        for number in range(3)
    ]  # fmt: skip


def test_what_was_found_comes_back_bit_for_bit(tmp_path, entries):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    targets, distances = {}, {}
    for number, entry in enumerate(entries):
        log.add(entry)
        targets[number], distances[number] = None if number == 1 else number, 0.1 + number / 3
        log.decide(targets, distances)
    log.decide(dict(log.targets), dict(log.distances))  # nothing new: no line

    again = FaceLog(path)

    assert len(path.read_text().splitlines()) == 6
    for old, new in zip(entries, again.entries, strict=True):
        assert (new.first, new.count, new.joined, new.tracks) == (
            old.first, old.count, old.joined, old.tracks
        )  # fmt: skip
        assert facts(new.faces) == facts(old.faces)
        assert facts(new.before) == facts(old.before)
    assert again.targets == targets
    assert again.distances == distances
    assert (again.origin, again.end) == (7, 55)


def test_segments_before_a_frame_are_forgotten_but_not_where_the_video_begins(tmp_path, entries):
    log = FaceLog(tmp_path / "faces.jsonl")
    for entry in entries:
        log.add(entry)
    again = FaceLog(tmp_path / "faces.jsonl")

    assert [entry.first for entry in again.since(23).entries] == [23, 39]
    assert again.origin == 7
    assert [entry.first for entry in again.since(38).entries] == [23, 39]
    assert again.since(55).entries == []
    assert again.end == 0


def test_a_torn_last_line_is_dropped_and_writing_goes_on(tmp_path, entries):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    log.add(entries[0])
    log.add(entries[1])
    path.write_bytes(path.read_bytes()[:-20])

    again = FaceLog(path)
    again.add(entries[2])

    assert [entry.first for entry in FaceLog(path).entries] == [7, 39]


def damaged(line, what):
    record = json.loads(line)
    if what == "a landmark is missing":
        record["faces"][0][-1] = record["faces"][0][-1][:-16]
    elif what == "not a number":
        record["faces"][0][2] = float("nan")
    elif what == "no field":
        del record["tracks"]
    elif what == "not base64":
        record["faces"][0][-1] = "?" + record["faces"][0][-1][1:]
    elif what == "a list":
        record = [record]
    elif what == "zeros":
        return "\0" * 40
    return json.dumps(record)


@pytest.mark.parametrize(
    "what", ["a landmark is missing", "not a number", "no field", "not base64", "a list", "zeros"]
)
def test_a_damaged_line_is_one_clear_line(tmp_path, entries, what):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    for entry in entries:
        log.add(entry)
    lines = path.read_text().splitlines()
    lines[1] = damaged(lines[1], what)
    path.write_text("\n".join(lines) + "\n")

    with pytest.raises(InputError, match=r"faces\.jsonl line 2 is damaged .*delete .* to") as e:
        FaceLog(path)
    assert "\n" not in str(e.value)
