"""Choose the device that computes, and the number type that it multiplies fast."""

import torch

from faceswap.config import DeviceName
from faceswap.errors import DeviceError


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
