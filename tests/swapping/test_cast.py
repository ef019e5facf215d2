from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap.config import ConvertConfig
from faceswap.errors import InputError, ModelError, NoFacesError, SettingsError
from faceswap.faces.detection import detect_hog
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.media.reader import read_video
from faceswap.media.writers import write_clip
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from faceswap.swapping.cast import CastEntry, read_cast
from faceswap.swapping.converter import contact_sheet, convert
from faceswap.swapping.plan import assemble
from faceswap.swapping.swapper import Swapper
from faceswap.swapping.swappers import MultiSwapper
from faceswap.tracking.selection import select_faces

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", color="none")
CPU = torch.device("cpu")
RED, BLUE, GREEN = (250, 0, 0), (0, 0, 250), (0, 250, 0)


def decode_one_color(decoder, color):
    """Make a decoder return one colour and a mask that is full everywhere."""
    torch.nn.init.zeros_(decoder[-2].weight)
    values = torch.tensor([*color, 250]) / 255
    decoder[-2].bias.data = torch.logit(values.clamp(1e-4, 1 - 1e-4))


def model_of(a, b, **known):
    """A model whose decoders each return one colour."""
    network = autoencoder.build(PRESETS["small"])
    decode_one_color(network.decoders["a"], a)
    decode_one_color(network.decoders["b"], b)
    return modelfile.TrainedModel(network, ("x", "y"), (0.0, 0.0, 0.0), 1, **known)


@pytest.fixture
def folder(tmp_path, collins, hopper):
    """A folder with reference photos and two models, one red and blue, the other green."""
    Image.fromarray(collins).save(tmp_path / "collins.png")
    Image.fromarray(hopper).save(tmp_path / "hopper.png")
    Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    modelfile.save(tmp_path / "models/one" / modelfile.MODEL_FILE, model_of(BLUE, RED))
    modelfile.save(tmp_path / "models/two" / modelfile.MODEL_FILE, model_of(GREEN, GREEN))
    return tmp_path


def write_cast(folder, text):
    (folder / "cast.toml").write_text(text, encoding="utf-8")
    return folder / "cast.toml"


BOTH = """
[[swap]]
who = "collins.png"
model = "models/one"

[[swap]]
who = ["hopper.png", "hopper.png"]
model = "models/two"
to = "a"
"""


def colors_of(image, faces):
    """The pure colour in the middle of each face, or None for a face that is not swapped."""
    found = []
    for face in faces:
        x, y = face.landmarks[30].astype(int)  # the tip of the nose
        middle = image[y - 8 : y + 8, x - 8 : x + 8].reshape(-1, 3).mean(axis=0)
        near = [c for c in (RED, BLUE, GREEN) if np.abs(middle - c).max() < 40]
        found.append(near[0] if near else None)
    return found


@pytest.fixture(scope="module")
def pair(together):
    """The faces of Collins and Hopper in the photo that shows both."""
    return sorted(detect_hog(together, 0.2), key=lambda face: face.box.left)


def test_cast_file_maps_people_to_models(tmp_path):
    entries = read_cast(write_cast(tmp_path, BOTH + '[[swap]]\nwho = "x.jpg"\n'))

    assert entries == [
        CastEntry((tmp_path / "collins.png",), tmp_path / "models/one", "b"),
        CastEntry((tmp_path / "hopper.png",) * 2, tmp_path / "models/two", "a"),
        CastEntry((tmp_path / "x.jpg",), None, "b"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swap = \n", r"cast\.toml is not TOML: .*line 1"),
        ("", r"must consist of \[\[swap\]\] tables$"),
        ("swap = 3", r"must consist of \[\[swap\]\] tables$"),
        ('swap = ["x"]', r"swap 1: must be a \[\[swap\]\] table, not 'x'"),
        ('[[swop]]\nwho = "x"', r"must consist of \[\[swap\]\] tables, not swop$"),
        ('size = 3\n[[swap]]\nwho = "x"', "tables, not size$"),
        (
            '[[swap]]\nwho = "x"\n[[swap]]\nwho = "x"\nhow = 1',
            "swap 2: unknown key how; known keys: who, m",
        ),
        ('[[swap]]\nto = "b"', "swap 1: who must be a photo or a list of photos, not None"),
        ("[[swap]]\nwho = []", r"who must be a photo or a list of photos, not \[\]"),
        ('[[swap]]\nwho = ["x", 3]', "who must be a photo or a list of photos, not"),
        ('[[swap]]\nwho = ""', "who must be a photo or a list of photos, not ''"),
        ('[[swap]]\nwho = "x\\u0000"', "who must be a photo or a list of photos, not 'x"),
        ('[[swap]]\nwho = "x"\nmodel = "\\u0000"', "model must be a model's folder or file, not '"),
        ("x = " + "9" * 5000, r"cast\.toml is not TOML: Exceeds the limit"),
        ('[[swap]]\nwho = "x"\nmodel = 3', "model must be a model's folder or file, not 3"),
        ('[[swap]]\nwho = "x"\nto = "c"', 'swap 1: to must be "a" or "b", not \'c\''),
        ('[[swap]]\nwho = "x"\nto = []', r'swap 1: to must be "a" or "b", not \[\]'),
    ],
)
def test_invalid_cast_file_is_a_one_line_error(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message) as caught:
        read_cast(write_cast(tmp_path, text))

    assert "cast.toml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_unreadable_cast_file_is_named(tmp_path):
    (tmp_path / "cast.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"cast\.toml is not TOML"):
        read_cast(tmp_path / "cast.toml")
    with pytest.raises(InputError, match=r"cast file .*none\.toml cannot be read: No such file"):
        read_cast(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("who", "model", "error", "message"),
    [
        ("nobody.png", "models/one", InputError, r"cast\.toml, swap 1: .*nobody\.png"),
        ("wall.png", "models/one", NoFacesError, r"swap 1: no face found in .*wall\.png"),
        ("collins.png", "models/none", ModelError, r"swap 1: .*models/none does not exist"),
    ],
)
def test_missing_photo_face_or_model_in_a_cast_is_refused(folder, who, model, error, message):
    path = write_cast(folder, f'[[swap]]\nwho = "{who}"\nmodel = "{model}"\n')

    with pytest.raises(error, match=message):
        assemble(replace(QUICK, cast=str(path)), None)


def test_each_face_is_swapped_by_its_own_model(folder, together, pair):
    Image.fromarray(together).save(folder / "x.png")
    config = replace(QUICK, cast=str(write_cast(folder, BOTH)))

    report = convert(folder / "x.png", config=config)

    swapped = read_photo(report.output).image
    assert report.faces == 2
    assert colors_of(together, pair) == [None, None]
    assert colors_of(swapped, pair) == [RED, GREEN]


def test_people_outside_the_cast_are_not_swapped(folder, together, pair):
    Image.fromarray(together).save(folder / "x.png")
    path = write_cast(folder, '[[swap]]\nwho = "hopper.png"\nto = "a"\n')

    report = convert(folder / "x.png", None, folder / "models/one", replace(QUICK, cast=str(path)))

    assert report.faces == 1
    assert colors_of(read_photo(report.output).image, pair) == [None, BLUE]


def test_cast_works_in_a_video_and_its_preview(folder, together, pair):
    write_clip(folder / "x.mp4", [together] * 4, 25, np.zeros(7680, np.int16), 48000)
    config = replace(QUICK, cast=str(write_cast(folder, BOTH)))

    report = convert(folder / "x.mp4", config=config)
    shown = contact_sheet(folder / "x.mp4", folder / "sheet.png", 2, None, config)

    assert (report.faces, shown) == (8, 2)
    for frame in read_video(report.output):
        assert colors_of(frame.image, pair) == [RED, GREEN]
    sheet = read_photo(folder / "sheet.png").image.astype(int)
    swap = sheet[: len(sheet) // 2, 426:852]
    for color, half in ((RED, swap[:, :213]), (GREEN, swap[:, 213:])):
        assert (np.abs(half - color).max(axis=2) < 40).sum() > 100


def test_cast_needs_no_default_model(folder, collins, monkeypatch):
    from click.testing import CliRunner

    from faceswap.cli.main import cli

    Image.fromarray(collins).save(folder / "x.png")
    write_cast(folder, BOTH)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")  # has no models/ folder

    done = CliRunner().invoke(cli, ["convert", "../x.png", "--cast", "../cast.toml"])

    assert done.exit_code == 0, done.exception
    assert "1 frame, 1 face swapped" in done.output


def test_equal_targets_share_a_swapper_and_a_model_is_loaded_once(folder, monkeypatch):
    loaded, load = [], modelfile.load
    monkeypatch.setattr(modelfile, "load", lambda *a: loaded.append(1) or load(*a))
    text = "".join(
        f'[[swap]]\nwho = "collins.png"\nmodel = "{model}"\nto = "{to}"\n'
        for model, to in (("models/one", "b"), ("models/../models/one", "b"), ("models/one", "a"))
    )

    config = replace(QUICK, cast=str(write_cast(folder, text)))
    multi_swapper, selector, _ = assemble(config, None)

    first, second, third = multi_swapper._by_target
    assert first is second is not third
    assert len(loaded) == 1
    assert len(selector.targets) == 3


def test_swaps_keep_the_order_of_the_faces(together, pair):
    one, two = model_of(BLUE, RED), model_of(GREEN, GREEN)
    multi_swapper = MultiSwapper([Swapper(one, QUICK, CPU), Swapper(two, QUICK, CPU)])
    frame = Frame(together, 0, Fraction(0), Path("x"))
    faces = [replace(pair[1], target=1), replace(pair[0], target=0), replace(pair[0], target=1)]

    first, second = multi_swapper.prepare([(frame, faces), (frame, faces[1:2])])

    assert [swap.aligned.face for swap in first] == faces
    assert [swap.image[128, 128].argmax() for swap in first] == [1, 0, 1]
    assert [swap.aligned.face for swap in second] == faces[1:2]


def test_model_prefers_the_footage_person_it_was_trained_on(folder, together, pair):
    from faceswap.facesets.recognition import embedding_of

    centroids = {
        "a": embedding_of(folder / "hopper.png"), "b": embedding_of(folder / "collins.png"),
    }  # fmt: skip
    modelfile.save(folder / "known.safetensors", model_of(BLUE, RED, centroids=centroids))
    Image.fromarray(together).save(folder / "x.png")
    known = folder / "known.safetensors"

    for settings, colors in (
        ({}, [None, RED]),
        ({"to": "a"}, [BLUE, None]),
        ({"all_faces": True}, [RED, RED]),
        ({"who": (str(folder / "collins.png"),)}, [RED, None]),
        ({"exclude": (str(folder / "hopper.png"),)}, [RED, None]),
    ):
        report = convert(folder / "x.png", None, known, replace(QUICK, overwrite=True, **settings))
        assert colors_of(read_photo(report.output).image, pair) == colors


@pytest.mark.parametrize("option", ["largest", "all_faces"])
def test_largest_and_all_faces_need_no_embedding(folder, together, pair, monkeypatch, option):
    far = {key: np.zeros(128, np.float32) for key in "ab"}
    modelfile.save(folder / "known.safetensors", model_of(BLUE, RED, centroids=far))
    known = folder / "known.safetensors"
    _, selector, _ = assemble(replace(QUICK, **{option: True}), known)
    monkeypatch.setattr("faceswap.tracking.selection.compute_embedding", None)
    frame = Frame(together, 0, Fraction(0), Path("x"))

    ((_, kept, _),) = select_faces([(frame, pair)], selector)

    assert len(kept) == (1 if option == "largest" else 2)
