"""Write a model as a network for other programs: ONNX, or TorchScript for Nuke's Inference node.

The network takes aligned crops and returns swapped faces, each as one tensor. Everything that does
not depend on a frame is a part of it: the sampling of the network crop, the colour shift, likeness
and expression range, the refiner and the mask. Photos of the model are not: their detail is laid
over faces with the landmarks of each frame, which one tensor does not hold.
"""

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from faceswap.config import ExportConfig
from faceswap.errors import ModelError, OutputError, SettingsError
from faceswap.files import atomic_write, sha256_of, writing
from faceswap.models import modelfile
from faceswap.models.architectures import ModelConfig
from faceswap.models.autoencoder import SOFT_LIMIT, Autoencoder
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import network_crop, output_to_crop
from faceswap.provenance.consent import in_words

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 18  # of the ONNX operators; ONNX Runtime reads it since 1.14
NOTES, VERSION = "faceswap.json", 1  # the file in a TorchScript archive, and its format
INPUT, OUTPUT = "crops", "faces"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An exported network."""

    output: Annotated[Path, Meta(description="The file that was written.")]
    format: Annotated[str, Meta(description="onnx or torchscript.")]
    input: Annotated[list[int], Meta(description="Channels, height and width of a crop.")]
    channels: Annotated[int, Meta(description="Channels of a face: RGB, and the mask if 4.")]
    side: Annotated[int, Meta(description="Side of a face in pixels.")]
    largest_difference: Annotated[
        float, Meta(description="From this program's own network, on noise, in [0, 1].")
    ]


class SwapNetwork(nn.Module):
    """Map aligned crops (B, 3, S, S) to faces of the other identity, (B, 3 or 4, N, N), in [0, 1].

    S is the ``crop_size`` of the model. The fourth channel is the mask.

    Args:
        trained: The model.
        config: Whose faces are decoded, and how; see :meth:`Autoencoder.swap`.
    """

    sampling: Tensor
    change: Tensor
    source: Tensor
    axes: Tensor
    gain: Tensor
    end: Tensor
    shift: Tensor

    def __init__(self, trained: TrainedModel, config: ExportConfig) -> None:
        super().__init__()
        to, expression_range = config.to, config.expression_range
        network = trained.network
        self.network, self.refiner = network, trained.refiners.get(to)
        self.to_identity, self.limit = to, min(config.identity_strength, 1.0)
        source, target = (0, 1) if to == "b" else (1, 0)
        shift = torch.tensor(trained.color_shift)[None, :, None, None]
        means, covariances = network.means.detach(), network.covariances.detach().double()
        self.is_limited = bool(expression_range) and bool(covariances.any())
        # The same numbers as in Autoencoder._within, which depend on the model only.
        variances, axes = torch.linalg.eigh(covariances[target])
        spread = variances.clamp(min=0).sqrt()
        own = (axes.T @ covariances[source] @ axes).diagonal().clamp(min=0).sqrt()
        for name, value in {
            "sampling": _sampling(network.config),
            "change": config.identity_strength * (means[target] - means[source]),
            "source": means[source],
            "axes": axes,
            "gain": (expression_range * spread / own.clamp(min=1e-12)).clamp(max=1),
            "end": (SOFT_LIMIT * expression_range * spread).clamp(min=1e-9),
            "shift": shift if to == "b" else -shift,
        }.items():
            self.register_buffer(name, value.float())

    def forward(self, crops: Tensor) -> Tensor:
        """Swap faces; see the class."""
        faces = self.sampling @ crops @ self.sampling.T
        if self.to_identity == "b":
            faces = (faces + self.shift).clamp(0, 1)
        code = self.network.to_code(faces)
        changed = code + self.change
        if self.is_limited:
            deviation = code - self.source
            along = deviation @ self.axes * self.gain
            limited = (self.end * torch.tanh(along / self.end)) @ self.axes.T
            changed = changed + self.limit * (limited - deviation)
        decoded = self.network.decode(self._grown(changed), self.to_identity)
        painted, mask = decoded[:, :3], decoded[:, 3:]
        if self.refiner is not None:
            painted = self.refiner(painted).clamp(0, 1)
            if mask.shape[1]:
                size = tuple(painted.shape[-2:])
                mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
        if self.to_identity == "a":
            painted = (painted + self.shift).clamp(0, 1)
        return torch.cat([painted, mask], dim=1) if mask.shape[1] else painted

    def _grown(self, latent: Tensor) -> Tensor:
        """As :meth:`Autoencoder.from_code`, for any number of faces."""
        network = self.network
        flat = network.from_latent(latent)
        channels = flat.shape[1] // network.side**2
        grown: Tensor = network.up(flat.reshape(-1, channels, network.side, network.side))
        return grown


def _sampling(model: ModelConfig) -> Tensor:
    """Return the weights by which lines of a crop are sampled, (size, crop_size).

    A crop that varies from line to line only tells them.
    """
    side = model.crop_size
    lines = torch.zeros(side, 3, side, side, dtype=torch.uint8)
    lines[torch.arange(side), :, torch.arange(side), :] = 255
    return network_crop(lines, model)[:, 0, :, 0].T.contiguous()


def target_of(model: Path, output: Path | None, config: ExportConfig) -> Path:
    """Return the file that a model is exported to.

    Args:
        model: The model's folder or file.
        output: What the user asked for; None for ``<model>-to-b.onnx`` beside the model file.
        config: Settings.
    """
    file = modelfile.file_of(model)
    name = file.parent.resolve().name if file.name == modelfile.MODEL_FILE else file.stem
    return output or file.with_name(f"{name}-to-{config.to}{SUFFIXES[config.format]}")


def export_model(
    model: str | Path, output: str | Path | None = None, config: ExportConfig | None = None,
    terms: dict[str, str] | None = None,
) -> ExportReport:  # fmt: skip
    """Write a model as a network for other programs.

    Args:
        model: The model's folder or file.
        output: The file to write [default: ``<model>-to-b.onnx`` beside the model file].
        config: Settings.
        terms: The terms of the pretrained weights behind the model, by their names.

    Raises:
        ModelError: If there is no such model, it cannot be read, its architecture is a plug-in's,
            or the exported network does not give the same faces.
        OutputError: If the output exists, or cannot be written.
        SettingsError: If a library is not installed.
    """
    config, file = config or ExportConfig(), modelfile.file_of(Path(model))
    target = target_of(Path(model), Path(output) if output else None, config)
    if target.exists() and not config.overwrite:
        raise OutputError(f"{target} exists already; pass --overwrite to replace it")
    trained = modelfile.load(Path(model))
    if type(trained.network) is not Autoencoder:
        raise ModelError(f"{file} has an architecture of a plug-in, which cannot be exported")
    network = SwapNetwork(trained, config).eval()
    side = trained.network.config.crop_size
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(noise)
    notes = _notes(trained, sha256_of(file), config, list(expected.shape), terms or {})
    write = _write_onnx if config.format == "onnx" else _write_torchscript
    with writing(target), atomic_write(target) as temporary:
        difference = write(temporary, network, noise, expected, notes)
    channels, size = expected.shape[1:3]
    return ExportReport(target, config.format, [3, side, side], channels, size, difference)


def _notes(
    trained: TrainedModel, digest: str, config: ExportConfig, shape: list[int],
    terms: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Return what a user of the network has to know, as JSON values."""
    model = trained.network.config
    grown = model.enlarged(shape[-1] // model.size)
    return {
        "format": "faceswap-network", "version": VERSION,
        "input": {
            "name": INPUT, "shape": ["batch", 3, model.crop_size, model.crop_size],
            "values": "sRGB in 0..1, red, green, blue",
            "crop": "aligned by the umeyama similarity of the landmarks, as faceswap extract does",
            "coverage": model.coverage,
        },
        "output": {
            "name": OUTPUT, "shape": ["batch", *shape[1:]],
            "values": "sRGB in 0..1, and the mask as the fourth channel if there are four",
            "to_crop": output_to_crop(grown, model.crop_size).tolist(),
        },
        "names": {"a": trained.names[0], "b": trained.names[1]}, "to": config.to,
        "identity_strength": config.identity_strength,
        "expression_range": config.expression_range,
        "color_shift": list(trained.color_shift), "step": trained.step, "model_sha256": digest,
        "consent": in_words(trained.consent),
        "weights": {name: terms.get(name, "") for name in trained.weights},
        "left_out": "photos' detail, brightening of dark crops, smoothing over time, colour match",
    }  # fmt: skip


def _write_torchscript(
    path: Path, network: SwapNetwork, noise: Tensor, expected: Tensor, notes: dict[str, Any]
) -> float:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch prefers torch.export, which Nuke does not read
        jit: Any = torch.jit  # which is not typed
        traced = jit.trace(network, noise, check_trace=False)
        frozen = jit.freeze(traced)
        jit.save(frozen, str(path), _extra_files={NOTES: json.dumps(notes).encode()})
        loaded = jit.load(str(path), map_location="cpu")
        return _difference([(loaded(noise[:count]), expected[:count]) for count in (1, 2)])


def _write_onnx(
    path: Path, network: SwapNetwork, noise: Tensor, expected: Tensor, notes: dict[str, Any]
) -> float:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed: pip install 'faceswap[export]'"
        ) from error
    told = logging.getLogger("torch.onnx")
    before = told.level
    told.setLevel(logging.ERROR)  # it warns of operators of torchvision, which nothing here needs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about what torch and onnxscript deprecate of each other
        program = torch.onnx.export(
            network, (noise,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes={"crops": {0: torch.export.Dim("batch", min=1, max=1024)}},
        )  # fmt: skip
    told.setLevel(before)
    assert program is not None
    made = program.model_proto
    for key, value in notes.items():
        text = value if isinstance(value, str) else json.dumps(value)
        made.metadata_props.append(onnx.StringStringEntryProto(key=f"faceswap.{key}", value=text))
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pairs = []
    for count in (1, 2):
        (found,) = session.run(None, {INPUT: noise[:count].numpy()})
        pairs.append((torch.from_numpy(found), expected[:count]))
    return _difference(pairs)


def _difference(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference between pairs of faces.

    Raises:
        ModelError: If it would be seen, or the shapes differ.
    """
    largest = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise ModelError(
                f"the exported network returns {tuple(found.shape)}, not {tuple(expected.shape)}"
            )
        largest = max(largest, float((found - expected).abs().max()))
    if not largest <= 1 / 255:
        raise ModelError(f"the exported network differs by {largest:.3g} from this program's own")
    return largest
