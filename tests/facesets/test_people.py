"""Check who is in a faceset: groups, reports, --who, and the warnings of training."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from faceswap.cli import text
from faceswap.config import ExtractConfig
from faceswap.errors import InputError, NoFacesError
from faceswap.facesets.extractor import extract
from faceswap.facesets.faceset import Faceset
from faceswap.facesets.people import groups_of, persons_of
from faceswap.facesets.recognition import embedding_of
from faceswap.media.writers import write_clip
from faceswap.training import checks


def embeddings(*people, spread=0.03, seed=0):
    """Embeddings of people, given as (count, distance from the origin along an own axis)."""
    random = np.random.default_rng(seed)
    found = []
    for axis, (count, distance) in enumerate(people):
        center = np.zeros(128)
        center[axis] = distance
        found.append(center + random.normal(0, spread, (count, 128)))
    return np.concatenate(found).astype(np.float32)


def test_people_are_told_apart_and_the_largest_group_comes_first():
    mixed = embeddings((5, 0.7), (40, 0.6), (12, 0.65))
    order = np.random.default_rng(1).permutation(len(mixed))

    groups = groups_of(mixed[order])

    assert [len(group.members) for group in groups] == [40, 12, 5]
    truth = np.repeat([0, 1, 2], [5, 40, 12])[order]
    for group, person in zip(groups, (1, 2, 0), strict=True):
        assert {int(truth[member]) for member in group.members} == {person}
        np.testing.assert_allclose(group.mean, mixed[order][group.members].mean(axis=0), atol=1e-6)


def test_one_varied_person_is_one_group():
    """Photos of one person are up to 0.6 apart, but nearer to their mean."""
    one = embeddings((60, 0.5), spread=0.035)
    assert np.linalg.norm(one[:, None] - one, axis=2).max() > 0.55

    assert [len(group.members) for group in groups_of(one)] == [60]
    assert groups_of(np.empty((0, 128), np.float32)) == []


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory, collins, hopper, together):
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(6):
        Image.fromarray(collins[number:]).save(folder / f"c{number}.png")
    for number in range(2):
        Image.fromarray(hopper[number:]).save(folder / f"h{number}.png")
    Image.fromarray(together).save(folder / "together.png")
    return folder


def test_extraction_tells_who_is_in_a_faceset(mixed_folder, tmp_path):
    report = extract(mixed_folder, tmp_path / "faces", ExtractConfig(workers=1))

    assert [person.faces for person in report.people] == [7, 3]
    files = {}
    for line in (tmp_path / "faces" / "faces.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        files.setdefault(record["source"], []).append(record["file"])
    named = set(report.people[1].files)
    assert {*files["h0.png"], *files["h1.png"]} < named
    assert len(named & set(files["together.png"])) == 1
    shown = "\n".join(text.extraction(report))
    assert "shows 2 people, most often one with 7 faces" in shown
    assert "3 faces of another: 00000" in shown


def test_who_stores_one_person_only(mixed_folder, tmp_path):
    config = ExtractConfig(workers=1, who=(str(mixed_folder / "h0.png"),))

    report = extract(mixed_folder, tmp_path / "faces", config)

    assert [person.faces for person in report.people] == [3]
    assert sorted(report.others) == [f"c{number}.png" for number in range(6)]
    assert report.without_face == []
    assert "6 with other people only:" in text.extraction(report)


def test_who_without_a_match_says_so(mixed_folder, tmp_path, hopper):
    Image.fromarray(hopper).save(tmp_path / "h.png")
    config = ExtractConfig(workers=1, who=(str(tmp_path / "h.png"),))

    with pytest.raises(NoFacesError, match=r"1 image .* none of them is the person .* --who"):
        extract(mixed_folder / "c0.png", tmp_path / "faces", config)


def test_who_follows_the_person_through_a_video(tmp_path, together, hopper):
    """Two people sit beside each other; only one is stored, in every frame."""
    images = [np.ascontiguousarray(together[k : 440 + k : 2, ::2]) for k in range(20)]
    write_clip(tmp_path / "clip.mp4", iter(images), 25, np.zeros(38400, np.int16), 48000)
    Image.fromarray(hopper).save(tmp_path / "h.png")
    config = ExtractConfig(workers=1, who=(str(tmp_path / "h.png"),))

    report = extract(tmp_path / "clip.mp4", tmp_path / "faces", config)

    assert (report.faces, report.others) == (20, [])
    faces = Faceset.read(tmp_path / "faces")
    stored = np.isfinite(faces.embeddings).all(axis=1)
    assert stored.sum() == 1  # in every 32nd frame
    lines = (tmp_path / "faces" / "faces.jsonl").read_text().splitlines()[1:]
    measured = [json.loads(line)["expression"] is not None for line in lines]
    assert measured == [number % 4 == 0 for number in range(20)]
    known = embedding_of(tmp_path / "h.png")
    assert np.linalg.norm(faces.embeddings[stored] - known, axis=1).max() < 0.5


def test_reference_photo_of_several_people_is_told_of(tmp_path, together, caplog):
    Image.fromarray(together).save(tmp_path / "group.png")

    with caplog.at_level(logging.WARNING):
        embedding_of(tmp_path / "group.png")

    assert "group.png shows 2 people: the largest face" in caplog.text


def test_faces_are_described(mixed_folder, tmp_path):
    extract(mixed_folder / "c0.png", tmp_path / "faces", ExtractConfig(workers=1))

    record = json.loads((tmp_path / "faces" / "faces.jsonl").read_text().splitlines()[1])
    yaw, pitch, roll = record["pose"]
    assert abs(yaw) < 25
    assert abs(pitch) < 20
    assert abs(roll) < 20
    assert record["expression"]["mouthSmileLeft"] > 0.5  # she smiles
    assert "eyeBlinkLeft" not in record["expression"]
    assert 0.3 < record["sharpness"] < 1.2
    assert record["occluded"] < 0.2
    assert (record["track"], record["placed_by"]) == (-1, "dlib")


def test_blurred_and_hidden_faces_are_described_as_such(collins, tmp_path):
    import cv2

    covered = collins.copy()
    covered[120:240, 150:290] = (60, 90, 60)  # from the nose down
    for name, photo in (("sharp", collins), ("soft", cv2.GaussianBlur(collins, (0, 0), 3)),
                        ("covered", covered)):  # fmt: skip
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    extract(tmp_path, tmp_path / "faces", ExtractConfig(workers=1))

    lines = (tmp_path / "faces" / "faces.jsonl").read_text().splitlines()[1:]
    found = {record["source"][:-4]: record for record in map(json.loads, lines)}
    assert found["soft"]["sharpness"] < 0.5 * found["sharp"]["sharpness"]
    if "covered" in found:
        assert found["covered"]["occluded"] > found["sharp"]["occluded"] + 0.2


def test_damaged_embedding_is_refused(mixed_folder, tmp_path):
    extract(mixed_folder / "c0.png", tmp_path / "faces", ExtractConfig(workers=1))
    index = tmp_path / "faces" / "faces.jsonl"
    header, line = index.read_text().splitlines()
    for damage in ("?", "AAAA", 7):
        record = json.loads(line) | {"embedding": damage}
        index.write_text(f"{header}\n{json.dumps(record)}\n")
        with pytest.raises(InputError, match=r"the embedding of 000000-0\.png is damaged"):
            Faceset.read(tmp_path / "faces")


def faceset_of(landmarks, embeddings, name="x"):
    import torch

    count = len(embeddings)
    crops = torch.zeros((count, 3, 64, 64), dtype=torch.uint8)
    points = np.stack([landmarks] * count) if landmarks.ndim == 2 else landmarks
    keys = [f"{number}.png#0-0" for number in range(count)]
    return Faceset(name, crops, points, keys, 0.625, np.zeros(count), ["dlib"] * count, embeddings)


def warnings_of(caplog, check, *arguments):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check(*arguments)
    return caplog.text


def test_training_warns_about_other_people(collins_face, caplog):
    points = collins_face.landmarks
    mixed = faceset_of(points, embeddings((60, 0.6), (6, 0.6)), "mixed")
    clean = faceset_of(points, embeddings((60, 0.6), (1, 0.6)), "clean")

    said = warnings_of(caplog, checks.warn_about_people, {"a": mixed, "b": clean})

    assert "a (mixed): about 9 % of the faces show other people" in said
    assert "clean" not in said


def test_training_warns_if_a_and_b_are_one_person(caplog):
    one, other = embeddings((1, 0.6), (1, 0.6), spread=0.0)

    assert "the same person" in warnings_of(
        caplog, checks.warn_about_likeness, {"a": one, "b": one + np.float32(0.01)}
    )
    assert not warnings_of(caplog, checks.warn_about_likeness, {"a": one, "b": other})


def turned(yaw, pitch=0.0):
    """Landmarks of an average head that is turned, seen from afar."""
    from faceswap.faces.pose import USUAL_PITCH, head_shape

    y, p = np.radians(yaw), np.radians(pitch + USUAL_PITCH)
    lower = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    aside = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    seen = head_shape() @ (aside @ lower).T
    return (seen[:, :2] * 60 + 128).astype(np.float32)


def test_training_warns_about_poses_that_b_lacks(caplog):
    unknown = np.full((40, 128), np.nan, np.float32)
    ahead = np.stack([turned(0)] * 40)
    both = ahead.copy()
    both[:4] = turned(-45)
    a, b = faceset_of(both, unknown, "a-name"), faceset_of(ahead, unknown, "b-name")

    said = warnings_of(caplog, checks.warn_about_poses, {"a": a, "b": b})
    assert "b (b-name) hardly shows faces facing left, which a (a-name) does" in said
    assert not warnings_of(caplog, checks.warn_about_poses, {"a": b, "b": a})
    assert not warnings_of(caplog, checks.warn_about_poses, {"a": a, "b": a})


def test_faces_without_an_embedding_count_as_those_of_their_track():
    one, other = np.zeros(128, np.float32), np.full(128, 0.1, np.float32)
    unknown = np.full(128, np.nan, np.float32)
    embeddings = np.stack([other, one, one, unknown, unknown, unknown, unknown])
    tracks = ["x", "y", None, "x", "y", "z", None]

    persons, groups = persons_of(embeddings, tracks)

    assert persons == [1, 0, 0, 1, 0, None, None]
    assert [group.members for group in groups] == [[1, 2], [0]]
    assert persons_of(unknown[None], ["x"]) == ([None], [])
