"""Shots of a clip are converted with settings of their own."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, SettingsError
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.converter import contact_sheet, convert
from faceswap.swapping.plan import key_of, plan
from faceswap.swapping.redo import redo
from faceswap.swapping.shots import SETTINGS, Shot, read_shots
from tests.support.clips import differing, moving, pixels, write_lossless
from tests.support.stops import Stopped, stop_after

QUICK = ConvertConfig(
    workers=1, device="cpu", detector="hog", smooth=False, match_detail=False, codec="ffv1",
    all_faces=True,
)  # fmt: skip
LENGTH = 12


@pytest.fixture(scope="module")
def images(together):
    return moving(together, LENGTH)


@pytest.fixture
def clip(tmp_path, images):
    return write_lossless(tmp_path / "clip.mkv", images)


@pytest.fixture
def shots(tmp_path):
    """Write a shots file and return its path."""

    def write(text):
        (tmp_path / "shots.toml").write_text(text)
        return tmp_path / "shots.toml"

    return write


@pytest.fixture
def bare(tmp_path):
    """A model without a mask of its own, which no photo was looked at for."""
    network = autoencoder.build(replace(PRESETS["small"], mask_head=False))
    trained = modelfile.TrainedModel(network, ("x", "y"), (0.0, 0.0, 0.0), 1)
    modelfile.save(tmp_path / "bare" / modelfile.MODEL_FILE, trained)
    return tmp_path / "bare"


def others(*numbers):
    return [number for number in range(LENGTH) if number not in numbers]


def test_file_maps_frames_to_settings(shots):
    path = shots(
        '[[shot]]\nframes = "3-5,9-"\ncolor = "reinhard"\nfeather = 0.1\n\n'
        '[[shot]]\nframes = "4"\nmatch_detail = false\n'
    )

    assert read_shots(path) == [
        Shot("3-5,9-", {"color": "reinhard", "feather": 0.1}), Shot("4", {"match_detail": False}),
    ]  # fmt: skip
    assert read_shots(path, {"feather", "match_detail"}) == [
        Shot("3-5,9-", {"color": "reinhard"}), Shot("4", {}),
    ]  # fmt: skip
    assert read_shots(shots("")) == []
    assert set(SETTINGS) == {
        "color", "mask", "identity_strength", "expression_range", "erosion", "feather", "blend",
        "match_detail",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shot = \n", r"shots\.toml is not TOML: .*line 1"),
        ("shot = 3", r"must consist of \[\[shot\]\] tables$"),
        ("shot = [1]", r"shot 1: must be a \[\[shot\]\] table, not 1"),
        ('[[short]]\nframes = "1"', r"must consist of \[\[shot\]\] tables, not short$"),
        ('[[shot]]\nframes = "1"\n[[shot]]\ncolor = "none"', "shot 2: frames must be text such as"),
        ("[[shot]]\nframes = 3", 'frames must be text such as "120-179", not 3'),
        ('[[shot]]\nframes = "x"', "shot 1: frames must be ranges"),
        ('[[shot]]\nframes = "9-3"', "must run forwards"),
        ('[[shot]]\nframes = "1"\ncodec = "av1"', "shot 1: unknown key codec; known keys: frames"),
        ('[[shot]]\nframes = "1"\nsmooth = false', "unknown key smooth"),
        ('[[shot]]\nframes = "1"\ncolor = "melt"', "shot 1: color must be one of auto, average"),
        ('[[shot]]\nframes = "1"\ncolor = [1]', r"color must be a name, not \[1\]|or an object"),
        ('[[shot]]\nframes = "1"\nerosion = 0.9', "erosion must be from 0 to 0.5, not 0.9"),
        ('[[shot]]\nframes = "1"\nerosion = nan', "erosion must be a finite number, not nan"),
        ('[[shot]]\nframes = "1"\nfeather = "\\u0000"', "feather must be a finite number or None"),
    ],
)
def test_invalid_file_is_a_one_line_error(shots, text, message):
    with pytest.raises(SettingsError, match=message) as caught:
        read_shots(shots(text))

    assert "shots.toml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file_is_named(clip, model):
    with pytest.raises(InputError, match=r"shots file none\.toml cannot be read: No such file"):
        convert(clip, model=model, config=replace(QUICK, shots="none.toml"))


@pytest.mark.slow
def test_each_shot_has_its_own_settings(tmp_path, clip, model, shots):
    usual = pixels(convert(clip, tmp_path / "usual.mkv", model, QUICK).output)
    plain = pixels(convert(clip, tmp_path / "no.mkv", model, replace(QUICK, color="none")).output)
    square = replace(QUICK, color="none", mask="square")
    large = pixels(convert(clip, tmp_path / "square.mkv", model, square).output)
    path = shots(
        '[[shot]]\nframes = "2-3,10-"\ncolor = "none"\n\n[[shot]]\nframes = "11"\nmask = "square"\n'
    )

    report = convert(clip, model=model, config=replace(QUICK, shots=str(path)))

    found = pixels(report.output)
    assert differing(found, usual) == [2, 3, 10, 11]
    assert differing(found, plain) == others(2, 3, 10)
    assert 11 not in differing(found, large)
    written = json.loads(report.report.read_text())
    assert written["shots"] == [
        {"frames": "2-3,10-", "settings": {"color": "none"}},
        {"frames": "11", "settings": {"mask": "square"}},
    ]


@pytest.mark.slow
def test_smoothing_goes_on_across_a_shot_with_other_numbers(tmp_path, clip, model, shots):
    """Colour matches with numbers of different shapes cannot be averaged."""
    smooth = replace(QUICK, smooth=True, match_detail=True)
    plain = replace(smooth, color="none", match_detail=False)
    wanted = pixels(convert(clip, tmp_path / "plain.mkv", model, plain).output)
    path = shots(
        '[[shot]]\nframes = "2-4"\ncolor = "reinhard"\n\n'
        '[[shot]]\nframes = "5-8"\ncolor = "none"\nmatch_detail = false\n'
    )

    report = convert(clip, model=model, config=replace(smooth, shots=str(path)))

    assert report.faces == 2 * LENGTH
    assert differing(pixels(report.output), wanted) == others(5, 6, 7, 8)


@pytest.mark.slow
def test_interrupted_run_goes_on_only_with_the_same_file(tmp_path, clip, model, shots):
    path = shots('[[shot]]\nframes = "5-"\ncolor = "none"\n')
    config = replace(QUICK, shots=str(path))
    whole = pixels(convert(clip, tmp_path / "whole.mkv", model, config).output)

    with pytest.raises(Stopped):
        convert(clip, model=model, config=config, on_progress=stop_after(7))
    before = key_of(plan(clip, None, model, config))
    report = convert(clip, model=model, config=config)

    assert differing(pixels(report.output), whole) == []
    shots('[[shot]]\nframes = "6-"\ncolor = "none"\n')
    changed = replace(config, overwrite=True)
    assert key_of(plan(clip, None, model, changed))["looks"] != before["looks"]


@pytest.mark.slow
def test_redone_frames_take_what_is_asked_for_before_their_shot(tmp_path, clip, model, shots):
    # The same frames form a shot, because some processors round differently in other batches.
    path = shots('[[shot]]\nframes = "2-5"\ncolor = "reinhard"\nmask = "square"\n')
    config = replace(QUICK, shots=str(path))
    wanted = pixels(convert(clip, tmp_path / "asked.mkv", model, config).output)
    shots('[[shot]]\nframes = "2-5"\ncolor = "none"\nmask = "square"\n')
    output = convert(clip, model=model, config=config).output
    before = pixels(output)

    report = redo(clip, "3", changes={"color": "reinhard"})

    after = pixels(output)
    assert differing(before, after) == [3]
    assert differing(after[3:4], wanted[3:4]) == []
    shots('[[shot]]\nframes = "7"\ncolor = "none"\n')
    redo(clip, "7")
    assert differing(after, pixels(output)) == [7]
    done = json.loads(report.report.read_text())["redone"]
    assert done[0]["shots"] == [{"frames": "2-5", "settings": {"mask": "square"}}]
    assert done[1]["shots"] == [{"frames": "7", "settings": {"color": "none"}}]


@pytest.mark.slow
def test_images_of_a_sequence_are_named_by_their_numbers(tmp_path, images, model, shots):
    folder = tmp_path / "plates"
    folder.mkdir()
    for number, image in enumerate(images[:4]):
        Image.fromarray(image).save(folder / f"shot.{1001 + number}.png")
    config = replace(QUICK, codec="auto", images="sequence")
    usual = pixels(convert(folder, tmp_path / "usual", model, config).output)
    path = shots('[[shot]]\nframes = "1002-1003"\ncolor = "none"\n')

    found = pixels(
        convert(folder, tmp_path / "found", model, replace(config, shots=str(path))).output
    )

    assert differing(found, usual) == [1, 2]


@pytest.mark.slow
def test_preview_and_record_know_the_shots(tmp_path, clip, model, bare, shots):
    path = shots('[[shot]]\nframes = "0-"\ncolor = "none"\nmask = "skin"\n')
    config = replace(QUICK, codec="auto", color="linear", mask="hull")
    contact_sheet(clip, tmp_path / "usual.png", 2, model, config)
    contact_sheet(clip, tmp_path / "shots.png", 2, model, replace(config, shots=str(path)))

    usual, found = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("usual", "shots"))
    assert (usual != found).any()
    skin = "selfie_multiclass.onnx"
    assert skin not in plan(clip, None, bare, config).model.weights
    assert skin in plan(clip, None, bare, replace(config, shots=str(path))).model.weights


def test_mask_that_a_model_lacks_names_the_shot(clip, bare, shots):
    path = shots('[[shot]]\nframes = "0"\n\n[[shot]]\nframes = "1"\nmask = "learned"\n')

    with pytest.raises(SettingsError, match=r"shots\.toml, shot 2: .* does not decode a mask"):
        plan(clip, None, bare, replace(QUICK, shots=str(path)))


@pytest.mark.slow
def test_shots_hold_for_every_model_of_a_cast(tmp_path, clip, model, collins, hopper, shots):
    for name, image in (("collins", collins), ("hopper", hopper)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "cast.toml").write_text(
        '[[swap]]\nwho = "collins.png"\n\n[[swap]]\nwho = "hopper.png"\nto = "a"\n'
    )
    cast = replace(QUICK, all_faces=False, cast=str(tmp_path / "cast.toml"))
    usual = pixels(convert(clip, tmp_path / "usual.mkv", model, cast).output)
    path = shots('[[shot]]\nframes = "4-6"\ncolor = "none"\n')

    report = convert(clip, model=model, config=replace(cast, shots=str(path)))

    found = pixels(report.output)
    assert report.faces == 2 * LENGTH
    assert differing(found, usual) == [4, 5, 6]
    half = found[5].shape[1] // 2
    assert (found[5][:, :half] != usual[5][:, :half]).any()
    assert (found[5][:, half:] != usual[5][:, half:]).any()
