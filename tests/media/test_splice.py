"""Frames of a finished video are replaced, and all other packets stay as they are."""

from fractions import Fraction

import av
import numpy as np
import pytest

from faceswap.errors import InputError, OutputError
from faceswap.media import reader, writers
from faceswap.media.codecs import choose_encoding
from faceswap.media.footage import VideoFile
from faceswap.media.splice import PacketList, VideoSplice
from faceswap.media.writers import StreamTarget
from tests.support.clips import make_clip, pass_on, sound_of, times_of, unmarked

LAST = Fraction(1, 25)


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def frames_of(path):
    return [frame.image for frame in reader.read_video(path)]


def splice(output, source, replaced, codec="auto"):
    """Paint the replaced frames of an output white."""
    frames = list(reader.read_video(source))
    encoding = choose_encoding(output.suffix, codec, 18, hardware=False)
    footage = VideoFile(source)
    with footage.opened() as (_, video):
        spliced = VideoSplice(
            StreamTarget(output, unmarked, encoding, sound=True), replaced,
            [frame.pixels.frame.pts for frame in frames], video, output.parent,
        )  # fmt: skip
        for number in replaced:
            height, width = frames[number].shape
            white = np.full((height, width, 3), 255, np.float32)
            spliced.write(number, frames[number].changed((0, 0, width, height), white))
        spliced.finish()
    spliced.publish(footage)


@pytest.mark.parametrize(
    ("ranks", "keys", "replaced", "kept"),
    [
        ([0, 1, 2, 3], [1, 1, 1, 1], [2], [range(2), range(3, 4)]),  # only key frames
        ([0, 1, 2, 3, 4, 5], [1, 0, 0, 1, 0, 0], [4], [range(4)]),
        ([0, 1, 2, 3, 4, 5], [1, 0, 0, 1, 0, 0], [0], [range(3, 6)]),
        ([0, 1, 2, 3, 4, 5], [1, 0, 0, 1, 0, 0], [1, 5], [range(1), range(3, 5)]),
        # Frame 3 is decoded before 1 and 2, which are shown before it.
        ([0, 3, 1, 2, 6, 4, 5], [1, 0, 0, 0, 0, 0, 0], [5], [range(4)]),
        ([0, 3, 1, 2, 6, 4, 5], [1, 0, 0, 0, 0, 0, 0], [2], [range(1)]),
        # Frames 1 and 2 are shown before the second key frame, but decoded after it.
        ([0, 3, 1, 2, 4], [1, 1, 0, 0, 0], [4], [range(4)]),
        ([0, 3, 1, 2, 4], [1, 1, 0, 0, 0], [1], [range(1)]),
    ],
)
def test_packets_that_are_kept(ranks, keys, replaced, kept):
    packets = PacketList(ranks, list(map(bool, keys)), LAST, False)

    assert packets.kept(replaced) == kept


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "h264"), (".mp4", "h265"), (".mkv", "h264"), (".mp4", "av1"), (".webm", "vp9")],
)
def test_other_packets_stay(tmp_path, monkeypatch, suffix, codec):
    monkeypatch.setattr(writers, "SEGMENT_FRAMES", 12)
    source = make_clip(tmp_path / f"in{'.webm' if suffix == '.webm' else '.mp4'}",
                       times=[0, 1, 2, 4, *range(6, 38)],
                       codec="libvpx-vp9" if suffix == ".webm" else "libx264",
                       audio=suffix != ".webm")  # fmt: skip
    output = pass_on(source, tmp_path / f"out{suffix}", codec=codec)
    before, old, times = packets_of(output), frames_of(output), times_of(output)
    sound = sound_of(output)

    splice(output, source, [17, 18], codec)

    after, new = packets_of(output), frames_of(output)
    assert before[:12] == after[:12]
    assert before[24:] == after[24:]
    assert times_of(output) == times
    assert sound_of(output) == sound
    changed = [np.abs(a.astype(int) - b).mean() for a, b in zip(old, new, strict=True)]
    assert [number for number, change in enumerate(changed) if change > 20] == [17, 18]
    assert not any(changed[:12] + changed[24:])
    assert max(changed[12:17] + changed[19:24]) < 3  # they are encoded twice


def test_only_replaced_frames_change_without_motion_prediction(tmp_path):
    source = make_clip(tmp_path / "in.mp4", times=range(6))
    output = pass_on(source, tmp_path / "out.mkv", codec="ffv1")
    before = packets_of(output)

    splice(output, source, [0, 3, 5], "ffv1")

    after = packets_of(output)
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        False, True, True, False, True, False,
    ]  # fmt: skip
    assert all((image > 250).all() for image in np.array(frames_of(output))[[0, 3, 5]])


def test_another_number_of_frames_is_refused(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    output = pass_on(source, tmp_path / "out.mp4", frames=list(reader.read_video(source))[:5])

    with pytest.raises(InputError, match="has 5 frames, but its report lists 12"):
        splice(output, source, [2])


def test_packets_of_another_encoder_are_refused(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    output = pass_on(source, tmp_path / "out.mp4", quality=30)
    before = output.read_bytes()

    with pytest.raises(OutputError, match="another release of the encoder"):
        splice(output, source, [2])
    assert output.read_bytes() == before
