"""Transcoded audio stays in sync with the video."""

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.support.clips import RATE, pass_on, picture, span, times_of

SAMPLE_RATE = 48000
SECONDS = 2


def chirp():
    """A tone that rises steadily, so that every moment is unique: (n,), amplitude 0.3."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    return 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2))


def chirp_clip(path, codec="aac", rate=SAMPLE_RATE, layout="mono", without=()):
    """Write a clip whose audio is the chirp, without the packets numbered in ``without``."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream(codec, rate=rate, layout=layout)
        for number in range(SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(chirp().astype(np.float32)[None], "flt", "mono")
        chunk.sample_rate, chunk.pts = SAMPLE_RATE, 0
        packets = [*sound.encode(chunk), *sound.encode(None)]
        for number, packet in enumerate(packets):
            if number not in without:
                out.mux(packet)
    return path


def decode_audio(path):
    """Decode the audio as a player plays it from time 0, (n,)."""
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    wave = np.zeros((SECONDS + 1) * SAMPLE_RATE, np.float32)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            at = round(frame.pts * frame.time_base * SAMPLE_RATE)
            for resampled in resampler.resample(frame):
                samples = resampled.to_ndarray().ravel()
                skipped = max(-at, 0)
                wave[at + skipped : at + len(samples)] = samples[skipped:][: len(wave) - at]
                at += len(samples)
    return wave


def measure_lag(wave, reference, at, length=12000):
    """Return the lag of ``wave`` in samples, and its noise relative to ``reference`` in dB."""
    excerpt = reference[at : at + length]
    lags = range(-2000, 2000)
    best = max(lags, key=lambda lag: float(excerpt @ wave[at + lag : at + lag + length]))
    difference = excerpt - wave[at + best : at + best + length]
    return best, 10 * np.log10(float((difference**2).sum() / (excerpt**2).sum()))


@pytest.mark.parametrize(
    ("source", "codec", "target", "expected"),
    [("in.mp4", "aac", "out.webm", "opus"), ("in.mkv", "pcm_s16le", "out.webm", "opus"),
     ("in.avi", "adpcm_ms", "out.mp4", "aac"), ("in.avi", "adpcm_ms", "out.mov", "aac")],
)  # fmt: skip
def test_incompatible_audio_is_transcoded_in_sync(
    tmp_path, caplog, source, codec, target, expected
):
    clip = chirp_clip(tmp_path / source, codec)

    made = pass_on(clip, tmp_path / target)

    with av.open(str(made)) as container:
        (sound,) = container.streams.audio
        assert sound.codec_context.codec.canonical_name == expected
    assert f"it is transcoded to {expected}" in caplog.text
    for at in (24000, 72000):
        lag, noise = measure_lag(decode_audio(made), decode_audio(clip), at)
        assert abs(lag) <= SAMPLE_RATE // 1000  # Matroska rounds to 1 ms
        assert noise < -15


def test_transcoded_audio_of_an_excerpt_is_in_sync(tmp_path):
    clip = chirp_clip(tmp_path / "in.mp4")
    start, end = Fraction(12, RATE), Fraction(12, RATE) + 1

    made = pass_on(clip, tmp_path / "out.webm", **span(clip, start, end))

    expected = decode_audio(clip)[int(start * SAMPLE_RATE) :]
    lag, noise = measure_lag(decode_audio(made), expected, 12000)
    # Audio starts with the first packet after the first frame, and Matroska rounds to 1 ms.
    assert abs(lag) <= 2 * SAMPLE_RATE // 1000
    assert noise < -15
    assert len(times_of(made)) == RATE


def test_audio_after_a_gap_stays_in_sync(tmp_path):
    clip = chirp_clip(tmp_path / "in.mkv", without=range(30, 45))

    made = pass_on(clip, tmp_path / "out.webm")

    lag, noise = measure_lag(decode_audio(made), chirp(), 72000)
    assert abs(lag) <= 2 * SAMPLE_RATE // 1000
    assert noise < -10
    silent = decode_audio(made)[36000:40000]
    assert np.abs(silent).mean() < 0.02


def surround_clip(path, layouts=("5.1(side)",)):
    """Write a clip whose AC-3 audio changes its channel layout every half second."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("ac3", rate=SAMPLE_RATE, layout=layouts[0])
        for number in range(RATE):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        for number, layout in enumerate(layouts):
            encoder = av.CodecContext.create("ac3", "w")
            encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, layout, "fltp"
            channels = encoder.layout.nb_channels
            wave = chirp()[24576 * number :][:24576].astype(np.float32)  # 16 frames of 1536
            chunk = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), "fltp", layout)
            chunk.sample_rate, chunk.pts = SAMPLE_RATE, 0
            for place, packet in enumerate([*encoder.encode(chunk), *encoder.encode(None)][:16]):
                packet.pts = packet.dts = 1536 * (place + 16 * number)
                packet.time_base, packet.stream = Fraction(1, SAMPLE_RATE), sound
                out.mux(packet)
    return path


def test_side_surround_layout_becomes_back_surround(tmp_path):
    made = pass_on(surround_clip(tmp_path / "in.mkv"), tmp_path / "out.webm")

    with av.open(str(made)) as container:
        (sound,) = container.streams.audio
        assert (sound.codec_context.name, sound.codec_context.layout.name) == ("opus", "5.1")
        loud = [np.abs(frame.to_ndarray()).mean() for frame in container.decode(sound)]
    assert np.median(loud) > 0.05


def test_unsupported_sample_rate_is_resampled(tmp_path):
    clip = chirp_clip(tmp_path / "in.avi", "adpcm_ms", rate=22222)

    made = pass_on(clip, tmp_path / "out.mp4")

    with av.open(str(made)) as container:
        assert container.streams.audio[0].codec_context.sample_rate == 24000
    lag, noise = measure_lag(decode_audio(made), decode_audio(clip), 24000)
    assert abs(lag) <= SAMPLE_RATE // 1000
    assert noise < -15


def test_channel_layout_may_change_within_a_stream(tmp_path):
    clip = surround_clip(tmp_path / "in.mkv", ("stereo", "5.1(side)", "stereo"))

    made = pass_on(clip, tmp_path / "out.webm")

    for at in (4000, 60000):  # in the first and the last layout
        lag, noise = measure_lag(decode_audio(made), chirp(), at, 8000)
        assert abs(lag - 256) <= 2 * SAMPLE_RATE // 1000  # the AC-3 encoder delays by 256 samples
        assert noise < -6  # downmixing makes it quieter


@pytest.mark.parametrize("target", ["out.mov", "out.webm"])
def test_undecodable_audio_is_left_out(tmp_path, caplog, target):
    clip = chirp_clip(tmp_path / "in.mov")
    data = bytearray(clip.read_bytes())
    # Recent phones write a second audio track (APAC) that FFmpeg cannot decode.
    for name in (b"mp4a", b"esds"):
        place = data.index(name, data.rindex(b"stsd"))
        data[place : place + 4] = b"apac"
    clip.write_bytes(data)

    made = pass_on(clip, tmp_path / target)

    assert "audio stream 1 (unknown) cannot be stored in" in caplog.text
    assert len(times_of(made)) == SECONDS * RATE
