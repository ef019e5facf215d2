"""Damaged and hostile files are read or refused in one line, without a crash, hang or bloat."""

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
from hypothesis import strategies as st
from PIL import Image

from faceswap.cli import info
from faceswap.errors import FaceswapError, InputError, ModelError
from faceswap.faces.geometry import AlignedFace, Box, Face
from faceswap.facesets import faceset
from faceswap.facesets.writer import FacesetWriter
from faceswap.files import parse_json
from faceswap.media import frame as frames
from faceswap.media import photos, reader
from faceswap.media.frame import Frame
from faceswap.models import classic, modelfile
from faceswap.tracking.tracklog import FaceLog
from faceswap.training import checkpoint
from tests.support.clips import make_clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.stress
def test_fuzzer_finds_no_faults():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "stress" / "fuzz.py", "--tries", "40", "--only", "model",
         "resume state", "old resume state", "old checkpoint", "faceset", "crop", "done.jsonl",
         "cast", "PNG", "TIFF, 16 bits", "MP4"],
        capture_output=True, text=True, timeout=900, check=False, cwd=ROOT,
    )  # fmt: skip

    rows = [line.rsplit(None, 4) for line in done.stdout.splitlines()[1:]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [sum(map(int, row[1:4])) for row in rows] == [40] * 11, done.stdout
    assert all(int(row[4]) < 2000 for row in rows), done.stdout  # MiB, most of it libraries


def png_header(width, height, bits=8):
    """A PNG of 57 bytes whose header claims a huge image."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    )
    return photos.PNG_MARK + chunks


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("side", [2**14 + 1, 40000, 2**31 - 1])
def test_png_with_too_many_pixels_is_refused_before_decoding(tmp_path, side, bits):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side, bits))

    with pytest.raises(InputError, match=r"bomb\.png cannot be read: .*pixels"):
        photos.read_photo(tmp_path / "bomb.png")


def test_tiff_with_too_many_pixels_is_refused(tmp_path, monkeypatch):
    import tifffile

    tifffile.imwrite(tmp_path / "x.tif", np.zeros((20, 30, 3), np.uint16), photometric="rgb")
    assert photos.read_photo(tmp_path / "x.tif").shape == (20, 30)
    monkeypatch.setattr(frames, "MAX_PIXELS", 599)

    with pytest.raises(InputError, match=r"30x20 pixels"):
        photos.read_photo(tmp_path / "x.tif")


def sparse_tiff(side, samples, bits):
    """A TIFF of about 120 bytes without strips, which readers fill with zeros."""
    fields = {256: side, 257: side, 258: bits, 259: 8, 262: 1, 273: 0, 277: samples, 278: side,
              279: 0}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(("samples", "bits"), [(100, 16), (4, 64), (30, 8)])
def test_tiff_with_huge_pixels_is_refused_before_decoding(tmp_path, monkeypatch, samples, bits):
    import tifffile

    (tmp_path / "x.tif").write_bytes(sparse_tiff(4000, samples, bits))
    unpacked = []
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: unpacked.append(1))

    with pytest.raises(InputError, match=r"x\.tif"):
        photos.read_photo(tmp_path / "x.tif")
    assert not unpacked


@pytest.mark.skipif(os.name != "posix", reason="a shell script replaces Ghostscript")
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "000000-0.png"])
def test_reading_a_photo_runs_no_program(tmp_path, monkeypatch, name):
    from PIL import EpsImagePlugin

    program, witness = tmp_path / "gs", tmp_path / "witness"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # forget the cached Ghostscript path
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )

    with pytest.raises(InputError):
        photos.read_photo(tmp_path / name)
    with pytest.raises(InputError):
        faceset.read_crop(tmp_path / name, 64, None)
    assert not witness.exists()
    with suppress(Exception), Image.open(tmp_path / name) as image:  # prove that the attack works
        image.load()
    assert witness.exists()


def test_images_within_the_pixel_limit_are_read(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "x.png")
    clip = make_clip(tmp_path / "x.mp4")  # 64 x 48
    monkeypatch.setattr(frames, "MAX_PIXELS", 600)

    assert photos.read_photo(tmp_path / "x.png").shape == (20, 30)
    with pytest.raises(InputError, match=r"x\.mp4 cannot be read: it has 64x48"):
        next(reader.read_video(clip))


def test_frame_larger_than_its_header_is_not_decoded(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "x.mp4")
    monkeypatch.setattr(reader, "MAX_PIXELS", 600)  # the header check passes, the frames do not

    with pytest.raises(InputError, match="no frame that can be decoded"):
        list(reader.read_video(clip))


def test_crop_of_the_wrong_size_is_refused_before_decoding(tmp_path, collins_face):
    image = np.zeros((64, 64, 3), np.uint8)
    writer = FacesetWriter(tmp_path, 64, 0.625, {})
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
def test_faceset_cannot_name_files_outside_its_folder(tmp_path, name):
    FacesetWriter(tmp_path / "faces", 64, 0.625, {})
    index = tmp_path / "faces" / faceset.INDEX
    record = {"file": name, "source": "x", "index": 0}
    index.write_text(index.read_text() + json.dumps(record) + "\n")

    with pytest.raises(InputError, match="line 2 is damaged"):
        list(faceset.read_records(index))
    with pytest.raises(InputError, match="line 2 is damaged"):
        FacesetWriter(tmp_path / "faces", 64, 0.625, {})


def test_checkpoint_with_a_huge_strided_view_is_refused(tmp_path):
    huge = torch.zeros(1, dtype=torch.float16).expand(2**40)
    torch.save({"state": {"encoder.5.bias": huge}, "epoch": 1}, tmp_path / "x.t7")

    with pytest.raises(ModelError, match=r"encoder\.5\.bias"):
        classic.import_checkpoint(tmp_path / "x.t7", tmp_path / "out")


class CallOnUnpickle:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def attacks(witness):
    """Objects that create the witness when unpickled, directly or through what torch allows."""
    command, code = f"touch {witness}", f"__import__('os').mkdir({str(witness)!r})"
    inner = io.BytesIO()
    pickle.dump(CallOnUnpickle(os.system, command), inner)
    return {
        "shell": CallOnUnpickle(os.system, command),
        "eval": CallOnUnpickle(eval, code),
        "exec": CallOnUnpickle(exec, code),
        "folder": CallOnUnpickle(os.mkdir, str(witness)),
        "nested": CallOnUnpickle(torch.storage._load_from_bytes, inner.getvalue()),
        "process": CallOnUnpickle(subprocess.check_output, ["touch", str(witness)]),
        "path": CallOnUnpickle(Path.touch, Path(witness)),
        "class": CallOnUnpickle(getattr, CallOnUnpickle(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("form", ["archive", "legacy", "plain"])
@pytest.mark.parametrize("attack", attacks(Path("witness")))
def test_model_files_run_no_code(tmp_path, attack, form):
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
        checkpoint.read_state(tmp_path / "model")
    with pytest.raises(ModelError):
        modelfile.load(tmp_path / "model")
    with suppress(FaceswapError):
        info.inspect(tmp_path / "model")
    assert not witness.exists()
    with suppress(Exception):  # prove that the attack works
        pickle.loads(pickle.dumps(evil))
    assert witness.exists() == (attack != "class")  # "class" only looks a function up


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FACE = Face(Box(5, 5, 60, 60), 1.0, np.full((68, 2), 30, np.float32))
PROPERTY_SETTINGS = settings(
    max_examples=100, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@PROPERTY_SETTINGS
@given(key=st.sampled_from(["file", "source", "index", "landmarks", "matrix"]), value=JSON)
def test_any_value_in_a_faceset_record_is_read_or_refused(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("faces")
    image = np.zeros((64, 64, 3), np.uint8)
    writer = FacesetWriter(folder, 64, 0.625, {})
    frame = Frame(image, 0, Fraction(0), Path("x.jpg"))
    writer.add("x.jpg", frame, [AlignedFace(FACE, image, np.eye(2, 3))])
    index = folder / faceset.INDEX
    header, line = index.read_text().splitlines()
    index.write_text(f"{header}\n{json.dumps(json.loads(line) | {key: value})}\n")

    with suppress(FaceswapError):  # any other exception fails the test
        assert np.isfinite(faceset.Faceset.read(folder).landmarks).all()


@PROPERTY_SETTINGS
@given(record=JSON)
def test_any_record_in_a_track_log_is_refused(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("log") / "faces.jsonl"
    path.write_text(json.dumps(record) + "\n")

    with pytest.raises(InputError, match="line 1 is damaged"):
        FaceLog(path)


@pytest.mark.parametrize(
    "text", ["1e999", "NaN", "-Infinity", "[" * 5000, "", '{"a": -1e400}', "9" * 400]
)
def test_invalid_json_raises_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - several messages
        parse_json(text)


def test_valid_json_is_parsed():
    assert parse_json('{"a": [1, 2.5, "x", null]}') == {"a": [1, 2.5, "x", None]}
