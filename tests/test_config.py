import math
from fractions import Fraction
from typing import get_args

import pytest

from faceswap import config
from faceswap.config import (
    ConvertConfig,
    EvaluateConfig,
    ExtractConfig,
    TrainConfig,
    field_options,
    field_types,
    read_json,
    seconds_of,
)
from faceswap.errors import SettingsError
from faceswap.models import architectures
from faceswap.models.architectures import ModelConfig


def test_choices_match_the_registries():
    from faceswap.crops.masks import MASKS
    from faceswap.faces.detection import DETECTORS
    from faceswap.models.autoencoder import MODELS
    from faceswap.swapping.compositor import BLENDS, COLORS
    from faceswap.training.losses import LOSSES
    from faceswap.training.optimizer import RECIPES

    for literal, registry in (
        (config.DetectorName, DETECTORS),
        (config.MaskName, MASKS),
        (config.ColorName, COLORS),
        (config.BlendName, BLENDS),
        (config.LossName, LOSSES),
        (config.ModelName, MODELS),
        (config.ModelName, architectures.PRESETS),
        (config.ModelName, RECIPES),
    ):
        assert set(get_args(literal)) == set(registry)
    for choices, names in (("model", config.ModelName), ("loss", config.LossName)):
        seam = field_options(TrainConfig)[choices].seam
        assert seam.built_in == ("auto", *get_args(names))


@pytest.mark.parametrize("settings", [ExtractConfig(), TrainConfig(steps=5), ConvertConfig()])
def test_settings_round_trip_through_json(settings):
    import json

    again = type(settings).from_dict(json.loads(json.dumps(settings.to_dict())))

    assert again == settings


def test_model_config_round_trips_through_json():
    import json

    preset = architectures.PRESETS["original"]

    assert ModelConfig.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(batch_size=0), "batch_size must be from 1 to 65536, not 0"),
        (lambda: TrainConfig(batch_size=2.5), "batch_size must be a whole number or None"),
        (lambda: TrainConfig(model="huge"), "model must be one of auto, original, small"),
        (lambda: TrainConfig(steps=True), "steps must be"),
        (lambda: ConvertConfig(frames="ten"), 'frames must be ranges such as "10-50,90-", not'),
        (lambda: ConvertConfig(frames="1 2"), "frames must be ranges"),
        (
            lambda: ConvertConfig(all_faces=True, exclude=("x.jpg",)),
            "--all swaps every face: leave",
        ),
        (
            lambda: ConvertConfig(cast="x.toml", to="a"),
            "--cast names people and directions: leave out",
        ),
        (
            lambda: ConvertConfig(cast="x.toml", who=("x.jpg",)),
            "--cast names people and directions",
        ),
        (lambda: ConvertConfig(frames="5-3"), "a range of frames must run forwards, not '5-3'"),
        (
            lambda: ConvertConfig(sign_cert="x\0"),
            "sign_cert must be text without NUL characters or None",
        ),
        (lambda: ExtractConfig(size=16), "size must be from 64 to 2048"),
        (
            lambda: ConvertConfig(feather=float("nan")),
            "feather must be a finite number or None",
        ),
        (lambda: TrainConfig.from_dict({"speed": 9}), "unknown setting speed"),
    ],
)
def test_invalid_setting_is_named_in_the_error(make, message):
    with pytest.raises(SettingsError, match=message):
        make()


def test_model_size_must_be_a_multiple_of_16():
    with pytest.raises(SettingsError, match="multiple of 16, not 65"):
        ModelConfig.from_dict(architectures.PRESETS["small"].to_dict() | {"size": 65})


def test_every_field_has_help_text():
    for settings in (ExtractConfig, TrainConfig, ConvertConfig, ModelConfig):
        for name in field_types(settings):
            assert field_options(settings)[name].help.endswith((".", "]")), name


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100000])
def test_text_that_is_not_a_json_object_is_refused(text):
    with pytest.raises(SettingsError):
        read_json(text)


def test_frame_ranges_are_parsed():
    assert config.frame_ranges("7") == [(7, 7)]
    assert config.frame_ranges("0-4, 10-50 ,90-") == [(0, 4), (10, 50), (90, math.inf)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", Fraction(25, 2)), ("0", 0), ("1:30", 90), ("0:01:30.5", Fraction(181, 2)),
     ("2:00:00", 7200), ("0.1", Fraction(1, 10))],
)  # fmt: skip
def test_times_are_parsed_exactly(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:", ":30", "1:2:3:4", "1e3", "12,5", "ten", "1.", " 1"]
)
def test_invalid_time_is_a_one_line_error(text):
    with pytest.raises(SettingsError, match=r"a time must look like 12\.5, 1:30 or") as caught:
        seconds_of(text)
    assert "\n" not in str(caught.value)


def test_end_must_come_after_start():
    ConvertConfig(start="0:59.9", end="1:00")
    with pytest.raises(SettingsError, match="--end 1:00 must come after --start 60"):
        ConvertConfig(start="60", end="1:00")
    with pytest.raises(SettingsError, match="--end 0 must come after --start 0"):
        ConvertConfig(end="0")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_nan_infinity_and_huge_numbers_are_refused(value):
    with pytest.raises(SettingsError, match="min_score must be a finite number"):
        ExtractConfig(min_score=value)
    with pytest.raises(SettingsError, match=r"faces must be at least 0, not -1000.*\.\.\.$"):
        EvaluateConfig(faces=-(10**400))
