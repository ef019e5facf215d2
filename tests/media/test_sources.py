"""Files are judged by their content, and folders list every file once."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.errors import InputError
from faceswap.media.sources import content_of, kind_of, search
from tests.support.clips import make_clip

PHOTOS = {
    "a.jpg": "JPEG", "a.jfif": "JPEG", "a.jpe": "JPEG", "a": "PNG", "a.tif": "TIFF", "a.bmp": "BMP",
    "a.avif": "AVIF", "a.jp2": "JPEG2000", "a.webp": "WEBP", "wrong.mp4": "PNG",
}  # fmt: skip


def write_still(path, kind):
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(path, format=kind)


def write_animation(path):
    frames = [Image.fromarray(np.full((16, 16, 3), 60 * n, np.uint8)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)


@pytest.mark.parametrize(("name", "kind"), PHOTOS.items())
def test_photos_are_known_by_content(tmp_path, name, kind):
    write_still(tmp_path / name, kind)

    assert content_of(tmp_path / name) == "photo"
    assert kind_of(tmp_path / name) == "photo"


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif"])
def test_animations_count_as_video(tmp_path, name):
    write_animation(tmp_path / name)

    assert content_of(tmp_path / name) == "animation"
    assert kind_of(tmp_path / name) == "video"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts", ".mpg"])
def test_videos_are_known_by_content(tmp_path, suffix):
    codec = "mpeg2video" if suffix == ".mpg" else "libx264"
    clip = make_clip(tmp_path / f"x{suffix}", audio=0, codec=codec)
    clip.rename(tmp_path / "clip")

    assert content_of(tmp_path / "clip") == "video"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x18ftypheic", "photo"),
        (b"\0\0\0\x18ftypM4A ", None),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"words", None),
        (b"", None),
    ],
)
def test_other_heads(tmp_path, head, expected):
    (tmp_path / "x").write_bytes(head)

    assert content_of(tmp_path / "x") == expected


def test_unknown_content_is_judged_by_its_suffix(tmp_path):
    for name, kind in (("x.jpg", "photo"), ("x.mp4", "video"), ("x.txt", "video")):
        (tmp_path / name).write_bytes(b"words")
        assert kind_of(tmp_path / name) == kind
    assert kind_of(tmp_path) == "folder"
    with pytest.raises(InputError, match="does not exist"):
        kind_of(tmp_path / "nothing.jpg")


def test_search_lists_every_file_once(tmp_path):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (folder / "deep", folder / "skipped", folder / ".hidden", elsewhere):
        path.mkdir(parents=True)
    for place in (folder, folder / "deep", folder / "skipped", folder / ".hidden", elsewhere):
        write_still(place / "face.JPG", "JPEG")
    write_still(folder / ".dot.png", "PNG")
    make_clip(folder / "clip.mp4", audio=0)
    write_animation(folder / "moving.webp")
    (folder / "notes.txt").write_text("words")
    (folder / "clip.mkv.c2pa").write_bytes(b"credentials")
    (folder / "torn.png").write_bytes(b"words")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)  # a loop
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")

    found = search(folder, skip=[folder / "skipped"])

    def names(paths):
        return [path.relative_to(folder).as_posix() for path in paths]

    assert names(found.photos) == ["deep/face.JPG", "face.JPG", "linked/face.JPG", "torn.png"]
    assert names(found.videos) == ["clip.mp4", "moving.webp"]
    assert names(found.others) == ["notes.txt"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read anything")
def test_unreadable_photo_is_left_to_the_reader(tmp_path):
    path = Path(tmp_path / "x.jpg")
    write_still(path, "JPEG")
    path.chmod(0)

    assert search(tmp_path).photos == [path]
    with pytest.raises(InputError, match="cannot be read"):
        kind_of(path)
