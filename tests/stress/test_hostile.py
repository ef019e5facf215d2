"""Damaged and hostile files are read or refused with one line: no crash, hang or swelling."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from faceswap.cli import info
from faceswap.errors import FaceswapError, InputError, ModelError
from faceswap.faces import faceset
from faceswap.faces.geometry import AlignedFace, Box, Face
from faceswap.faces.tracklog import FaceLog
from faceswap.files import parse_json
from faceswap.media import photos, reader
from faceswap.media.frame import Frame
from faceswap.models import classic, modelfile
from faceswap.training import checkpoint
from tests.support.clips import make_clip

ROOT = Path(__file__).resolve().parents[2]


def test_the_fuzzer_finds_nothing():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress" / "fuzz.py", "--tries", "40", "--only", "model",
         "resume.pt", "old checkpoint", "faceset", "crop", "done.jsonl", "cast", "PNG",
         "TIFF, 16 bits", "MP4"],
        capture_output=True, text=True, timeout=240, check=False, cwd=ROOT,
    )  # fmt: skip

    rows = [line.rsplit(None, 4) for line in done.stdout.splitlines()[1:]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [sum(map(int, row[1:4])) for row in rows] == [40] * 10, done.stdout
    assert all(int(row[4]) < 2000 for row in rows), done.stdout  # MiB, most of it the libraries'


def png_header(width, height, bits=8):
    """A PNG of 57 bytes that says it is vast."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )
    return photos.PNG_MARK + chunks


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("side", [2**14 + 1, 40000, 2**31 - 1])
def test_a_picture_of_too_many_pixels_is_refused_before_they_take_memory(tmp_path, side, bits):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side, bits))

    with pytest.raises(InputError, match=r"bomb\.png cannot be read: .*pixels"):
        photos.read_photo(tmp_path / "bomb.png")


def test_a_tiff_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    import tifffile

    tifffile.imwrite(tmp_path / "x.tif", np.zeros((20, 30, 3), np.uint16), photometric="rgb")
    assert photos.read_photo(tmp_path / "x.tif").shape == (20, 30)
    monkeypatch.setattr(photos, "MAX_PIXELS", 599)

    with pytest.raises(InputError, match=r"30x20 pixels"):
        photos.read_photo(tmp_path / "x.tif")


def sparse_tiff(side, samples, bits):
    """A TIFF of some 120 bytes whose strips are left out, so that all its pixels are zero."""
    fields = {256: side, 257: side, 258: bits, 259: 8, 262: 1, 273: 0, 277: samples, 278: side,
              279: 0}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(("samples", "bits"), [(100, 16), (4, 64), (30, 8)])
def test_a_tiff_of_vast_pixels_takes_no_memory(tmp_path, monkeypatch, samples, bits):
    import tifffile

    (tmp_path / "x.tif").write_bytes(sparse_tiff(4000, samples, bits))
    unpacked = []
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: unpacked.append(1))

    with pytest.raises(InputError, match=r"x\.tif"):
        photos.read_photo(tmp_path / "x.tif")
    assert not unpacked


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for Ghostscript")
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "000000-0.png"])
def test_no_program_is_run_for_a_photo(tmp_path, monkeypatch, name):
    from PIL import EpsImagePlugin

    program, witness = tmp_path / "gs", tmp_path / "witness"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # look for it anew
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )

    with pytest.raises(InputError):
        photos.read_photo(tmp_path / name)
    with pytest.raises(InputError):
        faceset._read_crop(tmp_path / name, 64, 64)
    assert not witness.exists()
    with suppress(Exception), Image.open(tmp_path / name) as picture:  # the attack is real
        picture.load()
    assert witness.exists()


def test_the_limit_is_stated_and_what_is_within_is_read(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "x.png")
    clip = make_clip(tmp_path / "x.mp4")  # 64 x 48
    monkeypatch.setattr(photos, "MAX_PIXELS", 600)

    assert photos.read_photo(tmp_path / "x.png").shape == (20, 30)
    with pytest.raises(InputError, match=r"x\.mp4 cannot be read: it says that it has 64x48"):
        next(reader.read_video(clip))


def test_a_frame_that_grows_beyond_the_limit_is_not_decoded(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "x.mp4")
    monkeypatch.setattr(reader, "MAX_PIXELS", 600)  # the header's size passes, its frames do not

    with pytest.raises(InputError, match="no frame that can be decoded"):
        list(reader.read_video(clip))


def test_a_crop_is_refused_before_its_pixels_take_memory(tmp_path, collins_face):
    image = np.zeros((64, 64, 3), np.uint8)
    writer = faceset.FacesetWriter(tmp_path, 64, 0.625, {})
    frame = Frame(image, 0, Fraction(0), Path("x.jpg"))
    writer.add("x.jpg", frame, [AlignedFace(collins_face, image, np.eye(2, 3))])
    (tmp_path / "000000-0.png").write_bytes(png_header(16384, 16384))

    with pytest.raises(InputError, match=r"000000-0\.png is 16384x16384, not 64 px square"):
        faceset.Faceset.read(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../000000-0.png", "/000000-0.png", "..\\000000-0.png", "C:000000-0.png", "000000-0.png\0",
     "000000-0.png\n", "~/000000-0.png", ".", "", "x-0.png", 7, None, ["000000-0.png"]],
)  # fmt: skip
def test_a_faceset_reaches_no_other_file(tmp_path, name):
    faceset.FacesetWriter(tmp_path / "faces", 64, 0.625, {})
    index = tmp_path / "faces" / faceset.INDEX
    record = {"file": name, "source": "x", "index": 0}
    index.write_text(index.read_text() + json.dumps(record) + "\n")

    with pytest.raises(InputError, match="line 2 is damaged"):
        list(faceset.read_records(index))
    with pytest.raises(InputError, match="line 2 is damaged"):
        faceset.FacesetWriter(tmp_path / "faces", 64, 0.625, {})


def test_a_checkpoint_of_a_vast_view_takes_no_memory(tmp_path):
    vast = torch.zeros(1, dtype=torch.float16).expand(2**40)
    torch.save({"state": {"encoder.5.bias": vast}, "epoch": 1}, tmp_path / "x.t7")

    with pytest.raises(ModelError, match=r"encoder\.5\.bias"):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")


class Runs:
    """Unpickling it calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def attacks(witness):
    """Objects whose unpickling would leave a witness, directly or by what torch allows."""
    command, code = f"touch {witness}", f"__import__('os').mkdir({str(witness)!r})"
    inner = io.BytesIO()
    pickle.dump(Runs(os.system, command), inner)
    return {
        "shell": Runs(os.system, command),
        "eval": Runs(eval, code),
        "exec": Runs(exec, code),
        "folder": Runs(os.mkdir, str(witness)),
        "nested": Runs(torch.storage._load_from_bytes, inner.getvalue()),
        "process": Runs(subprocess.check_output, ["touch", str(witness)]),
        "path": Runs(Path.touch, Path(witness)),
        "class": Runs(getattr, Runs(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("form", ["archive", "legacy", "plain"])
@pytest.mark.parametrize("attack", attacks(Path("witness")))
def test_no_file_of_a_model_runs_code(tmp_path, attack, form):
    witness = tmp_path / "witness"
    evil = {"version": 1, "step": 1, "epoch": 1, "state": attacks(witness)[attack]}
    data = io.BytesIO()
    if form == "plain":
        pickle.dump(evil, data)
    else:
        torch.save(evil, data, _use_new_zipfile_serialization=form == "archive")
    names = ("x.t7", "model/resume.pt", "model/model.safetensors", "model/best.safetensors")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data.getvalue())

    with pytest.raises(ModelError):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")
    with pytest.raises(ModelError):
        checkpoint.read_state(tmp_path / "model", torch.device("cpu"))
    with pytest.raises(ModelError):
        modelfile.load(tmp_path / "model")
    with suppress(FaceswapError):
        info.inspect(tmp_path / "model")
    assert not witness.exists()
    with suppress(Exception):  # the attack is real
        pickle.loads(pickle.dumps(evil))
    assert witness.exists() == (attack != "class")  # that one only looks a function up


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=5,
)
FACE = Face(Box(5, 5, 60, 60), 1.0, np.full((68, 2), 30, np.float32))
FREELY = settings(
    max_examples=100, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@FREELY
@given(key=some.sampled_from(["file", "source", "index", "landmarks", "matrix"]), value=JSON)
def test_a_record_of_a_faceset_may_hold_anything(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("faces")
    image = np.zeros((64, 64, 3), np.uint8)
    writer = faceset.FacesetWriter(folder, 64, 0.625, {})
    frame = Frame(image, 0, Fraction(0), Path("x.jpg"))
    writer.add("x.jpg", frame, [AlignedFace(FACE, image, np.eye(2, 3))])
    index = folder / faceset.INDEX
    header, line = index.read_text().splitlines()
    index.write_text(f"{header}\n{json.dumps(json.loads(line) | {key: value})}\n")

    with suppress(FaceswapError):  # anything else is a traceback
        assert np.isfinite(faceset.Faceset.read(folder).landmarks).all()


@FREELY
@given(record=JSON)
def test_a_log_of_faces_may_hold_anything(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("log") / "faces.jsonl"
    path.write_text(json.dumps(record) + "\n")

    with pytest.raises(InputError, match="line 1 is damaged"):
        FaceLog(path)


@pytest.mark.parametrize(
    "text", ["1e999", "NaN", "-Infinity", "[" * 5000, "", '{"a": -1e400}', "9" * 400]
)
def test_what_json_cannot_mean_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        parse_json(text)


def test_what_json_means_is_read():
    assert parse_json('{"a": [1, 2.5, "x", null]}') == {"a": [1, 2.5, "x", None]}
