"""Say what a file or folder is: a model, a faceset, a video or a photo."""

from pathlib import Path
from typing import Any

from faceswap.errors import InputError, NoCredentialsError
from faceswap.faces import faceset
from faceswap.media import photos, reader
from faceswap.models import modelfile
from faceswap.provenance import consent, credentials

Facts = dict[str, Any]


def inspect(path: str | Path) -> Facts:
    """What a model, a faceset, a video or a photo holds, as JSON-ready values.

    Returns:
        ``kind`` (model, faceset, video, photo), ``path``, ``bytes`` and what each kind has to say.

    Raises:
        InputError: If nothing is there, or it is none of these.
        ModelError: If it is a damaged model.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or (path / modelfile.MODEL_FILE).is_file():
        return _model(path)
    for folder in (path, path / "faces"):
        if (folder / faceset.INDEX).is_file():
            return _faceset(folder)
    kind = reader.kind_of(path)
    if kind == "folder":
        raise InputError(
            f"{path} is neither a model ({modelfile.MODEL_FILE}) nor a faceset ({faceset.INDEX}); "
            "give one of them, a video or a photo"
        )
    facts = reader.describe_video(path) if kind == "video" else _photo(path)
    facts["provenance"] = _provenance(path)
    return {"kind": kind, "path": str(path), "bytes": path.stat().st_size} | facts


def _provenance(path: Path) -> Facts | None:
    """What a file's Content Credentials say in short; ``faceswap verify`` tells all."""
    try:
        found = credentials.read(path)
    except (InputError, NoCredentialsError):  # another library's: it reads fewer formats
        return None
    return {
        "intact": found.intact, "made_by": found.generator,
        "made_from": found.parent.title if found.parent else None,
        "model": found.model.name if found.model else None,
    }  # fmt: skip


def _model(path: Path) -> Facts:
    trained = modelfile.load(path)
    file = path if path.is_file() else path / modelfile.MODEL_FILE
    config = trained.network.config
    return {
        "kind": "model", "path": str(file), "bytes": file.stat().st_size, "names": trained.names,
        "architecture": config.name, "size": config.size, "mask": config.mask_head,
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "steps": trained.step,
        "held_out": {key: len(faces) for key, faces in trained.held_out.items()},
        "centroids": bool(trained.centroids),
        "consent": consent.in_words(trained.consent),
    }  # fmt: skip


def _faceset(folder: Path) -> Facts:
    index = folder / faceset.INDEX
    header, records = faceset.read_header(index), list(faceset.read_records(index))
    crops = [folder / record["file"] for record in records if (folder / record["file"]).is_file()]
    return {
        "kind": "faceset", "path": str(folder),
        "bytes": sum(file.stat().st_size for file in (index, *crops)),
        "faces": len(crops), "deleted": len(records) - len(crops),
        "sources": len({record["source"] for record in records}), "size": header["size"],
        "settings": header["settings"],
    }  # fmt: skip


def _photo(path: Path) -> Facts:
    height, width = photos.read_photo(path).image.shape[:2]
    return {"width": width, "height": height}


def in_words(facts: Facts) -> list[str]:
    """Facts as lines for people: a name and a value each, lists and objects spread out."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            lines += [f"{name.rstrip('s')} {i}: {_flat(item)}" for i, item in enumerate(value)]
        else:
            lines.append(f"{name.replace('_', ' ')}: {_flat(value)}")
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
