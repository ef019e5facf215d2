"""Sound that has to be coded anew stays in step with the picture."""

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.support.clips import RATE, pass_on, picture, span, times_of

RATE_OF_SOUND = 48000
SECONDS = 2


def chirp():
    """A tone that rises steadily, so that every moment is told from every other: (n,) of +-0.3."""
    time = np.arange(SECONDS * RATE_OF_SOUND) / RATE_OF_SOUND
    return 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2))


def singing_clip(path, codec="aac", rate=RATE_OF_SOUND, layout="mono", without=()):
    """A clip whose sound is the chirp, but for some of its packets."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream(codec, rate=rate, layout=layout)
        for number in range(SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(chirp().astype(np.float32)[None], "flt", "mono")
        chunk.sample_rate, chunk.pts = RATE_OF_SOUND, 0
        packets = [*sound.encode(chunk), *sound.encode(None)]
        for number, packet in enumerate(packets):
            if number not in without:
                out.mux(packet)
    return path


def heard(path):
    """A track as a player plays it from time 0 on, (n,)."""
    resampler = av.AudioResampler("flt", "mono", RATE_OF_SOUND)
    wave = np.zeros((SECONDS + 1) * RATE_OF_SOUND, np.float32)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            at = round(frame.pts * frame.time_base * RATE_OF_SOUND)
            for part in resampler.resample(frame):
                samples = part.to_ndarray().ravel()
                skipped = max(-at, 0)
                wave[at + skipped : at + len(samples)] = samples[skipped:][: len(wave) - at]
                at += len(samples)
    return wave


def lag_of(wave, reference, at, length=12000):
    """Samples by which ``wave`` comes later than ``reference``, and the noise to it in dB."""
    part = reference[at : at + length]
    lags = range(-2000, 2000)
    best = max(lags, key=lambda lag: float(part @ wave[at + lag : at + lag + length]))
    off = part - wave[at + best : at + best + length]
    return best, 10 * np.log10(float((off**2).sum() / (part**2).sum()))


@pytest.mark.parametrize(
    ("source", "codec", "target", "coded"),
    [("in.mp4", "aac", "out.webm", "opus"), ("in.mkv", "pcm_s16le", "out.webm", "opus"),
     ("in.avi", "adpcm_ms", "out.mp4", "aac"), ("in.avi", "adpcm_ms", "out.mov", "aac")],
)  # fmt: skip
def test_sound_that_does_not_fit_is_coded_anew_in_step(
    tmp_path, caplog, source, codec, target, coded
):
    clip = singing_clip(tmp_path / source, codec)

    made = pass_on(clip, tmp_path / target)

    with av.open(str(made)) as container:
        (sound,) = container.streams.audio
        assert sound.codec_context.codec.canonical_name == coded
    assert f"coded anew as {coded}" in caplog.text
    for at in (24000, 72000):
        lag, noise = lag_of(heard(made), heard(clip), at)
        assert abs(lag) <= RATE_OF_SOUND // 1000  # Matroska's millisecond
        assert noise < -15


def test_an_excerpt_of_it_is_in_step_too(tmp_path):
    clip = singing_clip(tmp_path / "in.mp4")
    start, end = Fraction(12, RATE), Fraction(12, RATE) + 1

    made = pass_on(clip, tmp_path / "out.webm", **span(clip, start, end))

    lag, noise = lag_of(heard(made), heard(clip)[int(start * RATE_OF_SOUND) :], 12000)
    # It begins with the packet after the picture's first frame, its times in milliseconds.
    assert abs(lag) <= 2 * RATE_OF_SOUND // 1000
    assert noise < -15
    assert len(times_of(made)) == RATE


def test_what_follows_a_gap_stays_in_step(tmp_path):
    clip = singing_clip(tmp_path / "in.mkv", without=range(30, 45))

    made = pass_on(clip, tmp_path / "out.webm")

    lag, noise = lag_of(heard(made), chirp(), 72000)
    assert abs(lag) <= 2 * RATE_OF_SOUND // 1000
    assert noise < -10
    silent = heard(made)[36000:40000]
    assert np.abs(silent).mean() < 0.02


def surround(path, layouts=("5.1(side)",)):
    """A clip whose AC-3 sound changes its loudspeakers on the way, half a second of each."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("ac3", rate=RATE_OF_SOUND, layout=layouts[0])
        for number in range(RATE):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))
        for number, layout in enumerate(layouts):
            coder = av.CodecContext.create("ac3", "w")
            coder.sample_rate, coder.layout, coder.format = RATE_OF_SOUND, layout, "fltp"
            channels = coder.layout.nb_channels
            wave = chirp()[24576 * number :][:24576].astype(np.float32)  # 16 frames of 1536
            chunk = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), "fltp", layout)
            chunk.sample_rate, chunk.pts = RATE_OF_SOUND, 0
            for place, packet in enumerate([*coder.encode(chunk), *coder.encode(None)][:16]):
                packet.pts = packet.dts = 1536 * (place + 16 * number)
                packet.time_base, packet.stream = Fraction(1, RATE_OF_SOUND), sound
                out.mux(packet)
    return path


def test_films_name_other_loudspeakers_than_the_codec(tmp_path):
    made = pass_on(surround(tmp_path / "in.mkv"), tmp_path / "out.webm")

    with av.open(str(made)) as container:
        (sound,) = container.streams.audio
        assert (sound.codec_context.name, sound.codec_context.layout.name) == ("opus", "5.1")
        loud = [np.abs(frame.to_ndarray()).mean() for frame in container.decode(sound)]
    assert np.median(loud) > 0.05


def test_sound_of_a_rate_that_no_codec_knows_comes_along(tmp_path):
    clip = singing_clip(tmp_path / "in.avi", "adpcm_ms", rate=22222)

    made = pass_on(clip, tmp_path / "out.mp4")

    with av.open(str(made)) as container:
        assert container.streams.audio[0].codec_context.sample_rate == 24000
    lag, noise = lag_of(heard(made), heard(clip), 24000)
    assert abs(lag) <= RATE_OF_SOUND // 1000
    assert noise < -15


def test_a_broadcast_may_change_its_loudspeakers_on_the_way(tmp_path):
    clip = surround(tmp_path / "in.mkv", ("stereo", "5.1(side)", "stereo"))

    made = pass_on(clip, tmp_path / "out.webm")

    for at in (4000, 60000):  # in the first and the last of the three
        lag, noise = lag_of(heard(made), chirp(), at, 8000)
        assert abs(lag - 256) <= 2 * RATE_OF_SOUND // 1000  # an AC-3 encoder's delay
        assert noise < -6  # mixed for other loudspeakers it is quieter


@pytest.mark.parametrize("target", ["out.mov", "out.webm"])
def test_sound_that_nobody_can_decode_is_left_out(tmp_path, caplog, target):
    clip = singing_clip(tmp_path / "in.mov")
    data = bytearray(clip.read_bytes())
    for name in (b"mp4a", b"esds"):  # as new telephones write a second track for which FFmpeg
        place = data.index(name, data.rindex(b"stsd"))  # has no codec
        data[place : place + 4] = b"apac"
    clip.write_bytes(data)

    made = pass_on(clip, tmp_path / target)

    assert "audio stream 1 (unknown) does not fit" in caplog.text
    assert len(times_of(made)) == SECONDS * RATE
