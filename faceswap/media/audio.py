"""Transcode audio that the output container cannot store, in sync with the video."""

from collections.abc import Iterator
from typing import Any

import av
from av.audio.layout import AudioLayout
from av.error import BlockingIOError, EOFError, FFmpegError  # noqa: A004 - FFmpeg's own errors
from av.filter import Graph

CODECS = {".webm": "libopus", ".mp4": "aac", ".m4v": "aac", ".mov": "aac"}
OPUS_RATE = 48000  # Hz; Opus decoders always output this rate
BITS_PER_CHANNEL = 96_000  # per second; transparent for both codecs
# Fallback channel layouts by channel count, for sources without a layout or with one that the
# encoder rejects. Most films are 5.1(side), but libopus only takes 5.1 with back speakers.
DEFAULT_LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}


class AudioTranscoder:
    """Transcodes one audio stream.

    Gaps in damaged audio are filled with silence, so that the rest stays in sync.

    Args:
        out: The output container.
        stream: The source's audio stream.
        suffix: The suffix of the output file.

    Raises:
        ValueError: If the stream is not audio or has no decoder, or if the container's codec in
            ``CODECS`` is missing or does not accept it.
        FFmpegError: If the encoder cannot be opened.
    """

    def __init__(self, out: Any, stream: Any, suffix: str) -> None:
        source = stream.codec_context  # None if FFmpeg has no decoder
        if stream.type != "audio" or source is None or suffix not in CODECS:
            raise ValueError(f"cannot transcode a {stream.type} stream for {suffix}")
        codec = CODECS[suffix]
        # Choose the format first: a failure after add_stream would leave an unused stream behind.
        rate, layout = _choose_format(codec, source)
        self.stream = out.add_stream(codec, rate=rate, layout=layout)
        self._context = self.stream.codec_context
        self._context.bit_rate = BITS_PER_CHANNEL * self._context.channels
        self._context.open()
        self._input_format: tuple[int, str, str] | None = None
        self._resampler: Any = None  # resamples the input to the encoder's format
        self._gap_filler: Any = None  # fills gaps with silence, cuts frames to the encoder's size

    @property
    def name(self) -> str:
        return str(self._context.codec.canonical_name)

    def feed(self, packet: Any) -> Iterator[Any]:
        """Transcode one packet of the source and yield the packets that are ready."""
        try:
            frames = packet.decode()
        except FFmpegError:  # damaged; _gap_filler adds silence instead
            return
        for frame in frames:
            input_format = (frame.sample_rate, frame.format.name, frame.layout.name)
            if input_format != self._input_format:  # broadcasts switch between stereo and 5.1
                yield from self._resample(None)
                self._input_format, self._resampler = input_format, self._build_graph(frame)
            yield from self._resample(frame)

    def end(self) -> Iterator[Any]:
        """Flush the filters and the encoder, and yield the remaining packets. Call this once."""
        yield from self._resample(None)
        if self._gap_filler is not None:
            self._gap_filler.push(None)
            yield from self._encode_ready()
        yield from self.stream.encode(None)

    def _resample(self, frame: Any) -> Iterator[Any]:
        """Resample a frame and encode what is ready; None flushes the resampler."""
        if self._resampler is None:
            return
        self._resampler.push(frame)
        for resampled in _pull_ready(self._resampler):
            if self._gap_filler is None:
                frame_size = ("asetnsamples", f"n={self._context.frame_size}:p=0")
                self._gap_filler = self._build_graph(resampled, "async=1", frame_size)
            self._gap_filler.push(resampled)
            yield from self._encode_ready()

    def _encode_ready(self) -> Iterator[Any]:
        for frame in _pull_ready(self._gap_filler):
            yield from self.stream.encode(frame)

    def _build_graph(self, frame: Any, options: str | None = None, *more: tuple[str, str]) -> Any:
        """Build a filter graph that converts a frame's format to the encoder's.

        Args:
            frame: A frame in the input format.
            options: Options of the aresample filter; "async=1" fills gaps with silence.
            more: Name and options of further filters.
        """
        context = self._context
        output_format = (
            f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
            f":channel_layouts={context.layout.name}"
        )
        graph = Graph()
        nodes = (
            graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format.name,
                              layout=frame.layout.name, time_base=frame.time_base),
            graph.add("aresample", options),
            graph.add("aformat", output_format),
            *(graph.add(*filter_) for filter_ in more),
            graph.add("abuffersink"),
        )  # fmt: skip
        graph.link_nodes(*nodes).configure()
        return graph


def _pull_ready(graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):
            return


def _choose_format(codec: str, source: Any) -> tuple[int, str]:
    """Choose the sample rate and channel layout that a codec accepts and that suit the source best.

    Raises:
        ValueError: If the codec accepts no layout that the source can be converted to.
    """
    rates = [OPUS_RATE] if codec == "libopus" else sorted(av.Codec(codec, "w").audio_rates or ())
    rate = next((candidate for candidate in rates if candidate >= source.sample_rate), rates[-1])
    name, default = AudioLayout(source.layout.name).name, DEFAULT_LAYOUTS.get(source.channels)
    unplaced = name.endswith("channels")  # channels without positions cannot be mixed down
    for layout in (None if unplaced else name, default, None if unplaced else "stereo"):
        if layout and _accepts(codec, rate, layout):
            return rate, layout
    raise ValueError(f"{codec} cannot encode {name} audio at {source.sample_rate} Hz")


def _accepts(codec: str, rate: int, layout: str) -> bool:
    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout = rate, layout
    context.format = context.codec.audio_formats[0]
    try:
        context.open()
    except FFmpegError:
        return False
    return True
