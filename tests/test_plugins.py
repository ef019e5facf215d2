"""The example plug-in package works by name and as objects, and so do other objects."""

import subprocess
import sys
from importlib.metadata import entry_points

import av
import numpy as np
import pytest
from PIL import Image

import faceswap
from faceswap.config import DETECTOR_SEAM, MASK_SEAM, ConvertConfig, ExtractConfig
from faceswap.errors import NoFacesError, SettingsError
from faceswap.media.codecs import Encoding
from faceswap.models import modelfile
from faceswap.registry import Registry, Seam
from faceswap.swapping.compositor import BLENDS
from faceswap.testing import FixedDetector, copying_model, make_face
from tests.support.clips import make_clip

NAMED = ["--detector", "center", "--mask", "ellipse", "--blend", "screen", "--color", "brightness"]


@pytest.fixture
def photo():
    """A grey ramp, (240, 320, 3)."""
    ramp = np.linspace(40, 200, 320, dtype=np.float32)
    return np.repeat(np.repeat(ramp[None, :, None], 240, 0), 3, 2).astype(np.uint8)


@pytest.fixture
def example():
    return pytest.importorskip("faceswap_example", reason="scripts/setup-venv test installs it")


def test_example_plugin_works_by_name_on_the_command_line(tmp_path, photo, example):
    Image.fromarray(photo).save(tmp_path / "x.png")
    modelfile.save(tmp_path / "m" / "model.safetensors", copying_model())
    command = [sys.executable, "-m", "faceswap", "convert", "x.png", "--model", "m", "-o", "y.png"]

    done = subprocess.run(
        [*command, "--device", "cpu", *NAMED], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "1 face swapped" in done.stdout
    with Image.open(tmp_path / "y.png") as swapped:
        changed = np.abs(np.asarray(swapped).astype(int) - photo).max(axis=2)
    assert changed[110:130, 150:170].min() > 20  # screen lightens the middle
    assert changed[:20].max() <= 4  # the watermark


def test_example_plugin_works_as_objects_from_python(photo, example):
    by_name = ConvertConfig(
        detector="center", mask="ellipse", blend="screen", color="brightness", device="cpu"
    )
    by_object = ConvertConfig(
        detector=example.detect_center, mask=example.ellipse, blend=example.screen,
        color=example.BRIGHTNESS, device="cpu",
    )  # fmt: skip

    one, two = (
        faceswap.Swapper(copying_model(), config).swap(photo) for config in (by_name, by_object)
    )

    assert np.array_equal(one, two)
    assert not np.array_equal(one, photo)


def test_extract_uses_a_plugin_detector(tmp_path, photo, example):
    Image.fromarray(photo).save(tmp_path / "x.png")

    report = faceswap.extract(
        tmp_path / "x.png", tmp_path / "faces", ExtractConfig(detector="center")
    )

    assert (report.faces, report.detector) == (1, "center")


@pytest.mark.parametrize("by_name", [True, False])
def test_plugin_codec_encodes_the_output(tmp_path, example, by_name):
    source = make_clip(tmp_path / "in.mp4", size=(320, 240), times=range(6))
    modelfile.save(tmp_path / "model.safetensors", copying_model())
    codec = "cineform" if by_name else example.cineform
    config = ConvertConfig(codec=codec, detector=example.detect_center, device="cpu", workers=1)

    report = faceswap.convert(source, tmp_path / "out.mov", tmp_path / "model.safetensors", config)

    with av.open(str(report.output)) as container:
        assert container.streams.video[0].codec_context.name == "cfhd"
    assert (report.frames, report.faces) == (6, 6)
    with pytest.raises(SettingsError, match=r"CineForm needs \.mov"):
        faceswap.convert(source, tmp_path / "x.mp4", tmp_path / "model.safetensors", config)


def test_codec_that_the_container_refuses_is_a_one_line_error(tmp_path, example):
    source = make_clip(tmp_path / "in.mp4", size=(320, 240), times=range(3))
    modelfile.save(tmp_path / "model.safetensors", copying_model())
    config = ConvertConfig(
        codec=lambda suffix, quality: Encoding("utvideo", pixel_format="yuv420p"),
        detector=example.detect_center, device="cpu", workers=1,
    )  # fmt: skip

    with pytest.raises(SettingsError, match="cannot be used in this container: 'matroska' format"):
        faceswap.convert(source, tmp_path / "x.mkv", tmp_path / "model.safetensors", config)


def test_swapper_swaps_an_image_in_memory(photo, tmp_path):
    modelfile.save(tmp_path / "model.safetensors", copying_model())
    trained = faceswap.load_model(tmp_path / "model.safetensors")
    detector = FixedDetector(make_face(80, 60, 120))
    config = ConvertConfig(detector=detector, device="cpu")

    swapped = faceswap.Swapper(trained, config).swap(photo)

    assert (swapped.shape, swapped.dtype) == (photo.shape, np.uint8)
    with pytest.raises(NoFacesError, match="no face found"):
        faceswap.Swapper(trained, ConvertConfig(detector=FixedDetector())).swap(photo)


def test_blend_may_be_a_function(photo):
    def keep(rect, face, mask):
        return rect

    config = ConvertConfig(blend=keep, detector=FixedDetector(make_face(80, 60, 120)), device="cpu")

    assert np.array_equal(faceswap.Swapper(copying_model(), config).swap(photo), photo)
    assert config.to_dict()["blend"].endswith(":" + keep.__qualname__)


def test_error_for_an_unknown_name_lists_the_known_names():
    with pytest.raises(
        SettingsError, match="mask must be one of skin, hull, square, learned, product"
    ):
        ConvertConfig(mask="oval")
    with pytest.raises(SettingsError, match="blend must be a name or an object, not 3"):
        ConvertConfig(blend=3)
    with pytest.raises(SettingsError, match="detector must be one of auto, yunet, blaze, hog, cnn"):
        DETECTOR_SEAM.load("nothing")


def test_built_ins_take_precedence_and_broken_plugins_are_named(monkeypatch):
    class Broken:
        name, value = "bad", "no_such_module:mask"

        def load(self):
            raise ModuleNotFoundError("No module named 'no_such_module'")

    monkeypatch.setattr(
        "faceswap.registry._plugins", lambda group: {"bad": Broken(), "hull": Broken()}
    )

    assert MASK_SEAM.names() == ("skin", "hull", "square", "learned", "product", "bad")
    registry = Registry(Seam("mask", "faceswap.masks", ("hull",)), {"hull": "ours"})
    assert registry.resolve("hull") == "ours"
    with pytest.raises(
        SettingsError, match=r"plug-in mask 'bad' \(no_such_module:mask\) cannot be"
    ):
        registry.resolve("bad")


def test_blend_registry_holds_the_built_ins_of_its_seam():
    assert tuple(BLENDS) == BLENDS.seam.built_in


@pytest.mark.parametrize(
    ("group", "name"),
    [("detectors", "center"), ("masks", "ellipse"), ("blends", "screen"),
     ("color_matches", "brightness"), ("codecs", "cineform")],
)  # fmt: skip
def test_example_is_registered_under_its_entry_points(example, group, name):
    offered = [point.name for point in entry_points(group=f"faceswap.{group}")]

    assert name in offered
