"""``verify`` finds both marks of an output, and says what is left when the credentials are gone."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from faceswap.cli import text
from faceswap.config import ConvertConfig
from faceswap.errors import NoCredentialsError, SettingsError, TamperedError
from faceswap.files import sha256_of
from faceswap.media.reader import read_video
from faceswap.media.writers import write_clip
from faceswap.models.modelfile import file_of
from faceswap.provenance.credentials import read, sidecar_of
from faceswap.swapping import verification
from faceswap.swapping.converter import convert
from faceswap.swapping.redo import redo
from faceswap.swapping.verification import look_for_watermark, verify

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")


@pytest.fixture(scope="module")
def clip(tmp_path_factory, collins):
    """Forty frames of a moving face, after ten frames without one."""
    images = [np.full_like(collins, 40)] * 10
    images += [np.roll(collins, at, axis=1) for at in range(40)]
    path = tmp_path_factory.mktemp("clip") / "video.mp4"
    write_clip(path, images, 25, np.zeros(96000, np.int16), 48000)
    return path


@pytest.fixture(scope="module")
def swapped(clip, model):
    return convert(clip, None, model, QUICK).output


def reencoded(source, target, *, first=0, crf="26", half=False):
    """Encode a video again as any other program would, without credentials."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": crf, "preset": "veryfast"})
        for frame in read_video(source):
            if frame.index < first:
                continue
            height, width = (side // 4 * 2 if half else side for side in frame.shape)
            if frame.index == first:
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            native = frame.pixels.frame.reformat(width, height, "yuv420p")
            new = av.VideoFrame.from_ndarray(native.to_ndarray(), format="yuv420p")
            new.pts = frame.index - first
            out.mux(stream.encode(new))
        out.mux(stream.encode(None))
    return target


def expected(model, source):
    return sha256_of(file_of(model))[:4], sha256_of(source)[:4]


def test_output_carries_both_marks(swapped, clip, model):
    (found,) = verify([swapped]).facts

    assert found.intact
    assert found.watermark.found
    assert found.watermark.agrees is True
    assert (found.watermark.model, found.watermark.source) == expected(model, clip)
    assert found.binding == "".join(expected(model, clip))
    assert found.watermark.chance < 1e-9
    lines = "\n".join(text.verification(verify([swapped])))
    assert "watermark: found, the one that the credentials name" in lines
    assert "below 1 in 1,000,000,000" in lines


def names(check, model, source):
    """Whether the digits that could be read are those of the model and the source."""
    digits, named = check.model + check.source, "".join(expected(model, source))
    return all(one in ("?", other) for one, other in zip(digits, named, strict=True))


@pytest.mark.parametrize("change", [{}, {"half": True, "crf": "18"}, {"first": 25}])
def test_watermark_outlives_the_credentials(swapped, clip, model, tmp_path, change):
    stripped = reencoded(swapped, tmp_path / "again.mp4", **change)

    result = verify([stripped])

    (found,) = result.facts
    assert isinstance(result.worst, NoCredentialsError)
    assert found.watermark.found
    assert found.watermark.agrees is None
    assert names(found.watermark, model, clip)
    lines = "\n".join(text.verification(result))
    assert f"SHA-256 begins with {found.watermark.model}" in lines
    assert "what it proves: faceswap probably made this picture or most of it" in lines


def test_original_has_no_watermark(clip):
    check = look_for_watermark(clip)

    assert not check.found
    assert check.complete
    assert check.frames == 25  # every second
    (line, why) = text.verification(verify([clip]))[1:]
    assert line == "  watermark: none found in 25 frames"
    assert "that proves nothing" in why


@pytest.mark.slow
def test_frames_without_a_swap_are_not_marked(clip, model, tmp_path):
    report = convert(clip, tmp_path / "out.mkv", model, replace(QUICK, codec="ffv1"))

    before, after = (list(read_video(path)) for path in (clip, report.output))
    for old, new in zip(before[:9], after[:9], strict=True):
        np.testing.assert_array_equal(new.pixels.frame.to_ndarray(), old.pixels.frame.to_ndarray())


def test_chroma_is_exact_outside_the_face(clip, model, tmp_path):
    report = convert(clip, tmp_path / "out.mkv", model, replace(QUICK, codec="ffv1"))

    old, new = (list(read_video(path))[30].pixels.frame for path in (clip, report.output))
    for number, (one, other) in enumerate(zip(old.planes, new.planes, strict=True)):
        rows = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[-60:, : plane.width]
            for plane in (one, other)
        ]  # the lower edge, where no face is
        difference = np.abs(rows[0].astype(int) - rows[1])
        assert difference.any() == (number == 0)
        assert difference.max() <= 14


@pytest.mark.slow
def test_redone_frames_carry_the_watermark_of_the_whole(clip, model, tmp_path):
    output = convert(clip, tmp_path / "out.mp4", model, QUICK).output
    before = read(output).binding

    redo(clip, "20-30", output, model, {"blend": "linear"})

    (found,) = verify([output]).facts
    assert (found.binding, found.intact, found.watermark.agrees) == (before, True, True)


def test_photos_carry_the_watermark(collins, model, tmp_path):
    Image.fromarray(collins).save(tmp_path / "x.png")
    output = convert(tmp_path / "x.png", None, model, QUICK).output
    stripped = tmp_path / "stripped.jpg"
    Image.open(output).save(stripped, quality=75)

    (found,) = verify([output]).facts
    (left,) = verify([stripped]).facts

    assert found.watermark.agrees
    assert names(left.watermark, model, tmp_path / "x.png")
    assert left.watermark.frames == 1


def test_a_grey_photo_stays_grey(collins, model, tmp_path):
    Image.fromarray(collins).convert("L").save(tmp_path / "x.png")

    output = convert(tmp_path / "x.png", None, model, QUICK).output

    with Image.open(output) as photo:
        assert photo.mode == "L"
    assert look_for_watermark(output).found


@pytest.mark.slow
def test_intermediates_are_exact_and_have_their_record_beside_them(clip, model, tmp_path):
    config = replace(QUICK, intermediate=True, matte=True)
    convert(clip, tmp_path / "out", model, config)

    images = sorted((tmp_path / "out").glob("*.png"))
    original = list(read_video(clip))[30].image
    image = np.asarray(Image.open(images[30]))
    np.testing.assert_array_equal(image[-60:], original[-60:])
    (found,) = verify([images[30]]).facts
    assert found.intact
    assert found.intermediate
    assert not found.watermark.found
    assert found.binding is None
    assert found.sidecar == str(sidecar_of(images[30]))
    assert b"c2pa" not in images[30].read_bytes()
    lines = "\n".join(text.verification(verify([images[30]])))
    assert "INTERMEDIATE of a production" in lines
    assert "watermark: none, as in every intermediate" in lines


@pytest.mark.slow
def test_only_images_layers_and_mattes_can_be_intermediates(clip, model, tmp_path):
    with pytest.raises(SettingsError, match="a video is a final output, which is always marked"):
        convert(clip, tmp_path / "x.mp4", model, replace(QUICK, intermediate=True))

    config = replace(QUICK, intermediate=True, layers=True, end="1")
    output = convert(clip, tmp_path / "x.mov", model, config).output

    final, layers = verify([output, output.with_name("x.layers.mov")]).facts
    assert (final.intermediate, final.watermark.found) == (False, True)
    assert (layers.intermediate, layers.watermark.found) == (True, False)


@pytest.mark.slow
def test_layers_are_marked_where_the_face_is(clip, model, tmp_path):
    plain, bare = (
        convert(clip, tmp_path / name, model, replace(QUICK, layers=True, intermediate=no, end="1"))
        for name, no in (("a.mov", False), ("b.mov", True))
    )
    pixels = [
        list(read_video(report.output.with_name(f"{report.output.stem}.layers.mov")))[20]
        for report in (plain, bare)
    ]
    alpha = pixels[0].pixels.alpha()
    difference = np.abs(pixels[0].image.astype(int) - pixels[1].image).max(axis=2)
    assert difference[alpha > 250].mean() > 0.3
    assert difference[alpha == 0].max() <= 1


def test_credentials_disclose_the_model(swapped, model):
    import c2pa

    report = json.loads(c2pa.Reader(str(swapped)).json())
    manifest = report["manifests"][report["active_manifest"]]
    data = {each["label"]: each["data"] for each in manifest["assertions"]}

    digest = sha256_of(file_of(model))
    assert data["c2pa.ai-disclosure"] == {
        "modelType": "c2pa.types.model.pytorch",
        "modelName": model.name,
        "modelIdentifier": f"sha256:{digest}",
        "contentProfile": {"humanOversightLevel": "prompt_guided"},
    }
    actions = [action["action"] for action in data["c2pa.actions.v2"]["actions"]]
    assert actions == ["c2pa.opened", "c2pa.edited", "c2pa.watermarked.bound"]
    assert data["c2pa.soft-binding"]["alg"] == "faceswap.watermark.1"


def test_altered_file_and_unreadable_file(swapped, tmp_path):
    broken = tmp_path / "broken.mp4"
    data = bytearray(swapped.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    (tmp_path / "x.png").write_bytes(b"no image")

    result = verify([broken, tmp_path / "x.png", tmp_path / "none.png"])

    altered, unreadable, missing = result.facts
    assert isinstance(result.worst, TamperedError)
    assert altered.watermark.found
    assert unreadable.watermark is missing.watermark is None


def test_a_long_video_is_searched_in_samples_unless_thorough(clip, monkeypatch):
    monkeypatch.setattr(verification, "WINDOW", 5)
    monkeypatch.setattr(verification, "MAX_WINDOWS", 4)
    steps = []

    check = look_for_watermark(clip, on_progress=steps.append)
    whole = look_for_watermark(clip, thorough=True)

    assert (check.frames, check.complete) == (4 * 3, False)
    assert (whole.frames, whole.complete) == (10 * 3, True)
    assert [(step.done, step.total) for step in steps] == [(n, 4) for n in range(1, 5)]


def test_samples_are_spread_out():
    assert verification._spread_out([*range(8)]) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert sorted(verification._spread_out([*range(11)])) == [*range(11)]
    assert verification._spread_out([0]) == [0]
