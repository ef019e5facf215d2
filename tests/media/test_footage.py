"""Videos are read from any frame on, and numbered images are read like a video."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from faceswap.errors import InputError
from faceswap.media import reader
from faceswap.media.footage import (
    VideoFile,
    decoded,
    identify,
    sequence_at,
    sequence_in,
    shows_motion,
)
from faceswap.media.photos import read_photo
from tests.support.clips import make_clip, picture, shown


def write_images(folder, numbers, name="shot.{:04d}.png"):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(picture(number, 64, 48)).save(folder / name.format(number))
    return folder


CLIPS = {
    "b_frames": {"options": {"g": "10", "bf": "3"}},
    "one_key_frame": {"options": {"g": "999"}},
    "open_gop": {
        "codec": "libx265", "options": {"x265-params": "keyint=10:open-gop=1:log-level=0"},
    },
    "varying_rate": {"times": [n * n for n in range(40)], "options": {"g": "7"}},
    "late_start": {"times": range(30, 70), "options": {"g": "8"}},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("name", CLIPS)
def test_reading_from_a_frame_equals_reading_all(tmp_path, name, suffix):
    if suffix in (".avi", ".ts") and name in ("varying_rate", "open_gop"):
        pytest.skip("the container does not hold it")
    options = {"times": range(40), "audio": 0} | CLIPS[name]
    clip = VideoFile(make_clip(tmp_path / f"x{suffix}", **options))
    whole = list(clip.read())

    for first in (1, 9, 10, 11, 25, 39, 40):
        part = list(clip.read(first))
        assert [(f.index, f.time) for f in part] == [(f.index, f.time) for f in whole[first:]]
        for one, other in zip(part, whole[first:], strict=True):
            np.testing.assert_array_equal(one.image, other.image)
    assert clip.times() == [frame.time for frame in whole]
    assert clip.first_at(whole[12].time) == 12
    assert clip.first_at(whole[12].time + Fraction(1, 10**6)) == 13
    assert clip.first_at(Fraction(10**6)) == 40


def test_reading_from_a_late_frame_decodes_few_others(tmp_path, monkeypatch):
    clip = VideoFile(make_clip(tmp_path / "x.mp4", times=range(200), audio=0, options={"g": "10"}))
    made = []
    to_frame = reader.to_frame
    monkeypatch.setattr(reader, "to_frame", lambda *args: made.append(1) or to_frame(*args))

    next(clip.read(180))

    assert len(made) == 1


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [("shot.%04d.png", [1, 2, 5, 10000]), ("shot.####.png", [1, 2, 5, 10000]),
     ("shot.@@@@.png", [1, 2, 5, 10000]), ("shot.#####.png", [10000]),
     ("shot.%d.png", [1, 2, 5, 10000]), ("sho%d.png", None)],
)  # fmt: skip
def test_pattern_names_its_files(tmp_path, pattern, numbers):
    folder = write_images(tmp_path / "shots", [5, 1, 2, 10000])
    (folder / "shot.0003.jpg").write_bytes(b"another suffix")
    (folder / "reshot.0003.png").write_bytes(b"another name")

    if numbers is None:
        with pytest.raises(InputError, match="no file matches"):
            sequence_at(folder / pattern)
        return
    assert list(sequence_at(folder / pattern).numbers) == numbers


def test_sequence_is_read_like_a_video_with_gaps_in_time(tmp_path):
    folder = write_images(tmp_path / "shots", [7, 8, 10, 13])

    kind, sequence = identify(folder, "sequence", Fraction(24000, 1001))

    frames = list(sequence.read())
    assert kind == "sequence"
    assert str(sequence.path) == str(folder / "shot.####.png")
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.time * sequence.rate for frame in frames] == [0, 1, 3, 6]
    assert [sequence.number_of(frame.index) for frame in frames] == [7, 8, 10, 13]
    assert sequence.gaps == [(9, 9), (11, 12)]
    assert [frame.source.name for frame in sequence.read(2)] == ["shot.0010.png", "shot.0013.png"]
    info = sequence.probe()
    assert (info.width, info.height, info.frames) == (64, 48, 4)
    assert info.seconds == Fraction(7 * 1001, 24000)
    assert sequence.first_at(3 / sequence.rate) == 2
    assert [frame.index for frame in sequence.sample(2)] == [0, 1]
    with sequence.opened() as (container, video):
        assert (video.width, video.height, video.pix_fmt) == (64, 48, "rgb24")
        assert video.average_rate == sequence.rate
        assert (frames[3].time / video.time_base).denominator == 1  # times are whole numbers
        assert len(container.streams) == 1


def test_sidecars_beside_the_images_of_a_sequence_are_no_images(tmp_path):
    folder = write_images(tmp_path / "shots", range(4))
    for image in list(folder.iterdir()):
        image.with_name(f"{image.name}.c2pa").write_bytes(b"credentials")

    kind, sequence = identify(folder)

    assert kind == "sequence"
    assert len(sequence.files) == 4


def test_folder_of_photos_is_no_sequence(tmp_path):
    rng = np.random.default_rng(0)
    camera = tmp_path / "camera"
    camera.mkdir()
    for number in range(6):  # numbered by the camera, but each shows something else
        image = rng.integers(0, 256, (3, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(image).save(camera / f"IMG_{number:04d}.jpg")
    mixed = write_images(tmp_path / "mixed", [1, 2, 3])
    write_images(mixed, [4, 5], "other.{:04d}.png")
    with_notes = write_images(tmp_path / "with_notes", [1, 2, 3])
    (with_notes / "notes1.txt").write_text("words")
    shot = write_images(tmp_path / "shot", range(6))

    assert not shows_motion(sequence_in(camera))
    assert sequence_in(mixed) is sequence_in(with_notes) is None
    assert [identify(folder)[0] for folder in (camera, mixed, with_notes)] == ["photos"] * 3
    assert identify(shot)[0] == "sequence"
    assert identify(shot, "photos") == ("photos", None)
    assert identify(camera, rate=Fraction(25))[1].rate == 25  # who states a rate means a sequence
    with pytest.raises(InputError, match=r"is not an image sequence: .* differ in one number"):
        identify(mixed, "sequence")


def test_images_of_other_sizes_are_refused(tmp_path):
    folder = write_images(tmp_path / "shots", [1, 2])
    Image.fromarray(picture(3, 32, 48)).save(folder / "shot.0003.png")

    with pytest.raises(InputError, match=r"shot\.0003\.png has 32x48 pixels, .* have 64x48"):
        list(identify(folder, "sequence")[1].read())


def test_identity_changes_with_the_images(tmp_path):
    folder = write_images(tmp_path / "shots", [1, 2])
    before = identify(folder, "sequence")[1].identity()
    assert identify(folder, "sequence")[1].identity() == before
    write_images(folder, [3])

    after = identify(folder, "sequence")[1].identity()

    assert before != after != identify(folder, "sequence", Fraction(30))[1].identity()


@pytest.mark.parametrize("deep", [False, True])
def test_image_becomes_a_video_frame_with_its_changes(tmp_path, deep):
    path = tmp_path / "x.png"
    if deep:
        import cv2

        cv2.imwrite(str(path), picture(0, 64, 48).astype(np.uint16) * 257)
    else:
        Image.fromarray(picture(0, 64, 48)).save(path)
    frame = replace(read_photo(path), index=3, time=Fraction(3, 24))
    red = np.full((8, 8, 3), [255, 0, 0], np.uint8)
    changed = frame.changed((4, 4, 12, 12), red)

    native = decoded(changed, Fraction(1, 24))

    assert isinstance(native.pixels.frame, av.VideoFrame)
    assert native.pixels.frame.pts == 3
    assert np.abs(native.image.astype(int) - changed.image).max() <= 1
    assert np.abs(native.gray().astype(int) - frame.gray()).max() <= 1


def test_lossless_video_and_images_look_alike(tmp_path):
    clip = make_clip(tmp_path / "x.mkv", codec="ffv1", pix_fmt="bgr0", audio=0)
    for number, image in enumerate(shown(clip)):
        Image.fromarray(image).save(tmp_path / f"{number:03d}.png")
    sequence = sequence_at(tmp_path / "###.png").taken(Fraction(25), None)

    for one, other in zip(sequence.read(), VideoFile(clip).read(), strict=True):
        assert (one.index, one.time) == (other.index, other.time)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.gray(), other.gray())
