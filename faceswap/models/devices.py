"""Choose the compute device, and the number format in which it multiplies."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from faceswap.config import DeviceName
from faceswap.errors import DeviceError
from faceswap.parallel import cores


def resolve_device(name: DeviceName) -> torch.device:
    """Resolve a device name; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        DeviceError: If this machine does not have the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind, is_there in available.items() if is_there), "cpu"))
    if not available.get(name, True):
        raise DeviceError(f"device {name} is not available here; use --device auto or cpu")
    return torch.device(name)


def fast_type(device: torch.device) -> torch.dtype:
    """Return the number format in which a device multiplies fast and a network can be trained."""
    if is_fast_in_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, faster than float32.

    Only CUDA devices and CPUs are checked; the result is False for all others.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # oneDNN emulates bfloat16, about fifty times slower, if the processor lacks it or
    # ONEDNN_MAX_CPU_ISA disables it. The capability list below ignores that variable.
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def in_precision(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return a context in which a network's products are computed in a number format."""
    if precision == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, precision)


def threads_to_render() -> int:
    """Return the number of threads in which torch renders; the other cores detect and encode."""
    return min(max(cores() // 2, 1), torch.get_num_threads())


@contextmanager
def rendering_threads(count: int) -> Iterator[None]:
    """Let torch compute in a number of threads.

    The number changes the last digits of a network's result, so all parts of a conversion must be
    rendered with the same one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
