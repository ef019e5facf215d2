"""Sound that an output's container does not take as it is, coded anew in step with the picture."""

from collections.abc import Iterator
from typing import Any

from av.audio.layout import AudioLayout
from av.error import BlockingIOError, EOFError, FFmpegError  # noqa: A004 - FFmpeg's own
from av.filter import Graph

CODECS = {".webm": "libopus", ".mp4": "aac", ".m4v": "aac", ".mov": "aac"}
OPUS_RATE = 48000  # the only one that its decoders know
BITS_PER_CHANNEL = 96_000  # a second; neither codec is told from its source at this rate


class Recoder:
    """Codes one track of sound anew.

    Gaps of damaged sound are filled with silence, so that what follows stays in step.

    Args:
        out: The container to be written.
        stream: The source's track.
        suffix: The container's.

    Raises:
        ValueError: If nothing that codes sound for such a container is known.
        FFmpegError: If it cannot be coded.
    """

    def __init__(self, out: Any, stream: Any, suffix: str) -> None:
        if stream.type != "audio" or suffix not in CODECS:
            raise ValueError(f"no codec for {stream.type} in {suffix}")
        codec, source = CODECS[suffix], stream.codec_context
        rate = OPUS_RATE if codec == "libopus" else source.sample_rate
        named = AudioLayout({1: "mono", 2: "stereo"}.get(source.channels, source.layout.name))
        self.stream = out.add_stream(codec, rate=rate, layout=named.name)
        self._context = self.stream.codec_context
        self._context.bit_rate = BITS_PER_CHANNEL * source.channels
        self._context.open()
        self._graph: Any = None

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
            if self._graph is None:
                self._graph = self._filters(frame)
            self._graph.push(frame)
            yield from self._coded()

    def end(self) -> Iterator[Any]:
        """The packets that remain."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._coded()
        yield from self.stream.encode(None)

    def _coded(self) -> Iterator[Any]:
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            yield from self.stream.encode(frame)

    def _filters(self, frame: Any) -> Any:
        """From the source's samples to frames that the codec takes."""
        context = self._context
        form = (
            f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}"
            f":channel_layouts={context.layout.name}"
        )
        graph = Graph()
        nodes = (
            graph.add_abuffer(sample_rate=frame.sample_rate, format=frame.format.name,
                              layout=frame.layout.name, time_base=frame.time_base),
            graph.add("aresample", f"{context.sample_rate}:async=1"),
            graph.add("aformat", form),
            graph.add("asetnsamples", f"n={context.frame_size}:p=0"),
            graph.add("abuffersink"),
        )  # fmt: skip
        graph.link_nodes(*nodes).configure()
        return graph
