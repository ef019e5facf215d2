"""Convert photos and a clip with a model that was extracted and trained for the tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, ModelError, NoFacesError, OutputError, SettingsError
from faceswap.files import sha256_of
from faceswap.media import photos, reader
from faceswap.media.frame import gray_of_rgb, rounded
from faceswap.media.photos import read_photo
from faceswap.media.writers import write_clip
from faceswap.models.modelfile import file_of
from faceswap.provenance import watermark
from faceswap.provenance.credentials import read
from faceswap.swapping import converter
from faceswap.swapping.converter import contact_sheet, convert
from faceswap.swapping.label import icon, words
from faceswap.swapping.outputs import default_output
from tests.support.clips import sound_of, times_of

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")


@pytest.fixture
def clip(tmp_path, collins):
    """Ten frames with sound; a moving face is in all of them except frames 3 and 7."""
    empty = np.full_like(collins, 40)
    images = [empty if i in (3, 7) else np.roll(collins, 3 * i, axis=1) for i in range(10)]
    sound = (np.sin(np.arange(19200) * 0.1) * 9000).astype(np.int16)
    write_clip(tmp_path / "video.mp4", images, 25, sound, 48000)
    return tmp_path / "video.mp4"


def test_video_is_swapped_and_keeps_times_and_sound(clip, model):
    report = convert(clip, model=model, config=QUICK)

    assert report.output == clip.with_name("video.swapped.mp4")
    assert (report.frames, report.faces, report.without_face) == (10, 8, 2)
    assert times_of(report.output) == times_of(clip)
    assert sound_of(report.output) == sound_of(clip)
    before = [frame.image.astype(int) for frame in reader.read_video(clip)]
    after = [frame.image.astype(int) for frame in reader.read_video(report.output)]
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new.shape == old.shape
        face = np.abs(new - old)[70:150, 190 + 3 * index : 250 + 3 * index].mean()
        assert (face > 8) == (index not in (3, 7))
        assert np.abs(new[300:] - old[300:]).mean() < 3  # loss of the encoder


def test_hardly_trained_model_is_named(tmp_path, collins, model, caplog):
    Image.fromarray(collins).save(tmp_path / "x.png")

    convert(tmp_path / "x.png", model=model, config=QUICK)

    assert f"{model} was trained for only 3 steps, so its faces will be blurs" in caplog.text


def test_photo_changes_only_within_the_face(tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "x.png")

    report = convert(tmp_path / "x.png", model=model, config=QUICK)

    swapped = read_photo(report.output).image
    assert report.output.name == "x.swapped.png"
    digests = (file_of(model), tmp_path / "x.png")
    payload = watermark.payload_of(*map(sha256_of, digests))
    delta = watermark.Watermark(payload).delta(gray_of_rgb(collins))
    marked = rounded(collins + delta[..., np.newaxis])
    changed = (swapped != marked).any(axis=2)
    assert changed.any()
    assert changed[40:200, 150:320].sum() == changed.sum()


def test_folder_layout_is_kept_and_faceless_photos_are_copied(tmp_path, collins, model):
    source = tmp_path / "photos"
    (source / "deep").mkdir(parents=True)
    Image.fromarray(collins).save(source / "deep" / "face.jpg")
    Image.fromarray(np.full((90, 90, 3), 7, np.uint8)).save(source / "wall.jpg", quality=30)
    (source / "torn.png").write_bytes(b"words")

    report = convert(source, model=model, config=QUICK)

    output = tmp_path / "photos.swapped"
    assert (report.frames, report.faces, report.without_face) == (2, 1, 1)
    assert len(report.unreadable) == 1
    assert (output / "wall.jpg").read_bytes() == (source / "wall.jpg").read_bytes()
    assert (output / "deep" / "face.jpg").is_file()


def test_both_directions_differ(tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "x.png")

    to_b = convert(tmp_path / "x.png", tmp_path / "b.png", model, QUICK)
    to_a = convert(tmp_path / "x.png", tmp_path / "a.png", model, replace(QUICK, to="a"))

    assert (read_photo(to_a.output).image != read_photo(to_b.output).image).any()


def test_average_color_keeps_the_footage_color(tmp_path, collins, model, collins_face):
    Image.fromarray(collins).save(tmp_path / "x.png")
    box = collins_face.box
    window = np.s_[
        int(box.top) + 20 : int(box.bottom) - 20, int(box.left) + 15 : int(box.right) - 15
    ]
    square = replace(QUICK, mask="square", feather=0.0, erosion=0.0)

    shifts = []
    for color in ("average", "none"):
        report = convert(tmp_path / "x.png", tmp_path / f"{color}.png", model,
                         replace(square, color=color))  # fmt: skip
        difference = read_photo(report.output).image[window].astype(float) - collins[window]
        shifts.append(np.abs(difference.mean(axis=(0, 1))).max())

    assert shifts[0] < shifts[1]


def test_newest_model_is_the_default(tmp_path, monkeypatch, collins, model):
    import shutil

    monkeypatch.chdir(tmp_path)
    Image.fromarray(collins).save("x.png")
    with pytest.raises(ModelError, match="no model in models"):
        convert("x.png", config=QUICK)
    shutil.copytree(model, "models/x")

    assert convert("x.png", config=QUICK).faces == 1


def test_output_must_not_be_the_input(clip, model):
    before = clip.read_bytes()

    with pytest.raises(OutputError, match="is the input itself"):
        convert(clip, clip, model, QUICK)

    assert clip.read_bytes() == before


def test_matte_and_preview_must_not_overwrite_the_input(clip, model, tmp_path):
    named = clip.rename(tmp_path / "x.matte.mp4")
    before = named.read_bytes()

    with pytest.raises(OutputError, match="is the input itself"):
        convert(named, tmp_path / "x.mp4", model, replace(QUICK, matte=True))
    with pytest.raises(OutputError, match="a preview is an image"):
        contact_sheet(named, named, 2, model, QUICK)
    named.rename(tmp_path / "x.png")  # FFmpeg detects a video by its content
    (tmp_path / "link.mp4").symlink_to(tmp_path / "x.png")
    with pytest.raises(OutputError, match="is the input itself"):
        contact_sheet(tmp_path / "link.mp4", tmp_path / "x.png", 2, model, QUICK)

    assert (tmp_path / "x.png").read_bytes() == before


def test_faceless_photo_keeps_only_its_own_sidecar_credentials(tmp_path, collins, model):
    source, output = tmp_path / "photos", tmp_path / "photos.swapped"
    source.mkdir()
    for name in ("face.bmp", "wall.bmp", "plain.bmp"):
        Image.fromarray(collins).save(source / name)
    convert(source, model=model, config=QUICK)
    for name in ("wall.bmp", "wall.bmp.c2pa"):  # signed photos in which no face is found
        (output / name).rename(source / name)
    wall = np.full((90, 90, 3), 7, np.uint8)
    Image.fromarray(wall).save(source / "plain.bmp")
    exclude_all = replace(
        QUICK, exclude=(str(source / "face.bmp"), str(source / "wall.bmp")), overwrite=True
    )

    with pytest.raises(NoFacesError):
        convert(source, model=model, config=exclude_all)

    assert read(output / "wall.bmp").intact
    assert sorted(p.name for p in output.iterdir()) == [
        "face.bmp", "plain.bmp", "wall.bmp", "wall.bmp.c2pa"
    ]  # fmt: skip


def test_source_without_faces_writes_nothing(tmp_path, model):
    wall = np.full((120, 120, 3), 60, np.uint8)
    write_clip(tmp_path / "wall.mp4", [wall] * 3, 25, np.zeros(9600, np.int16), 48000)
    Image.fromarray(wall).save(tmp_path / "wall.png")

    for name, output in (("wall.mp4", None), ("wall.png", None), ("wall.png", "wall.jpg")):
        with pytest.raises(NoFacesError, match="no face found"):
            convert(tmp_path / name, output and tmp_path / output, model, QUICK)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["wall.mp4", "wall.png"]


def test_unusable_source_raises_input_error(tmp_path, model):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.png").write_bytes(b"words")
    for name, message in (
        ("nowhere.mp4", "does not exist"), ("empty", "holds no photo"), ("x.png", "not an image"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            convert(tmp_path / name, model=model, config=QUICK)


def test_output_of_another_kind_is_refused(clip, tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "x.png")

    with pytest.raises(OutputError, match="is a video, and a video is written as"):
        convert(clip, tmp_path / "out.jpg", model, QUICK)
    with pytest.raises(OutputError, match="is a photo, and a photo is written as"):
        convert(tmp_path / "x.png", tmp_path / "out.mp4", model, QUICK)


def test_default_output_is_beside_its_source(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert default_output(Path(), "photos") == tmp_path / "photos.swapped"
    monkeypatch.chdir(tmp_path)
    assert default_output(Path("photos/"), "photos") == Path("photos.swapped")
    for kind, name, expected in (
        ("video", "a.mov", "a.swapped.mov"), ("video", "a.avi", "a.swapped.mov"),
        ("photo", "a.JPG", "a.swapped.JPG"), ("photo", "a.HEIC", "a.swapped.jpg"),
        ("photo", "a", "a.swapped.png"), ("sequence", "shot.####.png", "shot.swapped"),
        ("sequence", "shot_%04d.png", "shot.swapped"), ("sequence", "####.png", "images.swapped"),
        ("video", "x" * 251 + ".mp4", "x" * 243 + ".swapped.mp4"),
        ("photo", "é" * 125 + ".png", "é" * 121 + ".swapped.png"),
    ):  # fmt: skip
        assert default_output(tmp_path / name, kind).name == expected


def test_contact_sheet_shows_original_swap_and_mask(clip, model, tmp_path):
    shown = contact_sheet(clip, tmp_path / "sheet.png", 3, model, QUICK)

    sheet = read_photo(tmp_path / "sheet.png").image
    height, width = len(sheet) // 3, 426
    original, swap, mask = (sheet[:height, i * width : (i + 1) * width] for i in range(3))
    assert shown == 3
    assert sheet.shape == (3 * height, 3 * width, 3)
    changed = np.abs(original.astype(int) - swap).max(axis=2) > 10  # more than the watermark
    assert changed.any()
    assert mask[changed].mean() > 40
    assert not mask[0].any()


def test_contact_sheet_needs_a_video(model, tmp_path, collins):
    Image.fromarray(collins).save(tmp_path / "x.png")

    with pytest.raises(
        InputError, match="is not a video or an image sequence; a preview needs one"
    ):
        contact_sheet(tmp_path / "x.png", tmp_path / "sheet.png", 3, model)


def test_only_the_requested_frames_are_swapped(clip, model):
    report = convert(clip, model=model, config=replace(QUICK, frames="1-2, 8-"))

    assert (report.frames, report.faces) == (10, 4)
    assert times_of(report.output) == times_of(clip)
    assert sound_of(report.output) == sound_of(clip)
    before = [frame.image.astype(int) for frame in reader.read_video(clip)]
    after = [frame.image.astype(int) for frame in reader.read_video(report.output)]
    changed = [
        np.abs(new - old)[70:150, 190 + 3 * i : 250 + 3 * i].mean() > 8
        for i, (old, new) in enumerate(zip(before, after, strict=True))
    ]
    assert [i for i, there in enumerate(changed) if there] == [1, 2, 8, 9]


def test_matte_shows_where_faces_were_swapped(clip, model):
    report = convert(clip, model=model, config=replace(QUICK, matte=True))

    matte = report.output.with_name("video.swapped.matte.mp4")
    assert times_of(matte) == times_of(clip)
    assert not sound_of(matte)
    frames = [frame.image.mean(axis=2) for frame in reader.read_video(matte)]
    for index, frame in enumerate(frames):
        inside = frame[100:140, 205 + 3 * index : 235 + 3 * index].mean()
        assert inside < 5 if index in (3, 7) else inside > 240
        assert frame[300:].max() < 5


def test_photo_can_have_a_matte(tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "x.png")

    convert(tmp_path / "x.png", model=model, config=replace(QUICK, matte=True))

    matte = read_photo(tmp_path / "x.swapped.matte.png").image
    assert matte.shape == collins.shape
    assert matte.max() == 255
    assert not matte[300:].any()


def test_every_output_of_a_video_carries_credentials(clip, model, tmp_path):
    report = convert(clip, model=model, config=replace(QUICK, matte=True, frames="0-2"))
    contact_sheet(clip, tmp_path / "sheet.png", 1, model, QUICK)

    for name in ("video.swapped.mp4", "video.swapped.matte.mp4", "sheet.png"):
        found = read(report.output.with_name(name))
        assert found.intact
        assert (found.parent.title, found.parent.sha256) == ("video.mp4", sha256_of(clip))
        assert found.model.name == "collins-hopper"
        assert found.model.sha256 == sha256_of(model / "model.safetensors")


def test_only_swapped_photos_carry_credentials(tmp_path, collins, model):
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("face.jpg", "face.bmp"):
        Image.fromarray(collins).save(source / name)
    Image.fromarray(np.full((90, 90, 3), 7, np.uint8)).save(source / "wall.jpg")

    convert(source, model=model, config=QUICK)

    output = tmp_path / "photos.swapped"
    names = sorted(path.name for path in output.iterdir())
    assert names == ["face.bmp", "face.bmp.c2pa", "face.jpg", "wall.jpg"]
    for name in ("face.jpg", "face.bmp"):
        assert read(output / name).intact
        assert read(output / name).parent.sha256 == sha256_of(source / name)


def test_unusable_certificate_is_refused_before_any_work(tmp_path, clip, model):
    from tests.support.certificates import organisation

    chain, key, _ = organisation(tmp_path / "studio", days=-1)
    calls = []

    with pytest.raises(SettingsError, match=r"cannot sign with .*chain\.pem"):
        convert(clip, model=model, on_progress=calls.append,
                config=replace(QUICK, sign_cert=str(chain), sign_key=str(key)))  # fmt: skip

    assert not calls
    assert not clip.with_name("video.swapped.mp4").exists()


def test_organisation_certificate_signs_the_output(tmp_path, collins, model):
    from tests.support.certificates import organisation

    chain, key, root = organisation(tmp_path / "studio")
    Image.fromarray(collins).save(tmp_path / "x.png")

    signed = replace(QUICK, sign_cert=str(chain), sign_key=str(key))
    report = convert(tmp_path / "x.png", model=model, config=signed)

    assert read(report.output, root).trusted


def test_label_is_in_every_frame(clip, model, tmp_path, collins):
    labelled = replace(QUICK, label="AI-generated", label_position="top-left", label_size=0.06)
    Image.fromarray(collins).save(tmp_path / "x.png")

    video = convert(clip, model=model, config=labelled).output
    photo = convert(tmp_path / "x.png", model=model, config=labelled).output

    (left, top, right, bottom), plate = words("AI-generated", "top-left", 0.06)._draw(512, 512)
    assert np.array_equal(read_photo(photo).image[top:bottom, left:right], plate)
    frames = list(reader.read_video(video))  # 3 and 7 show no face
    assert len(frames) == 10
    for frame in frames:
        shown = frame.image[top:bottom, left:right].astype(int)
        assert np.abs(shown - plate).mean() < 6  # loss of the encoder


def test_photos_that_differ_only_in_suffix_have_separate_layers(tmp_path, collins, model):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in (("a.jpg", collins), ("a.png", collins[:, ::-1]), ("b.png", collins)):
        Image.fromarray(image).save(folder / name)

    report = convert(folder, model=model, config=replace(QUICK, layers=True))

    assert report.faces == 3
    layers = tmp_path / "photos.swapped.layers"
    assert {path.name for path in layers.iterdir()} == {"a.jpg.png", "a.png.png", "b.png"}
    assert len(list(report.output.iterdir())) == 3


def test_videos_in_a_photo_folder_are_reported(clip, collins, model, caplog, tmp_path):
    Image.fromarray(collins).save(clip.with_name("a.png"))

    report = convert(clip.parent, model=model, config=QUICK)

    assert report.frames == 1
    assert "skipping 1 video (first: video.mp4)" in caplog.text
    clip.with_name("a.png").unlink()
    with pytest.raises(InputError, match="holds no photo; convert a video by giving its own path"):
        convert(clip.parent, tmp_path / "new", model, QUICK)


@pytest.mark.parametrize("with_face", [True, False])
def test_photo_deleted_during_the_run_is_reported(tmp_path, collins, model, with_face):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(collins if with_face else collins * 0).save(folder / "a.png")
    Image.fromarray(collins).save(folder / "b.png")
    original = photos.read_photo

    def read_and_delete(path, *args):
        photo = original(path, *args)
        if path.name == "a.png":
            path.unlink()
        return photo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "read_photo", read_and_delete)
        report = convert(folder, model=model, config=QUICK)

    assert report.frames == 1
    assert report.unreadable == [f"{folder / 'a.png'} cannot be read: No such file or directory"]
    assert [path.name for path in report.output.iterdir()] == ["b.png"]


def test_icon_is_in_every_frame_upright_and_not_in_layers(tmp_path, collins, model):
    import av

    # Stored lying on its side, as phones record; shown upright after a quarter turn.
    path = tmp_path / "phone.mov"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "4"})
        video.height, video.width, video.pix_fmt = 512, 512, "yuv420p"
        video.set_display_rotation(-90)
        for _ in range(2):
            lying = np.ascontiguousarray(np.rot90(collins))
            out.mux(video.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        out.mux(video.encode(None))
    config = replace(QUICK, label_icon="modified", label_size=0.03, matte=True, layers=True)

    report = convert(path, model=model, config=config)

    (left, top, right, bottom), badge = icon("modified", "top-right", 0.03)._draw(512, 512)
    inner = np.s_[top + 2 : bottom - 2, left + 3 : right - 3]
    assert right > 490
    for frame in reader.read_video(report.output):
        shown = frame.image[inner].astype(int)
        assert np.abs(shown - badge[2:-2, 3:-3, :3]).mean() < 12  # loss of the encoder
    matte, layers = (tmp_path / f"phone.swapped.{name}.mov" for name in ("matte", "layers"))
    assert next(reader.read_video(matte)).image[inner].max() < 20
    assert next(reader.read_video(layers)).image[inner].max() < 20
