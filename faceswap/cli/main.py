"""The commands: each resolves its settings, if it has any, does its work and shows the result.

Each command imports its stage when it runs, so that ``faceswap --help`` loads neither torch nor
dlib nor cv2.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

# numpy's solvers are used for small systems only. Their threads would wait for each other while
# torch and the detectors use the cores. numpy reads this variable when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from faceswap import errors
from faceswap.cli import text
from faceswap.cli.options import (
    PATH,
    GroupedCommand,
    GroupedOption,
    given,
    identity_option,
    redo_option,
    resolve,
    settings_options,
)
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
from faceswap.cli.progress import Reporter, reporting
from faceswap.cli.results import DemoReport, ImportReport, PreviewReport
from faceswap.config import (
    IDENTITIES,
    OUTPUT,
    SWAPPED,
    ConvertConfig,
    EvaluateConfig,
    ExportConfig,
    ExtractConfig,
    TrainConfig,
    identity_name,
)
from faceswap.faces import pool
from faceswap.types import counted

if TYPE_CHECKING:
    from faceswap.swapping.batch import Job, JobReport

R = TypeVar("R")  # the report of a stage


class _OneLine(logging.Handler):
    """Print the notes and the warnings of the stages on standard error, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note" if record.levelno < logging.WARNING else "warning"
        echo_err(f"faceswap: {kind}: {record.getMessage()}")


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    """Treat SIGTERM like Ctrl-C, so that finished work is kept and temporary files are deleted."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; :func:`output.error_boundary` turns errors into exit codes."""
    logger = logging.getLogger("faceswap")
    logger.addHandler(_OneLine())
    logger.setLevel(logging.INFO)
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
    faceswap review                        choose faces, train and review in a browser
    faceswap train --a trump --b cage      train a model on both faces
    faceswap convert video.mp4             put b's face onto a's footage
    faceswap run jobs.toml                 convert many files with their own settings
    faceswap verify video.swapped.mp4      show how it was made, and whether it changed
    faceswap demo                          try everything on public-domain photos

    Exit codes: 0 done, 1 bug, 2 usage, 3 bad input, 4 no or too few faces, 5 bad model,
    6 cannot write, 7 bad setting, 8 training diverged, 9 altered or expired,
    10 no credentials, 11 not ready, 12 busy, 13 device or memory, 14 explicit footage,
    130 interrupted.
    """  # noqa: D301 - click wants the control character itself


@cli.command(cls=GroupedCommand)
@click.argument("source", type=PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=PATH, cls=GroupedOption, group=OUTPUT,
    help="Faceset folder; several sources need it  [default: SOURCE/faces, or data/<name>/faces "
    "for a single file]",
)  # fmt: skip
@settings_options(ExtractConfig)
@json_option
def extract(
    source: tuple[Path, ...], output: Path | None, config_file: Path | None, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Find every face in SOURCE, align it and store its crop.

    SOURCE is a photo, a video or a folder of them, or several of these. Faces are added to a
    faceset that exists. Run it again to continue: files that are already done are skipped.
    """
    settings = resolve(ExtractConfig, "extract", config_file, flags)
    pool.start_early(settings.landmarks)
    from faceswap.facesets import extractor

    with reporting() as on_progress:
        report = extractor.extract(source, output, settings, on_progress)
    show(as_json, report, text.extraction(report))


@cli.command(cls=GroupedCommand)
@identity_option("a")
@identity_option("b")
@click.option(
    "-o", "--output", type=PATH, cls=GroupedOption, group=IDENTITIES,
    help="Model folder  [default: models/<a>-<b>]",
)  # fmt: skip
@settings_options(TrainConfig)
@json_option
def train(
    a: str, b: str, output: Path | None, config_file: Path | None, as_json: bool, **flags: Any
) -> None:
    """Train a model on the faces of a and b until --steps, --minutes or Ctrl-C.

    Run the same command again to continue.
    """
    settings = resolve(TrainConfig, "train", config_file, flags)
    settings = replace(settings, also=tuple(str(faces_folder(name)) for name in settings.also))
    folder_a, folder_b = faces_folder(a), faces_folder(b)
    folder = output or Path("models", f"{identity_name(folder_a)}-{identity_name(folder_b)}")
    from faceswap.training import trainer

    with reporting() as on_progress:
        report = trainer.train(folder_a, folder_b, folder, settings, on_progress)
    if is_rank_zero():
        show(as_json, report, text.training(report))
        if report.interrupted:
            echo_err("interrupted and saved; run the same command to continue")
    if report.interrupted:
        sys.exit(INTERRUPTED)


def faces_folder(name: str) -> Path:
    """Return the faceset's folder for an identity.

    A bare name means the folder ``data/<name>``, unless only ``<name>`` exists in the current
    folder; anything else is a path. The folder is the faceset itself if it holds ``faces.jsonl`` or
    is named ``faces``, otherwise the faceset is its subfolder ``faces``.
    """
    path = Path(name)
    bare = path.name == name and name not in (".", "..")
    if bare and (Path("data", name).is_dir() or not path.is_dir()):
        path = Path("data", name)
    if (path / "faces.jsonl").is_file() or path.name == "faces":
        return path
    return path / "faces"


@cli.command(cls=GroupedCommand)
@click.argument("sources", metavar="SOURCE...", type=PATH, nargs=-1, required=True)
@click.option(
    "--model",
    type=PATH,
    cls=GroupedOption,
    group=SWAPPED,
    help="Model folder or file, or a name for models/<name>  [default: the newest in models/]",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    cls=GroupedOption,
    group=OUTPUT,
    help="Output file or folder; a folder for several sources  "
    "[default: video.swapped.mp4 for video.mp4]",
)
@click.option(
    "--preview", type=click.IntRange(1, 200), cls=GroupedOption, group=OUTPUT,
    help="Write only one image that shows N frames of a video, their swaps and mattes.",
)  # fmt: skip
@redo_option
@click.option(
    "--shard", metavar="N/M", cls=GroupedOption, group=OUTPUT,
    help="Render only the N-th of M parts, on one of several machines that share the output's "
    "folder; faceswap join puts the parts together.",
)  # fmt: skip
@settings_options(ConvertConfig)
@json_option
def convert(
    sources: tuple[Path, ...], output: Path | None, model: Path | None, preview: int | None,
    redo: str | None, shard: str | None, config_file: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Swap the faces in SOURCE: a video, a photo, a folder of photos or an image sequence.

    An image sequence is a folder of numbered images or a pattern such as shot.%04d.png or
    shot.####.png. The output is of the same kind as SOURCE: .mp4, .m4v, .mov, .mkv, .webm, .gif,
    .webp and animated PNGs keep their format, and all other videos, such as .avi, .wmv, .ts and
    .flv, become .mov unless --output says otherwise. A video becomes a folder of images if the
    output has no suffix. To continue a stopped conversion, run the same command again.

    Several sources are converted one after the other. One that fails does not stop the others, and
    one that is done already is not repeated.
    """
    settings = resolve(ConvertConfig, "convert", config_file, flags)
    source, *others = sources
    if (preview or redo or shard) and others:
        raise click.UsageError("--preview, --redo and --shard take one source at a time.")
    if sum(map(bool, (preview, redo, shard))) > 1:
        raise click.UsageError("--preview, --redo and --shard exclude each other.")
    if shard and settings.cluster:
        raise click.UsageError("--shard and --cluster exclude each other: a cluster makes shards.")
    if redo:
        changes = given(ConvertConfig, "convert", config_file, flags)
        from faceswap.swapping import redo as again

        redone = _redo(again.redo, source, redo, output, model, changes)
        show(as_json, redone, text.conversion(redone))
        return
    if not (preview or others or settings.overwrite):
        settings = replace(settings, overwrite=_may_replace(source, output, settings, as_json))
    pool.start_early(settings.landmarks)
    from faceswap.swapping import batch, converter
    from faceswap.swapping.outputs import default_preview

    model = _chosen_model(model, settings, as_json)
    if preview:
        sheet = output or default_preview(source)
        shown = converter.contact_sheet(source, sheet, preview, model, settings)
        sheet_report = PreviewReport(model, sheet, preview, shown)
        show(as_json, sheet_report, text.preview(sheet_report))
        return
    if shard:
        _shard(source, output, model, settings, shard, as_json)
        return
    if others:
        _convert_all(batch.jobs_of(sources, output, model, settings), as_json)
        return
    with reporting() as on_progress:
        report = converter.convert(source, output, model, settings, on_progress)
    show(as_json, report, text.conversion(report))


def _chosen_model(model: Path | None, settings: ConvertConfig, as_json: bool) -> Path | None:
    """Return the model that the user names, or else the newest; None if a cast file names them."""
    from faceswap.models import modelfile

    if model:
        return modelfile.named(model)
    if settings.cast:
        return None
    newest = modelfile.newest(Path("models"))
    echo(f"model: {newest}", as_json)
    return newest


def _shard(
    source: Path, output: Path | None, model: Path | None, settings: ConvertConfig, which: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Convert one part of a video."""
    from faceswap.swapping.shards import Shard, convert_shard

    with reporting() as on_progress:
        report = convert_shard(source, output, model, settings, Shard.parse(which), on_progress)
    show(as_json, report, text.shard(report))


def _redo(
    render: Callable[..., R], source: Path, frames: str, output: Path | None,
    model: Path | None, changes: dict[str, Any],
) -> R:  # fmt: skip
    """Render some frames of a finished output again."""
    from faceswap.models import modelfile

    model = modelfile.named(model) if model else None
    with reporting() as on_progress:
        return render(source, frames, output, model, changes, on_progress)


def _convert_all(jobs: "list[Job]", as_json: bool) -> None:
    """Convert several sources, and show what became of each as soon as it is done.

    Raises:
        FaceswapError: As the first source that failed did, after all have been tried.
    """
    from faceswap.swapping import batch

    reports: list[JobReport] = []
    reporter = Reporter()

    def announce(job: "Job") -> None:
        reporter.restart()
        echo(f"[{len(reports) + 1}/{len(jobs)}] {job.source}", as_json)

    try:
        for report in batch.convert_all(jobs, reporter, announce):
            reporter.restart()
            reports.append(report)
            if report.error:
                echo_err(f"faceswap: error: {report.error.message}")
            elif report.result and not as_json:
                show(False, {}, text.conversion(report.result))
    finally:
        reporter.close()
    failures = [report.error for report in reports if report.error]
    error = None
    if failures:
        what = f"{len(failures)} of {counted(len(reports), 'source')} could not be converted"
        error = getattr(errors, failures[0].kind)(what)
    report_and_exit(as_json, {"jobs": reports}, text.jobs(reports), error)


def _is_terminal() -> bool:
    """Return whether somebody can answer a question."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def _may_replace(source: Path, output: Path | None, settings: ConvertConfig, as_json: bool) -> bool:
    """Ask on a terminal whether outputs that exist may be replaced; False if there are none.

    Raises:
        OutputError: If they may not be replaced.
    """
    from faceswap.swapping.outputs import planned

    if as_json or not _is_terminal():
        return False
    return _confirmed(planned(source, output, settings), "another --output")


def _confirmed(found: list[Path], instead: str) -> bool:
    """Ask whether existing files may be replaced; return False if there are none.

    Args:
        found: The files.
        instead: What to pass instead, for the message.

    Raises:
        OutputError: If they may not be replaced.
    """
    if not found:
        return False
    if click.confirm(f"{found[0]} exists already; replace it?", err=True):
        return True
    raise errors.OutputError(f"{found[0]} is kept; pass {instead}")


@cli.command()
@click.argument("jobs_file", metavar="JOBS.toml", type=PATH)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@json_option
def run(jobs_file: Path, overwrite: bool, as_json: bool) -> None:
    """Convert everything that JOBS.toml lists.

    Each [[job]] table has inputs, a source or a list of sources, and may have output, model and a
    table of settings. Run it again to continue: what is done is not repeated. The exit code is that
    of the first source that could not be converted, or 0.
    """
    from faceswap.swapping import batch

    jobs = batch.read_jobs(jobs_file)
    if overwrite:
        jobs = [replace(job, config=replace(job.config, overwrite=True)) for job in jobs]
    _convert_all(jobs, as_json)


@cli.command(cls=GroupedCommand)
@click.argument("model", type=PATH)
@identity_option("a")
@identity_option("b")
@click.option(
    "--clip",
    type=PATH,
    cls=GroupedOption,
    group=IDENTITIES,
    help="Also measure flicker on this footage of a.",
)
@click.option(
    "--save-json",
    type=PATH,
    cls=GroupedOption,
    group=OUTPUT,
    help="Also write the numbers to this file.",
)
@click.option(
    "--html", "html_file", type=PATH, cls=GroupedOption, group=OUTPUT,
    help="Also write a page with the numbers, curves and images.",
)  # fmt: skip
@settings_options(EvaluateConfig)
@json_option
def evaluate(
    model: Path, a: str, b: str, clip: Path | None, save_json: Path | None,
    html_file: Path | None, config_file: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Measure MODEL on the faces that were held out of its training."""
    settings = resolve(EvaluateConfig, "evaluate", config_file, flags)
    from faceswap.swapping.outputs import existing, refuse_existing

    files = {"json": save_json, "html": html_file}
    outputs = {name: file for name, file in files.items() if file}
    if not (settings.overwrite or as_json) and _is_terminal():
        asked = _confirmed(existing(outputs), "another file")
        settings = replace(settings, overwrite=asked)
    if not settings.overwrite:
        refuse_existing(outputs, "another file")
    from faceswap.evaluation import evaluator
    from faceswap.files import write_bytes
    from faceswap.models import modelfile

    with reporting() as on_progress:
        report = evaluator.evaluate(
            modelfile.named(model), faces_folder(a), faces_folder(b), settings, on_progress,
            clip=clip, html=html_file,
        )  # fmt: skip
    if save_json:
        write_bytes(save_json, (json.dumps(to_jsonable(report), indent=1) + "\n").encode())
    show(as_json, report, text.evaluation(report))


@cli.command()
@click.argument("path", type=PATH, required=False)
@click.option(
    "--licences", is_flag=True,
    help="List the pretrained weights behind PATH and their terms; without PATH, behind each "
    "command with its usual settings.",
)  # fmt: skip
@click.option(
    "--discard", is_flag=True,
    help="Delete the unfinished conversions in the folder PATH, or that of the output PATH.",
)  # fmt: skip
@json_option
def info(path: Path | None, licences: bool, discard: bool, as_json: bool) -> None:
    """Describe PATH: a model, a faceset, a video, a photo or a folder of outputs.

    For a folder and for an output, this lists the conversions that were stopped and can go on.
    """
    from faceswap.cli import info

    if licences and discard:
        raise click.UsageError("--licences and --discard exclude each other.")
    if discard:
        if path is None:
            raise click.UsageError("Missing argument 'PATH'.")
        discarded = info.discard(path)
        show(as_json, discarded, text.facts(discarded))
        return
    if licences:
        terms = info.licences(path)
        show(as_json, terms, text.licences(terms))
        return
    if path is None:
        raise click.UsageError("Missing argument 'PATH'.")
    facts = info.inspect(path)
    show(as_json, facts, text.facts(facts))


@cli.command(cls=GroupedCommand)
@click.argument("source", type=PATH)
@click.option(
    "-o", "--output", type=PATH, cls=GroupedOption, group=OUTPUT,
    help="Folder to write  [default: clip.package beside clip.mp4]",
)  # fmt: skip
@click.option(
    "-m", "--model", type=PATH, cls=GroupedOption, group=OUTPUT,
    help="Folder or name of a model  [default: the newest in ./models]",
)  # fmt: skip
@redo_option
@settings_options(ConvertConfig)
@json_option
def package(
    source: Path, output: Path | None, model: Path | None, redo: str | None,
    config_file: Path | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Swap the faces in SOURCE, a video or an image sequence, for further work by compositors.

    The package is a folder with EXR images in linear Rec.709: the finished frames, the plate, the
    faces to merge over it with their masks and ST maps, and the aligned faces. Beside them are a
    JSON file for each frame, a Nuke script and an OpenTimelineIO file. It needs faceswap[film].
    """
    settings = resolve(ConvertConfig, "convert", config_file, flags)
    pool.start_early(settings.landmarks)
    from faceswap.swapping import turnover

    if redo:
        changes = given(ConvertConfig, "convert", config_file, flags)
        report = _redo(turnover.redo_package, source, redo, output, model, changes)
    else:
        model = _chosen_model(model, settings, as_json)
        with reporting() as on_progress:
            report = turnover.package(source, output, model, settings, on_progress)
    show(as_json, report, text.packaged(report))


@cli.command()
@click.argument("source", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="The output that the shards were given, if they were given one.",
)
@json_option
def join(source: Path, output: Path | None, as_json: bool) -> None:
    """Join the parts of SOURCE that faceswap convert --shard made.

    The output equals that of a single machine byte for byte.
    """
    from faceswap.swapping import shards

    with reporting() as on_progress:
        report = shards.join(source, output, on_progress)
    show(as_json, report, text.conversion(report))


@cli.command(cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.option(
    "-o", "--output", type=PATH, cls=GroupedOption, group=OUTPUT,
    help="File to write  [default: <model>-to-b.onnx beside the model file]",
)  # fmt: skip
@settings_options(ExportConfig)
@json_option
def export(
    model: Path, output: Path | None, config_file: Path | None, as_json: bool, **flags: Any
) -> None:
    """Write MODEL as a network for other programs: ONNX or TorchScript.

    It takes aligned crops and returns swapped faces with their mask, for any number of faces.
    """
    settings = resolve(ExportConfig, "export", config_file, flags)
    from faceswap.facesets.weights import described
    from faceswap.models import modelfile
    from faceswap.models.export import export_model, target_of

    named = modelfile.named(model)
    target = target_of(named, output, settings)
    if target.exists() and not (settings.overwrite or as_json) and _is_terminal():
        settings = replace(settings, overwrite=_confirmed([target], "another --output"))
    weights = described(modelfile.notes_of(modelfile.file_of(named))[1])
    terms = {each.name: each.licence for each in weights}
    report = export_model(named, output, settings, terms)
    show(as_json, report, text.exported(report))


@cli.command()
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option(
    "--trust", type=PATH, help="Certificates of signers or authorities that you trust (PEM)."
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Look for the watermark everywhere in a long video, not in 120 samples of 150 frames.",
)
@json_option
def verify(files: tuple[Path, ...], trust: Path | None, thorough: bool, as_json: bool) -> None:
    """Show how FILES were made, from which sources, and whether they changed since then.

    Two marks are looked for: signed Content Credentials, and the watermark of this program, which
    survives if a file is encoded again, scaled or cropped.

    The exit code reports the most serious problem: 9 if a file was altered or its credentials have
    expired, 10 if one has no credentials, 3 if one cannot be read. It is 0 if every file is
    unchanged.
    """
    from faceswap.swapping import verification

    with reporting() as on_progress:
        result = verification.verify(files, trust, thorough=thorough, on_progress=on_progress)
    report_and_exit(as_json, {"files": result.facts}, text.verification(result), result.worst)


@cli.command()
@click.argument("folder", type=PATH, default=Path())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default="a free one",
    help="Port of the address on this machine.",
)  # fmt: skip
def review(folder: Path, port: int) -> None:
    """Show facesets, trainings and conversions in FOLDER in a browser, until Ctrl-C.

    The address that it prints works on this machine only and holds a key; other programs and web
    pages cannot use it. Nothing leaves this machine. It needs: pip install 'faceswap[review]'
    """
    from faceswap.review import server

    server.review(folder, port, lambda address: echo(f"open {address}", False))


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """List the installed software and try each stage on a tiny example.

    The exit code is 0 if everything works, otherwise 11.
    """
    from faceswap.cli import doctor

    diagnosis = doctor.run_checks()
    report_and_exit(as_json, diagnosis, text.diagnosis(diagnosis), doctor.status(diagnosis))


@cli.command("import-checkpoint")
@click.argument("checkpoint", type=PATH)
@click.argument("folder", type=PATH)
@json_option
def import_checkpoint(checkpoint: Path, folder: Path, as_json: bool) -> None:
    """Convert a classic CHECKPOINT (autoencoder.t7) into a model FOLDER."""
    from faceswap.models import classic

    trained = classic.import_checkpoint(checkpoint, folder)
    report = ImportReport(folder, trained.network.config.name, trained.step)
    show(as_json, report, text.imported(report))


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
    """Create two identities and a clip from public-domain photos; extract, train and convert."""
    from faceswap.cli import demo

    began = time.monotonic()
    for title, run in demo.stages(output, minutes):
        echo(title, as_json)
        with reporting() as on_progress:
            run(on_progress)
    seconds = time.monotonic() - began
    report = DemoReport(seconds, output / demo.SWAPPED, output / demo.SHEET)
    show(as_json, report, text.demo(report))
