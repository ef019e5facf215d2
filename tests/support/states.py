"""Read and forge resume states, in today's format and in the one before."""

import torch

from faceswap.models import tensorfile
from faceswap.training import checkpoint


def read(path):
    """Header and tensors of a resume state."""
    return tensorfile.read(path, checkpoint.FORMAT, checkpoint.VERSION)


def forge(path, header=None, tensors=None):
    """Change parts of a resume state; its checksum is right again."""
    old_header, old_tensors = read(path)
    changed = old_tensors | (tensors or {})
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    tensorfile.write(path, checkpoint.FORMAT, checkpoint.VERSION, old_header | (header or {}), kept)


def write_old(folder, **changes):
    """Replace a run's resume state by the same one as earlier versions wrote it, a resume.pt."""
    state = checkpoint.read_state(folder)
    content = {
        "version": 1,
        "model": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in state.model.to_dict().items()
        },
        "names": list(state.names),
        "color_shift": list(state.color_shift),
        "held_out": state.held_out,
        "step": state.step,
        "seconds": state.seconds,
        "network": state.network,
        "optimizer": state.optimizer,
        "generator": state.generator,
        "orders": state.orders,
        "rate": state.lr_scale,
        "scores": state.scores,
        "average": state.average,
        "centroids": {key: centroid.tolist() for key, centroid in state.centroids.items()},
        "consent": state.consent,
    }
    path = folder / checkpoint.OLD_RESUME_FILE
    torch.save(content | changes, path)
    (folder / checkpoint.RESUME_FILE).unlink()
    return path
