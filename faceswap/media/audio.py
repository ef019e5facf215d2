"""Sound that an output's container does not take as it is, coded anew in step with the picture."""

from collections.abc import Iterator
from typing import Any

import av
from av.audio.layout import AudioLayout
from av.error import BlockingIOError, EOFError, FFmpegError  # noqa: A004 - FFmpeg has its own
from av.filter import Graph

CODECS = {".webm": "libopus", ".mp4": "aac", ".m4v": "aac", ".mov": "aac"}
OPUS_RATE = 48000  # the only one that its decoders know
BITS_PER_CHANNEL = 96_000  # a second; neither codec is told from its source at this rate
# What loudspeakers are where the source does not say, or says what a codec does not know, such as
# the 5.1(side) of most films; the codecs' own words for 5.1 are those at the back.
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
    """Codes one track of sound anew.

    Gaps of damaged sound are filled with silence, so that what follows stays in step.

    Args:
        out: The container to be written.
        stream: The source's track.
        suffix: The container's.

    Raises:
        ValueError: If nothing that codes such sound for such a container is known.
    """

    def __init__(self, out: Any, stream: Any, suffix: str) -> None:
        source = stream.codec_context  # None: nobody can decode it
        if stream.type != "audio" or source is None or suffix not in CODECS:
            raise ValueError(f"no codec for {stream.type} in {suffix}")
        codec = CODECS[suffix]
        rate, layout = _accepted(codec, source)  # before the container has a track of no use
        self.stream = out.add_stream(codec, rate=rate, layout=layout)
        self._context = self.stream.codec_context
        self._context.bit_rate = BITS_PER_CHANNEL * self._context.channels
        self._context.open()
        self._form: tuple[int, str, str] | None = None
        self._inlet: Any = None  # from the samples of the moment to the codec's
        self._pacer: Any = None  # from these to whole frames without gaps

    @property
    def name(self) -> str:
        """The codec's name."""
        return str(self._context.codec.canonical_name)

    def feed(self, packet: Any) -> Iterator[Any]:
        """The packets that follow from one of the source's."""
        try:
            frames = packet.decode()
        except FFmpegError:  # damaged: silence takes its place
            return
        for frame in frames:
            form = (frame.sample_rate, frame.format.name, frame.layout.name)
            if form != self._form:  # broadcasts change between stereo and 5.1
                yield from self._converted(None)
                self._form, self._inlet = form, self._filters(frame)
            yield from self._converted(frame)

    def end(self) -> Iterator[Any]:
        """The packets that remain."""
        yield from self._converted(None)
        if self._pacer is not None:
            self._pacer.push(None)
            yield from self._coded()
        yield from self.stream.encode(None)

    def _converted(self, frame: Any) -> Iterator[Any]:
        """Pass a frame on as the codec's samples; None: what its filter still holds."""
        if self._inlet is None:
            return
        self._inlet.push(frame)
        for part in _pulled(self._inlet):
            if self._pacer is None:
                whole = ("asetnsamples", f"n={self._context.frame_size}:p=0")
                self._pacer = self._filters(part, "async=1", whole)
            self._pacer.push(part)
            yield from self._coded()

    def _coded(self) -> Iterator[Any]:
        for frame in _pulled(self._pacer):
            yield from self.stream.encode(frame)

    def _filters(self, frame: Any, pace: str | None = None, *more: tuple[str, str]) -> Any:
        """From samples such as a frame's to those that the codec takes."""
        context = self._context
        form = (
            f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
            f":channel_layouts={context.layout.name}"
        )
        graph = Graph()
        nodes = (
            graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format.name,
                              layout=frame.layout.name, time_base=frame.time_base),
            graph.add("aresample", pace),
            graph.add("aformat", form),
            *(graph.add(*filter_) for filter_ in more),
            graph.add("abuffersink"),
        )  # fmt: skip
        graph.link_nodes(*nodes).configure()
        return graph


def _pulled(graph: Any) -> Iterator[Any]:
    """The frames that are ready."""
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):
            return


def _accepted(codec: str, source: Any) -> tuple[int, str]:
    """The rate and the loudspeakers nearest to the source's that a codec takes.

    Raises:
        ValueError: If it takes none.
    """
    rates = [OPUS_RATE] if codec == "libopus" else sorted(av.Codec(codec, "w").audio_rates or ())
    rate = next((known for known in rates if known >= source.sample_rate), rates[-1])
    named, usual = AudioLayout(source.layout.name).name, DEFAULT_LAYOUTS.get(source.channels)
    unknown = named.endswith("channels")  # without places: not to be mixed down
    for layout in (None if unknown else named, usual, None if unknown else "stereo"):
        if layout and _opens(codec, rate, layout):
            return rate, layout
    raise ValueError(f"{codec} takes no sound of {named} at {source.sample_rate} Hz")


def _opens(codec: str, rate: int, layout: str) -> bool:
    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout = rate, layout
    context.format = context.codec.audio_formats[0]
    try:
        context.open()
    except FFmpegError:
        return False
    return True
