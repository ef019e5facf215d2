#!/usr/bin/env python3
"""Write docs/schemas/*.json, the JSON schemas of what the commands print with --json.

    scripts/tools/schemas.py

The schemas are generated from the dataclasses that the commands print, so they cannot drift apart.
"""

import dataclasses
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from faceswap.cli.doctor import Diagnosis
from faceswap.cli.info import FacesetFacts, ModelFacts, OutputFacts, PhotoFacts, VideoFacts
from faceswap.cli.results import DemoReport, ImportReport, PreviewReport
from faceswap.evaluation.results import EvaluationReport
from faceswap.facesets.extractor import ExtractReport
from faceswap.files import write_bytes
from faceswap.models.export import ExportReport
from faceswap.provenance.credentials import FileCredentials, FileError
from faceswap.swapping.batch import JobReport
from faceswap.swapping.report import ConvertReport, FrameReport
from faceswap.swapping.shards import ShardReport
from faceswap.swapping.turnover import PackageReport
from faceswap.training.trainer import TrainReport
from faceswap.types import Failure

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """What a command prints.

    Attributes:
        description: For people.
        results: The dataclasses that it can print.
        with_error: Whether a result that was printed can also hold an error.
        listed_in: If the results are the items of a list: the key of that list.
        is_file: Whether this is a file that the command writes, which never holds an error.
    """

    description: str
    results: tuple[type, ...]
    with_error: bool = False
    listed_in: str | None = None
    is_file: bool = False


OUTPUTS = {
    "extract": Output("What an extraction did.", (ExtractReport,)),
    "train": Output("The result of a training run.", (TrainReport,)),
    "convert": Output(
        "What a conversion did; with --preview, what its image shows; with --shard, what became of "
        "that part. For several sources, it prints what run prints.",
        (ConvertReport, PreviewReport, ShardReport),
    ),
    "join": Output("What a conversion in shards did.", (ConvertReport,)),
    "package": Output("What a package holds.", (PackageReport,)),
    "run": Output(
        "What became of each source. The error, if any, says how many failed; the process ends "
        "with its exit code, which is that of the first failure.",
        (JobReport,),
        with_error=True,
        listed_in="jobs",
    ),
    "report": Output(
        "The report that convert writes beside its output.", (FrameReport,), is_file=True
    ),
    "evaluate": Output("How good a model's swaps are.", (EvaluationReport,)),
    "info": Output(
        "What a model, a faceset, a video or a photo is and holds, or which conversions can go on.",
        (ModelFacts, FacesetFacts, VideoFacts, PhotoFacts, OutputFacts),
    ),
    "verify": Output(
        "The Content Credentials of each file. The error, if any, is the worst of what was found; "
        "the process ends with its exit code.",
        (FileCredentials, FileError),
        with_error=True,
        listed_in="files",
    ),
    "doctor": Output(
        "What is installed here and whether each stage works.", (Diagnosis,), with_error=True
    ),
    "export": Output("An exported network.", (ExportReport,)),
    "import-checkpoint": Output("The result of importing a classic checkpoint.", (ImportReport,)),
    "demo": Output("The result of the demo.", (DemoReport,)),
}


def schemas() -> dict[str, Schema]:
    """Return the schema of each command."""
    return {command: _schema(command, output) for command, output in OUTPUTS.items()}


def _schema(command: str, output: Output) -> Schema:
    roots = (*output.results, Failure)
    _, components = msgspec.json.schema_components(
        roots, schema_hook=_hook, ref_template="#/$defs/{name}"
    )
    kinds = {kind.__name__: kind for root in roots for kind in _nested(root)}
    definitions = {name: _printed(component, kinds[name]) for name, component in components.items()}
    error = {"error": _reference(Failure)}
    printed = [_reference(kind) for kind in output.results]
    if output.listed_in:  # msgspec cannot express a list of several dataclasses
        items = {"type": "array", "items": {"anyOf": printed}}
        extra = error if output.with_error else {}
        printed = [_object({output.listed_in: items}, extra)]
    elif output.with_error:
        for kind in output.results:
            definitions[kind.__name__]["properties"] |= error
    if output.is_file:
        title = "video.swapped.report.json"
        del definitions[Failure.__name__]
    else:
        title, printed = f"faceswap {command} --json", [*printed, _object(error)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": output.description,
        "anyOf": printed,
        "$defs": dict(sorted(definitions.items())),
    }


def _hook(kind: type) -> Schema:
    """Return the schema of a type that msgspec does not know."""
    if issubclass(kind, Path):
        return {"type": "string"}
    raise NotImplementedError(f"no schema for {kind}")


def _reference(kind: type) -> Schema:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _object(properties: Schema, extra: Schema | None = None) -> Schema:
    """Return the schema of an object with required properties and extra ones that may be absent."""
    return {
        "type": "object",
        "properties": properties | (extra or {}),
        "required": list(properties),
        "additionalProperties": False,
    }


def _printed(component: Schema, kind: type) -> Schema:
    """Turn the schema of what a dataclass accepts into the schema of what is printed.

    Every field is printed, even one with a default, unless it is UNSET; and nothing else is.
    """
    optional = _unset_fields(kind)
    properties = {name: _field(schema) for name, schema in component["properties"].items()}
    for name, keys in _keys(kind).items():
        properties[name]["propertyNames"] = {"enum": keys}
    documentation = inspect.cleandoc(component.get("description", ""))
    return {
        "description": " ".join(documentation.split("\n\n")[0].split()),
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _field(schema: Any) -> Any:
    """Return the schema of a printed value, without its default.

    JSON has no NaN or infinity: to_jsonable() prints null, so any number that is not an integer may
    be null. Alternatives that are plain types become one list of types.
    """
    if isinstance(schema, list):
        return [_field(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _field(value) for key, value in schema.items() if key != "default"}
    if schema.get("type") == "number":
        schema["type"] = ["number", "null"]
    alternatives = schema.get("anyOf", [])
    if alternatives and all(set(alternative) == {"type"} for alternative in alternatives):
        del schema["anyOf"]
        kinds = [kind for one in alternatives for kind in _listed(one["type"])]
        schema["type"] = list(dict.fromkeys(kinds))
    return schema


def _listed(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds


def _nested(hint: Any) -> Iterator[type]:
    """Yield the dataclasses that a type consists of, itself included."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
        for inner in get_type_hints(hint).values():
            yield from _nested(inner)
    for argument in get_args(hint):
        yield from _nested(argument)


def _keys(kind: type) -> dict[str, list[str]]:
    """Return the keys that the dicts in a dataclass may have, by field.

    msgspec states them from 0.23 on.
    """
    hints = {name: get_args(hint) for name, hint in get_type_hints(kind).items()}
    return {
        name: sorted(get_args(arguments[0]))
        for name, arguments in hints.items()
        if arguments and get_origin(arguments[0]) is Literal
    }


def _unset_fields(kind: Any) -> set[str]:
    """Return the fields that are left out of the JSON by default."""
    return {field.name for field in dataclasses.fields(kind) if field.default is msgspec.UNSET}


def main() -> None:
    """Write the schemas."""
    for command, schema in schemas().items():
        write_bytes(FOLDER / f"{command}.json", (json.dumps(schema, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
