import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from faceswap.cli import text
from faceswap.cli.info import inspect
from faceswap.cli.output import to_jsonable
from faceswap.errors import InputError, ModelError
from faceswap.models import autoencoder, modelfile
from faceswap.models.architectures import PRESETS
from tests.support.clips import HLG, hdr_clip, make_clip
from tests.support.films import write_exr


def test_model_facts(tmp_path):
    trained = modelfile.TrainedModel(
        autoencoder.build(PRESETS["small"]),
        ("x", "y"),
        (0, 0, 0),
        70,
        {"a": ["1", "2"], "b": ["3"]},
    )
    modelfile.save(tmp_path / "m" / modelfile.MODEL_FILE, trained)

    facts = inspect(tmp_path / "m")

    assert facts == inspect(tmp_path / "m" / modelfile.MODEL_FILE)
    assert (facts.kind, facts.architecture, facts.size) == ("model", "small", 80)
    assert (facts.names, facts.steps, facts.mask) == (("x", "y"), 70, True)
    assert facts.held_out == {"a": 2, "b": 1}
    assert facts.photos == {"a": 0, "b": 0}
    assert facts.centroids is False
    assert facts.bytes > 4 * facts.parameters


def test_faceset_facts(faceset_folders):
    facts = inspect(faceset_folders[0])

    assert facts.kind == "faceset"
    assert facts.faces == len(list(faceset_folders[0].glob("*.png")))
    assert facts.deleted == 0


def test_video_facts(tmp_path):
    source = make_clip(tmp_path / "in.mp4")

    facts = inspect(source)

    assert (facts.kind, facts.width, facts.height) == ("video", 64, 48)
    assert facts.frames == 12
    assert facts.bytes == source.stat().st_size
    assert (facts.streams[0].type, facts.streams[0].codec) == ("video", "h264")
    assert "channels" not in to_jsonable(facts)["streams"][0]  # only audio has them
    assert any(line.startswith("stream 0: type video, codec h264") for line in text.facts(facts))


def test_photo_facts(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "x.png")

    facts = inspect(tmp_path / "x.png")

    assert (facts.kind, facts.width, facts.height) == ("photo", 30, 20)
    assert "width: 30" in text.facts(facts)


def test_colour_spaces_are_told(tmp_path, monkeypatch):
    write_exr(tmp_path / "x.exr", np.zeros((20, 30, 3), np.float32), np.float16)
    hdr_clip(tmp_path / "hdr.mkv", HLG)
    make_clip(tmp_path / "sdr.mp4")

    assert inspect(tmp_path / "x.exr").colorspace == "Linear Rec.709 (sRGB)"
    assert inspect(tmp_path / "sdr.mp4").colorspace is None
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)  # which it does without
    assert inspect(tmp_path / "hdr.mkv").colorspace == "Rec.2100-HLG - Display"


def test_anything_else_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError):
        inspect(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="neither a model"):
        inspect(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        inspect(tmp_path / "nothing.mp4")


def test_command_prints_one_json_object(faceset_folders):
    command = [sys.executable, "-m", "faceswap", "info", str(faceset_folders[0]), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["kind"] == "faceset"


def test_signed_photo_names_its_original(tmp_path):
    from PIL import Image

    from faceswap.media.photos import read_photo
    from faceswap.media.writers import photo_writer
    from faceswap.provenance.credentials import ModelRecord
    from faceswap.provenance.identity import signing_identity
    from faceswap.provenance.signer import Signer

    Image.new("RGB", (40, 30), "red").save(tmp_path / "old.png")
    signer = Signer(ModelRecord("collins-hopper", "5a" * 32), signing_identity())
    publish = signer.publisher(tmp_path / "old.png")
    with photo_writer(tmp_path / "new.png", tmp_path / "old.png", publish) as writer:
        writer.write(read_photo(tmp_path / "old.png"))

    assert inspect(tmp_path / "old.png").provenance is None
    found = inspect(tmp_path / "new.png").provenance
    assert (found.intact, found.made_from) == (True, "old.png")
    assert found.model == "collins-hopper"
    assert found.made_by.startswith("faceswap")
