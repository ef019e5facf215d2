"""One shared encoder and two decoders; the registry of architectures; the model file.

A model takes float RGB in [0, 1], (B, 3, size, size), and gives the same, with a mask as a fourth
channel if it has a mask head. Its file is safetensors, so loading runs no code, and its header
carries all that conversion must know.
"""

import io
import json
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from faceswap.config import DeviceName, ModelConfig, ModelName
from faceswap.consent import Notes, in_words, read_notes
from faceswap.errors import DeviceError, FaceswapError, ModelError
from faceswap.files import parse_json, write_bytes
from faceswap.settings import read_json
from faceswap.types import Descriptor

Identity = Literal["a", "b"]
DIRECTIONS: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))  # footage, new face

FORMAT, VERSION = "faceswap-model", 1
MODEL_FILE = "model.safetensors"
MAX_WORD = 4096  # bytes of a name in a file of torch


class Downscale(nn.Module):
    """Halve the side: 5x5 convolution of stride 2, LeakyReLU 0.1.

    Padding "same" as TensorFlow does it: of the 3 rows that an even side needs, 1 goes before and
    2 after.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / 2, W / 2)."""
        return F.leaky_relu(self.conv(F.pad(x, (1, 2, 1, 2))), 0.1, inplace=True)


class Upscale(nn.Module):
    """Double the side: 3x3 convolution to 4x the channels, LeakyReLU 0.1, pixel shuffle.

    The shuffle reads channel (r * 2 + c) * C_out + c_out for row r, column c: depth-to-space as
    TensorFlow orders it, not as torch's PixelShuffle does.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, 2 H, 2 W)."""
        return depth_to_space(F.leaky_relu(self.conv(x), 0.1, inplace=True))


def depth_to_space(x: Tensor) -> Tensor:
    """(B, 4 C, H, W) -> (B, C, 2 H, 2 W), channel index = (row * 2 + column) * C + c."""
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return x.permute(0, 3, 1, 2)  # channels_last, as the next convolution wants it


class Autoencoder(nn.Module):
    """A shared encoder and a decoder for each of the identities a and b.

    encoder  n Downscales, Linear to the latent, Linear back, one Upscale
    decoder  n - 1 Upscales, 5x5 convolution to 3 channels (4 with a mask head), sigmoid

    ``means`` (2, latent) holds the mean latent of a's and of b's faces: the difference is what a's
    looks leave in the latent, and :meth:`swap` takes it out. Zero until training measures it.
    """

    means: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths, ups = config.encoder_widths, config.decoder_widths
        self.side = config.size // 2 ** len(widths)
        flat = widths[-1] * self.side**2
        self.down = nn.Sequential(
            *(Downscale(i, o) for i, o in zip((3, *widths), widths, strict=False))
        )
        self.to_latent = nn.Linear(flat, config.latent)
        self.from_latent = nn.Linear(config.latent, flat)
        self.up = Upscale(widths[-1], ups[0])
        self.channels = 4 if config.mask_head else 3
        self.decoders = nn.ModuleDict({key: _decoder(ups, self.channels) for key in ("a", "b")})
        self.register_buffer("means", torch.zeros(2, config.latent))

    def to_code(self, images: Tensor) -> Tensor:
        """Images (B, 3, size, size) -> the bottleneck vector, (B, latent)."""
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        return cast(Tensor, self.to_latent(self.down(images).flatten(1)))

    def from_code(self, latent: Tensor) -> Tensor:
        """The bottleneck vector (B, latent) -> what both decoders read, (B, C, 2 side, 2 side)."""
        x = self.from_latent(latent)
        return cast(Tensor, self.up(x.view(len(x), -1, self.side, self.side)))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, size, size) -> what both decoders read, (B, C, 2 side, 2 side)."""
        return self.from_code(self.to_code(images))

    def decode(self, code: Tensor, identity: Identity) -> Tensor:
        """What :meth:`encode` gave -> one identity's images, (B, C, size, size).

        C is 3, or 4 with a mask head: the last channel then is 1 where the face is.
        """
        painted: Tensor = self.decoders[identity](code)
        if self.config.channel_order == "bgr":
            painted = torch.cat([painted[:, :3].flip(1), painted[:, 3:]], dim=1)
        return painted

    def forward(self, images: Tensor, identity: Identity) -> Tensor:
        """Images as one identity's decoder paints them: see :meth:`decode`."""
        return self.decode(self.encode(images), identity)

    def swap(self, images: Tensor, to: Identity, likeness: float) -> Tensor:
        """The other identity's images as ``to``'s decoder paints them: see :meth:`decode`.

        Args:
            images: Faces of the identity that is not ``to``, (B, 3, size, size).
            to: Whose face to paint.
            likeness: Share of the difference between the two mean latents to add: 0 leaves the
                latent alone, 1 makes the average face of one person the average of the other.
        """
        toward_b = self.means[1] - self.means[0]
        change = likeness * (toward_b if to == "b" else -toward_b)
        return self.decode(self.from_code(self.to_code(images) + change), to)

    @torch.no_grad()
    def measure_means(self, faces: dict[Identity, Iterable[Tensor]]) -> None:
        """Set ``means`` from batches (B, 3, size, size) of each identity's faces."""
        for row, key in enumerate(sorted(faces)):
            codes = torch.cat([self.to_code(batch) for batch in faces[key]])
            self.means[row] = codes.mean(dim=0)


def _decoder(ups: tuple[int, ...], channels: int) -> nn.Sequential:
    doublings = (Upscale(i, o) for i, o in pairwise(ups))
    return nn.Sequential(*doublings, nn.Conv2d(ups[-1], channels, 5, padding=2), nn.Sigmoid())


MODELS: dict[ModelName, type[Autoencoder]] = {
    "original": Autoencoder, "small": Autoencoder, "medium": Autoencoder, "large": Autoencoder,
}  # fmt: skip


def build(config: ModelConfig) -> Autoencoder:
    """A new model of the architecture that ``config`` names, with random weights."""
    return MODELS[config.name](config)


def resolve_device(name: DeviceName) -> torch.device:
    """The device of that name; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: If this machine does not have it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((known for known, there in available.items() if there), "cpu"))
    if not available.get(name, True):
        raise DeviceError(f"device {name} is not available here; use --device auto or cpu")
    return torch.device(name)


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware, faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # oneDNN emulates bfloat16, some fifty times slower, where the processor lacks it and where
    # ONEDNN_MAX_CPU_ISA forbids it; the processor's own list knows nothing of the latter.
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model and what conversion must know of its training.

    Attributes:
        network: The weights.
        names: The names of identities a and b.
        color_shift: Mean colour of b's faces minus that of a's, RGB in [0, 1]: training adds it to
            a's faces, so conversion does the same.
        step: Training steps done.
        held_out: By identity, the keys of faces that training has not seen.
        centroids: By identity, the mean descriptor of its faces, (128,); empty if not known.
        consent: By identity, who consented to what; empty if not stated.
    """

    network: Autoencoder
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    step: int
    held_out: dict[Identity, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    centroids: dict[Identity, Descriptor] = field(default_factory=dict)
    consent: Notes = field(default_factory=lambda: {"a": "", "b": ""})


def save(path: Path, trained: TrainedModel) -> None:
    """Write a model file in one step.

    Raises:
        OutputError: If the disk refuses.
    """
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "model": json.dumps(trained.network.config.to_dict()),
        "names": json.dumps(trained.names),
        "color_shift": json.dumps(trained.color_shift),
        "step": str(trained.step),
        "held_out": json.dumps(trained.held_out),
        "centroids": json.dumps({key: c.tolist() for key, c in trained.centroids.items()}),
        "consent": json.dumps(trained.consent),
    }
    state = {key: value.detach().cpu() for key, value in trained.network.state_dict().items()}
    write_bytes(path, serialize({k: v.contiguous() for k, v in state.items()}, metadata=header))


def load(folder: Path, device: torch.device | None = None) -> TrainedModel:
    """Read a model folder (or the model file itself).

    Raises:
        ModelError: If there is none, it is broken, not ours, or made by a newer version.
    """
    path = folder if folder.is_file() else folder / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"{folder} holds no model ({MODEL_FILE}); train one: faceswap train")
    try:
        with safe_open(path, framework="pt") as file:
            trained = _from_header(path, file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    state.setdefault("means", torch.zeros(2, trained.network.config.latent))  # not in the first's
    try:
        for key, value in state.items():
            if value.dtype != torch.float32 or not value.isfinite().all():
                raise ValueError(f"{key} is not all finite float32 numbers")
        trained.network.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path}: its weights do not fit the model that its header describes"
        ) from error
    trained.network.to(device or torch.device("cpu")).eval()
    return trained


def consent_of(path: Path) -> list[str]:
    """What a model file notes of each person's consent, a text each.

    Raises:
        ModelError: If it is not a model file of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            trained = _from_header(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    notes = in_words(trained.consent).values()
    return [f"consent of {name}: {note}" for name, note in zip(trained.names, notes, strict=True)]


def _from_header(path: Path, header: dict[str, str]) -> TrainedModel:
    if header.get("format") != FORMAT:
        raise ModelError(f"{path} is a tensor file, but not a model of this program")
    version = header.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise ModelError(
            f"{path} has format version {version or 'unknown'}; this program reads up to "
            f"{VERSION}: update faceswap"
        )
    try:
        config = ModelConfig.from_dict(read_json(header["model"]))
        names, shift = parse_json(header["names"]), parse_json(header["color_shift"])
        with torch.device("meta"):  # no memory yet: a few bytes can describe a net of terabytes
            network = build(config)
        if len(names) != 2 or len(shift) != 3:
            raise ValueError("two names and three colour values are needed")
        held = parse_json(header.get("held_out", '{"a": [], "b": []}'))
        return TrainedModel(
            network,
            (str(names[0]), str(names[1])),
            (float(shift[0]), float(shift[1]), float(shift[2])),
            int(header["step"]),
            {"a": [str(key) for key in held["a"]], "b": [str(key) for key in held["b"]]},
            read_centroids(parse_json(header.get("centroids", "{}"))),
            read_notes(parse_json(header.get("consent", "{}"))),
        )
    except (KeyError, TypeError, ValueError, FaceswapError) as error:
        raise ModelError(f"{path} has a broken header: {error}") from error


def read_centroids(values: Any) -> dict[Identity, Descriptor]:
    """Mean descriptors by identity, checked; empty if there are none.

    Raises:
        KeyError: If one identity has none.
        TypeError, ValueError: If one is not 128 finite numbers.
    """
    identities: tuple[Identity, ...] = ("a", "b") if values else ()
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused
        found = {key: np.asarray(values[key], np.float32) for key in identities}
    for key, centroid in found.items():
        if centroid.shape != (128,) or not np.isfinite(centroid).all():
            raise ValueError(f"the centroid of {key} must be 128 finite numbers")
    return found


def is_whole_archive(path: Path) -> bool:
    """Whether a file of :func:`torch.save` is as it was written: torch does not check its sums.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.filelist)
            whole = stored and archive.testzip() is None
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return whole and all(is_tame(io.BytesIO(archive.read(name))) for name in pickles)
        except Exception:  # zipfile raises many kinds for a file that is none
            return False


def is_tame(file: IO[bytes], count: int = 1) -> bool:
    """Whether pickles hold short words only: torch searches long ones for minutes.

    Args:
        file: Where they begin; nothing is unpickled.
        count: How many, one after the other.
    """
    try:
        return all(
            not isinstance(argument, str | bytes) or len(argument) <= MAX_WORD
            for _ in range(count)
            for _, argument, _ in pickletools.genops(file)
        )
    except Exception:  # of many kinds, where it is no pickle
        return False


def newest(models: Path) -> Path:
    """The folder of the most recently written model below ``models``.

    Raises:
        ModelError: If there is none.
    """
    found = list(models.glob(f"*/{MODEL_FILE}"))
    if not found:
        raise ModelError(f"no model in {models}; train one (faceswap train) or give --model DIR")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
