"""Safetensors files that carry a JSON header and a SHA-256 of the header and all tensors.

The file is written here rather than by ``safetensors.torch``: ``save_file`` writes to a temporary
file of its own, which a kill would leave behind, and ``save`` holds a second copy of all tensors.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from faceswap.errors import ModelError
from faceswap.files import atomic_write, parse_json, reason, writing

DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
NO_CHECKSUM = "0" * 64  # placeholder until all tensors are written and hashed


class DamagedFileError(ModelError):
    """The file is corrupt, or :func:`write` did not write it."""


def write(
    path: Path, kind: str, version: int, header: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write tensors and a header to a file atomically.

    Args:
        path: The file.
        kind: Name of the file format, such as "faceswap-training".
        version: Version of that format, stored in the header.
        header: JSON-ready values.
        tensors: By name, of the types in ``DTYPES``, on any device and in any memory layout. They
            are stored row-major.

    Raises:
        OutputError: If the file cannot be written. An existing file is kept.
        KeyError: If a tensor has another type.
        TypeError, ValueError: If a header value is not JSON, or not finite.
    """
    text = json.dumps({"version": version} | header, allow_nan=False)
    names = _stored_order(tensors)
    layout: dict[str, Any] = {
        "__metadata__": {"sha256": NO_CHECKSUM, "format": kind, "header": text}
    }
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        layout[name] = {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(layout).encode()
    head += b" " * (-len(head) % 8)  # aligns the tensors
    with atomic_write(path) as temporary, writing(path), temporary.open("wb") as file:
        checksum = hashlib.sha256(_description(kind, text, tensors))
        file.write(len(head).to_bytes(8, "little") + head)
        for name in names:
            data = _bytes_of(tensors[name])  # copies at most one tensor at a time
            checksum.update(data)
            file.write(data)
        file.seek(8 + head.index(NO_CHECKSUM.encode()))
        file.write(checksum.hexdigest().encode())


def read(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file written by :func:`write` and verify its checksum.

    Nothing is unpickled, and the tensors take no more memory than the file has bytes.

    Args:
        path: The file.
        kind: Name of the expected file format.
        version: The newest version that the caller understands.

    Returns:
        The header and the tensors, on the CPU.

    Raises:
        DamagedFileError: If the file is damaged or of another kind.
        ModelError: If it cannot be read, or if a newer program wrote it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise DamagedFileError(f"{path} is not a {kind} file")
            names = file.keys()
            # Clone: the tensors are mapped from the file, and Windows cannot replace a mapped file.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is damaged, or not a safetensors file") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from error
    text = metadata.get("header", "")
    try:
        checksum = hashlib.sha256(_description(kind, text, tensors))
        for name in _stored_order(tensors):
            checksum.update(_bytes_of(tensors[name]))
        header = parse_json(text)
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"{path} has a damaged header: {error}") from error
    if checksum.hexdigest() != metadata.get("sha256") or not isinstance(header, dict):
        raise DamagedFileError(f"{path} is damaged: its checksum does not match")
    found = header.get("version")
    if not isinstance(found, int) or found > version:
        raise ModelError(
            f"{path} has format version {found}; this program reads up to {version}: "
            "update faceswap"
        )
    return header, tensors


def _stored_order(tensors: dict[str, Tensor]) -> list[str]:
    """Sort by descending element size, so that every tensor is aligned to its element size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _description(kind: str, header: str, tensors: dict[str, Tensor]) -> bytes:
    """Return what the checksum covers besides the tensors' data: kind, header and layout."""
    layout = [
        (name, DTYPES[tensors[name].dtype], *tensors[name].shape) for name in _stored_order(tensors)
    ]
    return json.dumps([kind, header, layout]).encode()


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's elements in row-major order as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
