"""Shards that several machines make give the same output as one machine."""

import json
import os
import threading
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from faceswap.cli.main import cli
from faceswap.config import ConvertConfig
from faceswap.errors import BusyError, InputError, OutputError, SettingsError
from faceswap.files import lock_file
from faceswap.media import segments as segments_module
from faceswap.media.segments import unfinished
from faceswap.models import devices
from faceswap.swapping import shards
from faceswap.swapping.converter import convert
from faceswap.swapping.shards import Shard, convert_shard, join
from faceswap.swapping.swapper import FRAMES_PER_PASS, Swapper
from scripts.tools.check_machines import digest
from scripts.tools.schemas import schemas
from tests.support.clips import segment_length, write_lossless
from tests.support.stops import Stopped, stop_after, stop_before_stream

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", codec="ffv1")
LENGTH = 24

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short_segments(request, monkeypatch):
    if "segments_begin" in request.node.name:
        return
    segment_length(monkeypatch, 8)
    monkeypatch.setattr(shards, "SEGMENT_FRAMES", 8)


@pytest.fixture(scope="module")
def images(collins):
    """Frames with a cut, after which nobody is seen for a while."""
    empty = np.full_like(collins, 40)
    moving = [np.roll(collins, 2 * number, axis=1) for number in range(LENGTH)]
    return [*moving[:13], empty, empty, *moving[15:]]


@pytest.fixture
def clip(tmp_path, images):
    return write_lossless(tmp_path / "clip.mkv", images)


def frames_of(report):
    """Return the records of all frames; the distances may have been known later."""
    found = json.loads(report.read_text())
    return [
        frame | {"faces": [face | {"distance": None} for face in frame["faces"]]}
        for frame in found["frames"]
    ], found["troubles"]


def test_joined_shards_equal_one_run(tmp_path, clip, model):
    count = 3
    config = replace(QUICK, matte=True)
    whole = convert(clip, tmp_path / "whole.mkv", model, config)
    output = tmp_path / "parts.mkv"
    order = [count, *range(1, count)]  # in any order

    reports = [convert_shard(clip, output, model, config, Shard(n, count)) for n in order]
    assert not output.exists()
    assert unfinished(tmp_path) == []  # it is nobody's to go on with
    report = join(clip, output)

    assert sum(each.frames for each in reports) == report.frames == whole.frames == LENGTH
    assert sum(each.faces for each in reports) == report.faces == whole.faces
    for name in ("whole.mkv", "whole.matte.mkv"):
        assert digest(tmp_path / name) == digest(tmp_path / name.replace("whole", "parts"))
    assert frames_of(report.report) == frames_of(whole.report)
    assert not list(tmp_path.glob(".*.parts"))


def test_images_are_equal_byte_for_byte(tmp_path, images, model):
    folder = tmp_path / "shot"
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"shot.{1001 + number}.png")
    config = replace(QUICK, codec="auto", intermediate=True)
    convert(folder, tmp_path / "whole", model, config)
    for number in (1, 2):
        convert_shard(folder, tmp_path / "parts", model, config, Shard(number, 2))
    join(folder, tmp_path / "parts")

    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert len([name for name in names if name.endswith(".png")]) == 24
    for name in names:
        if name.endswith(".png"):
            one, other = (tmp_path / part / name for part in ("whole", "parts"))
            assert one.read_bytes() == other.read_bytes()


def test_a_shard_and_the_tracking_go_on_after_a_stop(tmp_path, clip, model):
    whole = convert(clip, tmp_path / "whole.mkv", model, QUICK)
    output = tmp_path / "parts.mkv"
    with pytest.raises(Stopped):  # while it follows the faces
        convert_shard(clip, output, model, QUICK, Shard(2, 2), stop_after(17, "frames followed"))
    with pytest.raises(Stopped):
        convert_shard(clip, output, model, QUICK, Shard(2, 2), stop_after(12, "frames"))
    again = convert_shard(clip, output, model, QUICK, Shard(2, 2))
    assert (again.resumed, again.frames) == (8, 16)
    assert convert_shard(clip, output, model, QUICK, Shard(2, 2)).resumed == 16
    convert_shard(clip, output, model, QUICK, Shard(1, 2))

    join(clip, output)

    assert digest(output) == digest(whole.output)


def test_a_join_that_was_interrupted_goes_on(tmp_path, clip, model, monkeypatch):
    whole = convert(clip, tmp_path / "whole.mkv", model, QUICK)
    output = tmp_path / "parts.mkv"
    for number in (1, 2, 3):
        convert_shard(clip, output, model, QUICK, Shard(number, 3))
    original, calls = shards._link, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Stopped
        original(*args)

    monkeypatch.setattr(shards, "_link", failing)
    with pytest.raises(Stopped):
        join(clip, output)
    join(clip, output)

    assert digest(output) == digest(whole.output)


def test_a_join_that_was_stopped_between_two_outputs_goes_on(tmp_path, clip, model, monkeypatch):
    config, output = replace(QUICK, matte=True), tmp_path / "parts.mkv"
    convert(clip, tmp_path / "whole.mkv", model, config)
    for number in (1, 2):
        convert_shard(clip, output, model, config, Shard(number, 2))
    with monkeypatch.context() as patch:
        stop_before_stream(patch, "matte")
        with pytest.raises(Stopped):
            join(clip, output)
    assert output.exists()
    assert not (tmp_path / "parts.matte.mkv").exists()
    assert unfinished(tmp_path) == []

    join(clip, output)

    for name in ("whole.mkv", "whole.matte.mkv"):
        assert digest(tmp_path / name) == digest(tmp_path / name.replace("whole", "parts"))
    with pytest.raises(InputError, match="there are no shards"):
        join(clip, output)


def test_an_output_that_the_shards_did_not_write_is_kept(tmp_path, clip, model):
    output = tmp_path / "parts.mkv"
    convert_shard(clip, output, model, QUICK, Shard(1, 1))
    output.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        join(clip, output)
    assert output.read_bytes() == b"mine"
    assert list(tmp_path.glob(".*.parts/shards.json"))  # the shards are kept


def test_missing_and_unfinished_shards_are_named(tmp_path, clip, model):
    output = tmp_path / "parts.mkv"
    with pytest.raises(InputError, match=r"there are no shards of .*parts\.mkv"):
        join(clip, output)
    convert_shard(clip, output, model, QUICK, Shard(1, 2))
    with pytest.raises(InputError, match=r"shard 2/2 of .*parts\.mkv is not made"):
        join(clip, output)
    with pytest.raises(Stopped):
        convert_shard(clip, output, model, QUICK, Shard(2, 2), stop_after(12, "frames"))
    with pytest.raises(InputError, match=r"shard 2/2 of .* has 8 of 16 frames; run it again"):
        join(clip, output)


def test_changed_footage_is_refused(tmp_path, clip, model):
    output = tmp_path / "parts.mkv"
    for number in (1, 2):
        convert_shard(clip, output, model, QUICK, Shard(number, 2))
    os.utime(clip, (1, 1))
    with pytest.raises(InputError, match="has changed since the shards"):
        join(clip, output)


def test_a_shard_that_is_under_way_is_busy(tmp_path, clip, model):
    output = tmp_path / "parts.mkv"
    convert_shard(clip, output, model, QUICK, Shard(1, 1))
    (parts,) = tmp_path.glob(".*.parts")
    with lock_file(parts / "shard-1-of-1" / "lock", "x"), pytest.raises(BusyError):
        convert_shard(clip, output, model, QUICK, Shard(1, 1))


def test_the_faces_are_followed_once(tmp_path, clip, model, monkeypatch):
    output, told = tmp_path / "parts.mkv", []
    monkeypatch.setattr(shards, "POLL", 0.05)
    convert_shard(clip, output, model, QUICK, Shard(1, 2))
    (parts,) = tmp_path.glob(".*.parts")
    (parts / shards.FOLLOWED).unlink()
    held = lock_file(parts / shards.LOCK, "x")  # as another machine would

    def finish():
        (parts / shards.FOLLOWED).write_bytes(b"")
        held.close()

    timer = threading.Timer(0.5, finish)
    timer.start()
    convert_shard(clip, output, model, QUICK, Shard(2, 2), told.append)
    timer.join()

    assert {progress.unit for progress in told} == {"frames"}  # nothing was followed or checked


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [
        (1, 100, [(0, 100)]), (3, 100, [(0, 32), (32, 64), (64, 100)]),
        (4, 16, [(0, 0), (0, 8), (8, 8), (8, 16)]), (2, 0, [(0, 0), (0, 0)]),
        (2, 7, [(0, 0), (0, 7)]),
    ],
)  # fmt: skip
def test_shards_are_whole_segments_and_cover_all(count, total, expected):
    assert [Shard(n, count).frames(total) for n in range(1, count + 1)] == expected


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "1/99999", "-1/2"])
def test_senseless_shards_are_refused(text):
    with pytest.raises(SettingsError, match="--shard must be such as"):
        Shard.parse(text)


def test_photos_have_no_shards(tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "a.png")
    with pytest.raises(SettingsError, match="is not a video or an image sequence"):
        convert_shard(tmp_path / "a.png", None, model, replace(QUICK, codec="auto"), Shard(1, 2))


def test_commands_make_and_join_shards(tmp_path, clip, model):
    options = ["--model", str(model), "--detector", "hog", "--codec", "ffv1", "--workers", "1"]
    where = ["-o", str(tmp_path / "out.mkv"), "--json"]
    for number in (1, 2):
        made = CliRunner().invoke(
            cli, ["convert", str(clip), *options, "--shard", f"{number}/2", *where]
        )
        assert made.exit_code == 0, made.output
        jsonschema.validate(json.loads(made.stdout), schemas()["convert"])
    joined = CliRunner().invoke(cli, ["join", str(clip), *where])
    assert joined.exit_code == 0, joined.output
    jsonschema.validate(json.loads(joined.stdout), schemas()["join"])
    assert (tmp_path / "out.mkv").is_file()
    both = CliRunner().invoke(cli, ["convert", str(clip), "--shard", "1/2", "--preview", "3"])
    assert both.exit_code == 2


def test_segments_begin_with_batches_of_the_network():
    assert segments_module.SEGMENT_FRAMES % FRAMES_PER_PASS == 0


def test_shards_compute_in_as_many_threads_as_a_conversion(tmp_path, clip, model, monkeypatch):
    """A network's last digits depend on the number of threads."""
    seen, decode = [], Swapper.decode

    def noted(*arguments):
        seen.append(torch.get_num_threads())
        return decode(*arguments)

    monkeypatch.setattr(Swapper, "decode", noted)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        convert(clip, tmp_path / "whole.mkv", model, QUICK)
        one = set(seen)
        seen.clear()
        convert_shard(clip, tmp_path / "parts.mkv", model, QUICK, Shard(2, 3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert one == set(seen) == {2}
