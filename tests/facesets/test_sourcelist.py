"""Facesets notice what users do to their photos, videos and crops."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.cli.info import inspect
from faceswap.cli.text import extraction
from faceswap.config import ExtractConfig
from faceswap.errors import NoFacesError, SettingsError
from faceswap.facesets import extractor, sourcelist
from faceswap.facesets.extractor import extract
from faceswap.facesets.faceset import Faceset, face_key, read_records, source_key
from faceswap.facesets.sourcelist import Source, located, recognise
from faceswap.media.writers import write_clip
from faceswap.training import holdout
from tests.support.stops import Stopped, stop_after

QUICK = ExtractConfig(workers=1, detector="hog")


@pytest.fixture(autouse=True)
def plain_descriptions(monkeypatch):
    """Describe faces without the networks, which take 0.2 s a face and are not the subject."""
    describe = extractor.describe
    monkeypatch.setattr(extractor, "describe", lambda aligned, depth: describe(aligned, "place"))


@pytest.fixture
def photos(tmp_path, collins, hopper):
    """Four small photos, no two of them the same."""
    folder = tmp_path / "data" / "women"
    folder.mkdir(parents=True)
    for number, photo in enumerate((collins, hopper, collins[:, ::-1], hopper[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(photo)).reduce(2).save(folder / f"{number}.png")
    return folder


def sources_of(folder):
    return [record["source"] for record in read_records(folder / "faces.jsonl")]


def keys_of(folder):
    return [face_key(record) for record in read_records(folder / "faces.jsonl")]


def test_renamed_photo_keeps_its_face_and_a_deleted_one_is_named(photos):
    faces = extract(photos, config=QUICK).folder
    keys = keys_of(faces)
    (photos / "1.png").rename(photos / "smile.png")
    (photos / "2.png").unlink()

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces) == (0, 3, 4)
    assert report.renamed == ["1.png is now smile.png"]
    assert (report.gone, report.gone_faces) == (["2.png"], 1)
    assert sources_of(faces) == ["0.png", "smile.png", "2.png", "3.png"]
    assert keys_of(faces) == keys == Faceset.read(faces).keys  # models name faces by them
    lines = extraction(report)
    assert (
        "1 face kept of 1 source that no longer exists: 2.png; pass --prune to drop them" in lines
    )
    facts = inspect(faces)
    assert (facts.faces, facts.deleted, facts.sources, facts.gone) == (4, 0, 4, 1)
    assert not extract(photos, config=QUICK).renamed


def test_prune_drops_the_faces_of_deleted_photos(photos):
    faces = extract(photos, config=QUICK).folder
    (photos / "2.png").unlink()

    report = extract(photos, config=replace(QUICK, prune=True))

    assert (report.faces, report.gone, report.pruned) == (3, ["2.png"], True)
    assert sources_of(faces) == ["0.png", "1.png", "3.png"]
    assert sorted(path.name for path in faces.glob("*.png")) == [
        "000000-0.png", "000001-0.png", "000003-0.png",
    ]  # fmt: skip
    assert inspect(faces).gone == 0
    assert not extract(photos, config=replace(QUICK, prune=True)).gone


def test_replaced_photo_is_read_again_and_its_old_crop_removed(photos, collins):
    faces = extract(photos, config=QUICK).folder
    old = {record["source"]: record for record in read_records(faces / "faces.jsonl")}
    Image.fromarray(collins[30:, 20:]).save(photos / "1.png")

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces) == (1, 3, 4)
    assert report.replaced == ["1.png"]
    new = {record["source"]: record for record in read_records(faces / "faces.jsonl")}
    assert new.keys() == old.keys()
    assert new["1.png"]["landmarks"] != old["1.png"]["landmarks"]
    assert not (faces / old["1.png"]["file"]).exists()
    assert {k: v for k, v in new.items() if k != "1.png"} == {
        k: v for k, v in old.items() if k != "1.png"
    }
    assert extract(photos, config=QUICK).known == 4


def test_photo_of_the_same_size_in_bytes_counts_as_replaced(photos, collins, hopper):
    for name, photo in (("4.bmp", collins), ("5.bmp", hopper[:512])):
        Image.fromarray(photo).save(photos / name)
    faces = extract(photos, config=QUICK).folder
    before = [r["landmarks"] for r in read_records(faces / "faces.jsonl") if "4." in r["source"]]
    shutil.copyfile(photos / "5.bmp", photos / "4.bmp")

    report = extract(photos, config=QUICK)

    assert (report.images, report.replaced) == (1, ["4.bmp"])
    after = [r["landmarks"] for r in read_records(faces / "faces.jsonl") if "4." in r["source"]]
    assert before != after


def test_touched_photo_is_known(photos):
    extract(photos, config=QUICK)
    os.utime(photos / "1.png", (1, 1))

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.replaced) == (0, 4, [])


def test_exchanged_names_follow_the_photos(photos):
    faces = extract(photos, config=QUICK).folder
    keys, landmarks = keys_of(faces), [r["landmarks"] for r in read_records(faces / "faces.jsonl")]
    (photos / "0.png").rename(photos / "t")
    (photos / "1.png").rename(photos / "0.png")
    (photos / "t").rename(photos / "1.png")

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces) == (0, 4, 4)
    assert sources_of(faces) == ["1.png", "0.png", "2.png", "3.png"]
    assert keys_of(faces) == keys
    assert [r["landmarks"] for r in read_records(faces / "faces.jsonl")] == landmarks


def test_new_photo_with_the_old_name_of_another_gets_a_key_of_its_own(photos, collins):
    faces = extract(photos, config=QUICK).folder
    (photos / "1.png").rename(photos / "smile.png")
    Image.fromarray(collins[30:, 20:]).save(photos / "1.png")

    report = extract(photos, config=QUICK)

    assert (report.images, report.faces) == (1, 5)
    assert len(set(keys_of(faces))) == 5
    assert extract(photos, config=QUICK).known == 5


def test_rename_that_a_kill_interrupted_is_completed(photos, monkeypatch):
    """The list of sources is replaced first, and the faces follow it in this run or the next."""
    faces = extract(photos, config=QUICK).folder
    keys = keys_of(faces)
    (photos / "0.png").rename(photos / "t")
    (photos / "1.png").rename(photos / "0.png")
    (photos / "t").rename(photos / "1.png")
    with monkeypatch.context() as patch:
        patch.setattr(extractor.FacesetWriter, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, config=QUICK)

    report = extract(photos, config=QUICK)

    assert (report.images, report.known) == (0, 4)
    assert sources_of(faces) == ["1.png", "0.png", "2.png", "3.png"]
    assert keys_of(faces) == keys


def test_replacement_that_a_kill_interrupted_is_completed(photos, collins, monkeypatch):
    extract(photos, config=QUICK)
    Image.fromarray(collins[30:, 20:]).save(photos / "1.png")
    with monkeypatch.context() as patch:
        patch.setattr("faceswap.facesets.writer._write_lines", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, config=QUICK)

    report = extract(photos, config=QUICK)

    assert (report.images, report.faces, report.deleted) == (1, 4, 0)


def interrupt(*_):
    raise KeyboardInterrupt


def test_deleted_crops_stay_deleted_and_are_not_counted(photos):
    faces = extract(photos, config=QUICK).folder
    (faces / "000001-0.png").unlink()

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces, report.deleted) == (0, 4, 3, 1)
    assert not (faces / "000001-0.png").exists()
    assert extraction(report)[0].endswith("; 1 deleted crop left out")
    facts = inspect(faces)
    assert (facts.faces, facts.deleted) == (report.faces, report.deleted)
    assert len(Faceset.read(faces).keys) == report.faces


def test_faceset_without_any_crop_left_names_the_way_back(photos):
    faces = extract(photos, config=QUICK).folder
    for crop in faces.glob("*.png"):
        crop.unlink()

    with pytest.raises(NoFacesError, match=r"all 4 crops of .* were deleted.*--restart"):
        extract(photos, config=QUICK)


def test_renamed_photo_without_a_face_is_not_searched_again(photos):
    Image.new("RGB", (90, 90)).save(photos / "wall.png")
    extract(photos, config=QUICK)
    (photos / "wall.png").rename(photos / "brick.png")

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.without_face) == (0, 5, [])


def test_moved_folder_is_known(photos, tmp_path):
    faces = tmp_path / "sets" / "women"
    extract(photos, faces, QUICK)
    photos.rename(tmp_path / "elsewhere")

    report = extract(tmp_path / "elsewhere", faces, QUICK)

    assert (report.images, report.known, report.gone, report.renamed) == (0, 4, [], [])
    assert inspect(faces).gone == 0


def test_faceset_without_a_list_of_sources_is_taken_over(photos):
    """Older facesets name their one source in the settings."""
    faces = extract(photos, config=QUICK).folder
    (faces / "sources.jsonl").unlink()
    index = faces / "faces.jsonl"
    header, *lines = index.read_text().splitlines()
    old = json.loads(header)
    old["settings"]["source"] = ".."
    index.write_text("\n".join([json.dumps(old), *lines, ""]))
    (photos / "2.png").unlink()

    first = extract(photos, config=QUICK)
    (photos / "1.png").rename(photos / "smile.png")
    second = extract(photos, config=QUICK)

    assert (first.images, first.known, first.gone) == (0, 3, ["2.png"])
    assert (second.images, second.renamed) == (0, ["1.png is now smile.png"])
    assert "source" not in inspect(faces).settings


def test_damaged_list_of_sources_is_made_again(photos):
    faces = extract(photos, config=QUICK).folder
    (faces / "sources.jsonl").write_text('nonsense\n{"source": 3}\n[]\n{"source": "0.p')

    report = extract(photos, config=QUICK)

    assert (report.images, report.known, report.faces) == (0, 4, 4)
    (photos / "1.png").rename(photos / "smile.png")
    assert extract(photos, config=QUICK).renamed == ["1.png is now smile.png"]


def test_large_files_are_hashed_only_if_they_look_changed(tmp_path, monkeypatch):
    video = tmp_path / "in" / "v.mp4"
    video.parent.mkdir()
    video.write_bytes(b"frames")
    (tmp_path / "faces").mkdir()
    sourcelist.append_source(tmp_path / "faces", video, "v.mp4")
    known = sourcelist.read_sources(tmp_path / "faces", {}, {})
    hashed = []
    monkeypatch.setattr(sourcelist, "sha256_of", lambda path: hashed.append(path) or "0")

    assert recognise({video: "v.mp4"}, known).keys == {video: "v.mp4"}
    other = video.with_name("other.mp4")
    other.write_bytes(b"more frames")
    assert recognise({video: "v.mp4", other: "other.mp4"}, known).known == known
    assert hashed == []
    os.utime(video, (1, 1))
    recognise({video: "v.mp4"}, known)
    assert hashed == [video, video]  # is it the same, and if not, is it another one?


def test_same_names_in_two_folders_are_two_sources(tmp_path):
    paths = [tmp_path / "cam1" / "clip.mp4", tmp_path / "cam2" / "clip.mp4"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(path.parent.name.encode())

    found = recognise(dict.fromkeys(paths, "clip.mp4"), {})

    assert list(found.keys.values()) == ["clip.mp4", "cam2/clip.mp4"]
    long = "/".join(located(paths[1]).parts[1:])
    used = {"clip.mp4", *("/".join(Path(long).parts[-n:]) for n in range(1, 20))}
    assert sourcelist._unused_name(paths[1], "clip.mp4", used) == "clip.mp4 (2)"


def test_source_in_a_folder_that_may_not_be_searched_is_not_gone(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    source = Source("a.jpg", "a.jpg", tmp_path / "a.jpg", 3, 0.0, "0")
    assert source.gone
    monkeypatch.setattr(Path, "exists", refuse)
    assert not source.gone


@pytest.fixture
def clips(tmp_path, collins, hopper):
    """Two clips of five frames that have the same name, and a photo."""
    silence = np.zeros(9600, np.int16)
    for folder, photo in (("one", collins), ("two", hopper[:512])):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "clip.mp4", [photo] * 5, 25, silence, 48000)
    Image.fromarray(hopper).save(tmp_path / "photo.png")
    return tmp_path / "one" / "clip.mp4", tmp_path / "two" / "clip.mp4", tmp_path / "photo.png"


def test_several_sources_add_up_to_one_faceset(clips, tmp_path):
    reports = [extract(clip, tmp_path / "person", ExtractConfig(workers=1)) for clip in clips]
    together = extract(clips, tmp_path / "again", ExtractConfig(workers=1))

    assert [(r.images, r.faces) for r in reports] == [(5, 5), (5, 10), (1, 11)]
    assert not any(report.gone for report in reports)
    assert (together.images, together.faces) == (11, 11)
    one, both = Faceset.read(tmp_path / "person"), Faceset.read(tmp_path / "again")
    assert one.keys == both.keys
    assert {key.rpartition("#")[0] for key in one.keys} == {
        "clip.mp4", "two/clip.mp4", "photo.png",
    }  # fmt: skip
    chosen = holdout.split(one, 0.2)  # a block of each clip, and the only photo
    assert {key.rpartition("#")[0] for key in chosen.held_out} == {
        "clip.mp4", "two/clip.mp4", "photo.png",
    }  # fmt: skip


def test_stopped_extraction_of_a_second_clip_goes_on(clips, tmp_path):
    settings = ExtractConfig(workers=1)
    unbroken = extract(clips[:2], tmp_path / "unbroken", settings).folder
    extract(clips[0], tmp_path / "person", settings)
    with pytest.raises(Stopped):
        extract(clips[1], tmp_path / "person", settings, stop_after(2))

    report = extract(clips[1], tmp_path / "person", settings)

    assert report.faces == 10
    assert 0 < report.images < 5
    assert sorted(keys_of(report.folder)) == sorted(keys_of(unbroken))


def test_other_settings_are_refused_when_a_clip_is_added(clips, tmp_path):
    extract(clips[2], tmp_path / "person", QUICK)

    with pytest.raises(SettingsError, match="size 256, not 128"):
        extract(clips[0], tmp_path / "person", replace(QUICK, size=128))


def test_several_sources_need_an_output(clips):
    with pytest.raises(SettingsError, match="pass --output"):
        extract(clips)


def test_file_that_is_given_twice_is_read_once(clips, tmp_path):
    photo = clips[2]

    report = extract([photo, photo.parent / "one" / ".." / photo.name], tmp_path / "p", QUICK)

    assert (report.images, report.faces) == (1, 1)


def test_renamed_clip_is_known_by_its_hash(clips, tmp_path):
    settings = ExtractConfig(workers=1)
    faces = extract(clips[0], tmp_path / "person", settings).folder
    clips[0].rename(clips[0].with_name("interview.mp4"))

    report = extract(clips[0].with_name("interview.mp4"), faces, settings)

    assert (report.images, report.known, report.faces) == (0, 5, 5)
    assert set(sources_of(faces)) == {"interview.mp4"}
    assert {source_key(r) for r in read_records(faces / "faces.jsonl")} == {"clip.mp4"}
