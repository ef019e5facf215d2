import json

import numpy as np
import pytest

from faceswap.errors import InputError
from faceswap.faces.geometry import Box, Face
from faceswap.tracking.tracklog import FaceLog, SpanRecord, Vote


def random_face(random, track):
    left, top = random.uniform(-20, 600, 2)
    box = Box(left, top, left + np.pi * 40, top + random.uniform(30, 90))
    landmarks = random.normal(300, 100, (68, 2)).astype(np.float32)
    by = ("dlib", "mesh", "head")[track % 3]
    return Face(box, float(random.uniform(0, 3)), landmarks, track, placed_by=by)


def fields(placed):
    return [
        (place, f.track, f.score, f.box.left, f.box.top, f.box.right, f.box.bottom,
         f.landmarks.tobytes(), f.landmarks.dtype, f.placed_by)
        for place, f in placed
    ]  # fmt: skip


@pytest.fixture
def entries():
    random = np.random.default_rng(0)
    return [
        SpanRecord(
            first=7 + 16 * number, count=16, joined=number != 1, tracks=2 * number + 1,
            faces=[(place, random_face(random, place % 3)) for place in range(5)],
            before=[(15, random_face(random, 4))] if number else [],
        )
        for number in range(3)
    ]  # fmt: skip


def test_log_is_read_back_bit_for_bit(tmp_path, entries):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    votes, distances, kept = [], {}, []
    for number, entry in enumerate(entries):
        log.add(entry)
        votes.append(Vote(number, 5, None if number == 1 else number, number < 2))
        distances[number] = 0.1 + number / 3
        kept.append((number, (number, 7)))
        log.decide(votes, distances, kept)
    log.decide(list(log.votes), dict(log.distances), list(log.kept))  # nothing new, so no line

    reread = FaceLog(path)

    assert len(path.read_text().splitlines()) == 6
    for old, new in zip(entries, reread.entries, strict=True):
        assert (new.first, new.count, new.joined, new.tracks) == (
            old.first, old.count, old.joined, old.tracks
        )  # fmt: skip
        assert fields(new.faces) == fields(old.faces)
        assert fields(new.before) == fields(old.before)
    assert (reread.votes, reread.distances, reread.kept) == (votes, distances, kept)
    assert (reread.origin, reread.end) == (7, 55)


def test_since_drops_earlier_spans_but_keeps_the_origin(tmp_path, entries):
    log = FaceLog(tmp_path / "faces.jsonl")
    for entry in entries:
        log.add(entry)
    reread = FaceLog(tmp_path / "faces.jsonl")

    assert [entry.first for entry in reread.since(23).entries] == [23, 39]
    assert reread.origin == 7
    assert [entry.first for entry in reread.since(38).entries] == [23, 39]
    assert reread.since(55).entries == []
    assert reread.end == 0


def test_torn_last_line_is_dropped_before_appending(tmp_path, entries):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    log.add(entries[0])
    log.add(entries[1])
    path.write_bytes(path.read_bytes()[:-20])

    reread = FaceLog(path)
    reread.add(entries[2])

    assert [entry.first for entry in FaceLog(path).entries] == [7, 39]


def damaged(line, damage):
    record = json.loads(line)
    if damage == "missing landmarks":
        record["faces"][0][-1] = record["faces"][0][-1][:-16]
    elif damage == "not a number":
        record["faces"][0][2] = float("nan")
    elif damage == "missing field":
        del record["tracks"]
    elif damage == "not base64":
        record["faces"][0][-1] = "?" + record["faces"][0][-1][1:]
    elif damage == "a list":
        record = [record]
    elif damage == "zeros":
        return "\0" * 40
    return json.dumps(record)


@pytest.mark.parametrize(
    "damage",
    ["missing landmarks", "not a number", "missing field", "not base64", "a list", "zeros"],
)
def test_damaged_line_gives_a_one_line_error(tmp_path, entries, damage):
    path = tmp_path / "faces.jsonl"
    log = FaceLog(path)
    for entry in entries:
        log.add(entry)
    lines = path.read_text().splitlines()
    lines[1] = damaged(lines[1], damage)
    path.write_text("\n".join(lines) + "\n")

    with pytest.raises(InputError, match=r"faces\.jsonl line 2 is damaged .*delete .* to") as e:
        FaceLog(path)
    assert "\n" not in str(e.value)
