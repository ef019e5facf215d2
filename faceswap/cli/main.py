"""The command line: options out of the settings classes, progress, errors in one line.

With :mod:`printing` and :mod:`progress` the only place that prints or exits. Each command imports
its stage when it runs, so that ``faceswap --help`` loads neither torch nor dlib nor cv2.
"""

import json
import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from faceswap.cli import text
from faceswap.cli.options import PATH, landmarks_option, resolve, settings_options
from faceswap.cli.output import (
    INTERRUPTED,
    echo,
    echo_err,
    error_boundary,
    is_rank_zero,
    json_option,
    report_and_exit,
    show,
    to_jsonable,
)
from faceswap.cli.progress import reporting
from faceswap.config import ConvertConfig, EvaluateConfig, ExtractConfig, TrainConfig, identity_name
from faceswap.faces import pool


class _OneLine(logging.Handler):
    """Warnings of the stages, a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        echo_err(f"faceswap: warning: {record.getMessage()}")


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's form
    """End on SIGTERM as on Ctrl-C: with everything so far kept and nothing left behind."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: run the command line; see :func:`printing.error_boundary` for its end."""
    handler = _OneLine(logging.WARNING)
    logger = logging.getLogger("faceswap")
    logger.addHandler(handler)
    logger.propagate = False
    signal.signal(signal.SIGTERM, _interrupt)
    with error_boundary():
        cli(standalone_mode=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="faceswap", prog_name="faceswap")
def cli() -> None:
    """Swap faces in photos and video.

    \b
    faceswap extract data/trump            find and align the faces of one person
    faceswap train --a trump --b cage      teach a model both faces
    faceswap convert video.mp4             put b's face onto a's footage
    faceswap verify video.swapped.mp4      read what it was made from, and with what
    faceswap demo                          see it all work without any data

    Exit codes: 0 done, 1 bug, 2 usage, 3 bad input, 4 no or too few faces, 5 bad model,
    6 cannot write, 7 bad setting, 8 training diverged, 9 altered, 10 uncredited,
    11 not ready, 12 busy, 13 device or memory, 130 interrupted.
    """  # noqa: D301 - click wants the control character itself


@cli.command()
@click.argument("source", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Faceset folder  [default: SOURCE/faces, or data/<name>/faces for a single file]",
)
@settings_options(ExtractConfig)
@landmarks_option
@json_option
def extract(
    source: Path, output: Path | None, config_file: Path | None, as_json: bool, **flags: Any
) -> None:
    """Find every face of SOURCE (photo, video or folder), align it and store its crop.

    Run it again to continue: files already done are skipped.
    """
    settings = resolve(ExtractConfig, "extract", config_file, flags)
    pool.start_early()
    from faceswap.faces import extractor

    with reporting() as on_progress:
        report = extractor.extract(source, output, settings, on_progress)
    show(as_json, to_jsonable(report), text.extraction(report))


@cli.command()
@click.option("--a", required=True, help="Identity a: a name (data/<name>/faces) or a folder.")
@click.option("--b", required=True, help="Identity b: a name (data/<name>/faces) or a folder.")
@click.option("-o", "--output", type=PATH, help="Model folder  [default: models/<a>-<b>]")
@settings_options(TrainConfig)
@landmarks_option
@json_option
def train(
    a: str, b: str, output: Path | None, config_file: Path | None, as_json: bool, **flags: Any
) -> None:
    """Train a model on the faces of a and b, until --steps, --minutes or Ctrl-C.

    Run it again to continue.
    """
    settings = resolve(TrainConfig, "train", config_file, flags)
    folder_a, folder_b = faces_folder(a), faces_folder(b)
    folder = output or Path("models", f"{identity_name(folder_a)}-{identity_name(folder_b)}")
    from faceswap.training import trainer

    with reporting() as on_progress:
        report = trainer.train(folder_a, folder_b, folder, settings, on_progress)
    if not is_rank_zero():
        return
    show(as_json, to_jsonable(report), text.training(report))
    if report.interrupted:
        echo_err("interrupted and saved; run the same command to continue")
        sys.exit(INTERRUPTED)


def faces_folder(name: str) -> Path:
    """A bare name means ``data/<name>/faces``; anything else is a path, to it or to its parent."""
    path = Path(name)
    bare = path.name == name and name not in (".", "..")
    if bare and (Path("data", name).is_dir() or not path.is_dir()):
        path = Path("data", name)
    if (path / "faces.jsonl").is_file() or path.name == "faces":
        return path
    return path / "faces"


@cli.command()
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, help="Output  [default: SOURCE.swapped.*, beside it]")
@click.option("--model", type=PATH, help="Model folder  [default: the newest in models/]")
@click.option("--preview", type=click.IntRange(1, 200), help="Only a picture of N frames swapped.")
@settings_options(ConvertConfig)
@landmarks_option
@json_option
def convert(
    source: Path, output: Path | None, model: Path | None, preview: int | None,
    config_file: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Swap the faces of SOURCE: a video, a photo or a folder of photos; the same comes out."""
    settings = resolve(ConvertConfig, "convert", config_file, flags)
    pool.start_early()
    from faceswap.models.modelfile import newest
    from faceswap.swapping import converter

    if model is None and not settings.cast:
        model = newest(Path("models"))
        echo(f"model: {model}", as_json)
    used = {"model": model}
    if preview:
        sheet = output or source.with_suffix(".preview.png")
        shown = converter.contact_sheet(source, sheet, preview, model, settings)
        facts = used | {"output": sheet, "frames": preview, "with_face": shown}
        words = f"{sheet}: original, swap and mask of {preview} frames, {shown} with a face"
        show(as_json, facts, [words])
        return
    with reporting() as on_progress:
        report = converter.convert(source, output, model, settings, on_progress)
    show(as_json, used | to_jsonable(report), text.conversion(report))


@cli.command()
@click.argument("model", type=PATH)
@click.option("--a", required=True, help="Identity a: a name (data/<name>/faces) or a folder.")
@click.option("--b", required=True, help="Identity b: a name (data/<name>/faces) or a folder.")
@click.option("--clip", type=PATH, help="Footage of a: measure flicker on it too.")
@click.option("--save-json", type=PATH, help="Write the numbers to this file too.")
@click.option("--html", "html_file", type=PATH, help="Write a page of numbers and pictures too.")
@settings_options(EvaluateConfig)
@landmarks_option
@json_option
def evaluate(
    model: Path, a: str, b: str, clip: Path | None, save_json: Path | None,
    html_file: Path | None, config_file: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Measure MODEL on the faces that its training held out."""
    settings = resolve(EvaluateConfig, "evaluate", config_file, flags)
    from faceswap.evaluation import evaluator
    from faceswap.files import write_bytes

    with reporting() as on_progress:
        report = evaluator.evaluate(
            model, faces_folder(a), faces_folder(b), settings, on_progress,
            clip=clip, html=html_file,
        )  # fmt: skip
    if save_json:
        write_bytes(save_json, (json.dumps(to_jsonable(report), indent=1) + "\n").encode())
    show(as_json, report, text.evaluation_table(report))


@cli.command()
@click.argument("path", type=PATH)
@json_option
def info(path: Path, as_json: bool) -> None:
    """Say what PATH is and holds: a model, a faceset, a video or a photo."""
    from faceswap.cli import info

    facts = info.inspect(path)
    show(as_json, facts, info.in_words(facts))


@cli.command()
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("--trust", type=PATH, help="Certificates of signers or authorities to trust (PEM).")
@json_option
def verify(files: tuple[Path, ...], trust: Path | None, as_json: bool) -> None:
    """Say what FILES were made from and with what, and whether they were altered since.

    Exit code: 0 if all are as they were signed, 9 if one was altered, else 10 if one has no
    credentials, else 3 if one cannot be read.
    """
    from faceswap.provenance import credentials

    result = credentials.verify(files, trust)
    report_and_exit(as_json, {"files": result.facts}, text.verification(result), result.worst)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what is installed here, and try each stage on something small.

    Exit code: 0 if all is well, else 11.
    """
    from faceswap.cli import doctor

    facts = doctor.run_checks()
    report_and_exit(as_json, facts, doctor.in_words(facts), doctor.status(facts))


@cli.command("import-checkpoint")
@click.argument("checkpoint", type=PATH)
@click.argument("folder", type=PATH)
@json_option
def import_checkpoint(checkpoint: Path, folder: Path, as_json: bool) -> None:
    """Turn a classic CHECKPOINT (autoencoder.t7) into a model FOLDER."""
    from faceswap.models import classic

    trained = classic.import_checkpoint(checkpoint, folder)
    facts = {"folder": folder, "model": trained.network.config.name, "epoch": trained.step}
    show(as_json, facts, [f"{folder}: model '{facts['model']}', epoch {trained.step}, BGR"])


@cli.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("demo"),
    show_default=True,
    help="Folder for everything the demo makes.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.05),
    default=2.0,
    show_default=True,
    help="Minutes of training.",
)
@json_option
def demo(output: Path, minutes: float, as_json: bool) -> None:
    """Make two identities and a clip from public-domain photos; extract, train, convert them."""
    from faceswap.cli import demo

    began = time.monotonic()
    for title, run in demo.stages(output, minutes):
        echo(title, as_json)
        with reporting() as on_progress:
            run(on_progress)
    facts = {
        "seconds": time.monotonic() - began,
        "video": output / demo.SWAPPED,
        "picture": output / demo.PICTURE,
    }
    lines = [
        f"done in {facts['seconds']:.0f} s",
        f"the swapped video: {facts['video']}",
        f"the picture:       {facts['picture']}",
    ]
    show(as_json, facts, lines)
