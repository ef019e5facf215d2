"""Convert several sources one after the other, with models and detectors that are loaded once.

A jobs file is TOML. Each ``[[job]]`` table has ``inputs``, a source or a list of sources, and may
have ``output``, ``model`` and a table ``settings`` with settings of ``convert`` by their names in
a settings file. The same keys at the top of the file are defaults for all jobs. As with several
sources on the command line, the output of a job with several inputs is a folder. Settings that are
shared by several sources have no effect on those they do not apply to, such as ``quality`` on
photos. Relative paths start at the folder of the jobs file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta

from faceswap.config import (
    ConvertConfig,
    Option,
    clipped,
    field_options,
    is_name,
    read_toml_file,
    refuse_unknown,
)
from faceswap.errors import FaceswapError, OutputError, SettingsError
from faceswap.files import make_folder
from faceswap.media import film, writers
from faceswap.media.photos import PHOTO_SUFFIXES
from faceswap.models import modelfile
from faceswap.swapping import outputs
from faceswap.swapping.converter import carry_out
from faceswap.swapping.plan import plan
from faceswap.swapping.report import ConvertReport
from faceswap.swapping.resources import Resources
from faceswap.types import Failure, OnProgress, ignore_progress

DEFAULTS = ("output", "model", "settings")
KEYS = ("inputs", *DEFAULTS)


@dataclass(frozen=True, slots=True)
class Job:
    """One source to convert.

    Attributes:
        source: As for :func:`convert`.
        output: The output; None for the default.
        model: The model's folder or file; None for the newest.
        config: Settings.
        base: The folder with the subfolder ``models`` in which the newest model is looked for.
        shared: Names of the settings that other sources share, so that they need not apply.
    """

    source: Path
    output: Path | None
    model: Path | None
    config: ConvertConfig
    base: Path = Path()
    shared: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JobReport:
    """What became of one source of several."""

    source: Annotated[Path, Meta(description="The source.")]
    state: Annotated[
        Literal["done", "done before", "failed"],
        Meta(
            description="done before: an earlier run did the same conversion, so that its output "
            "was left alone."
        ),
    ]
    result: Annotated[
        ConvertReport | None, Meta(description="What the conversion did; null if it failed.")
    ] = None
    error: Annotated[Failure | None, Meta(description="Why it failed; null if it did not.")] = None


def jobs_of(
    sources: Sequence[Path], output: Path | None, model: Path | None, config: ConvertConfig,
    base: Path = Path(), shared: frozenset[str] = frozenset(),
) -> list[Job]:  # fmt: skip
    """Return a job for each source; if there are several, their outputs go into one folder.

    Args:
        sources: The sources.
        output: The output of a single source; for several, a folder, which is created. None for
            the default of each source.
        model: A model's folder or file; None for the newest.
        config: Settings.
        base: See :class:`Job`.
        shared: See :class:`Job`; several sources share all settings.

    Raises:
        OutputError: If several sources are to be written to something that is no folder.
    """
    if len(sources) > 1:
        shared = frozenset(field_options(ConvertConfig))
    if output is None or len(sources) == 1:
        return [Job(source, output, model, config, base, shared) for source in sources]
    is_named_as_file = (
        output.suffix.lower() in writers.VIDEO_SUFFIXES | PHOTO_SUFFIXES | film.SUFFIXES
    )
    if not output.is_dir() and (output.exists() or is_named_as_file):
        raise OutputError(
            f"{output} is not a folder; {len(sources)} sources are converted into one folder"
        )
    jobs = []
    for source in sources:
        try:
            kind, _ = outputs.identified(source, config)
            name = outputs.default_output(source, kind).name
        except FaceswapError:  # convert_all() will say why it cannot be converted
            name = source.name
        jobs.append(Job(source, output / name, model, config, base, shared))
    return jobs


def read_jobs(path: Path) -> list[Job]:
    """Read a jobs file.

    Raises:
        InputError: If the file cannot be read.
        OutputError: If several inputs are to be written to something that is no folder.
        SettingsError: If the file is not TOML, has no [[job]] table, or contains a key, a setting
            or a value that is not allowed.
    """
    content = read_toml_file(path, "jobs file")
    tables = content.pop("job", None)
    if not isinstance(tables, list) or not tables:
        raise SettingsError(f"the jobs file {path} has no [[job]] table")
    refuse_unknown(content, DEFAULTS, str(path))
    jobs = []
    for number, table in enumerate(tables, start=1):
        where = f"{path}, job {number}"
        if not isinstance(table, dict):
            raise SettingsError(f"{where}: must be a [[job]] table, not {clipped(repr(table))}")
        refuse_unknown(table, KEYS, where)
        try:
            jobs += _jobs_of_table(content, table, path.parent)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
    return jobs


def _jobs_of_table(defaults: dict[str, Any], table: dict[str, Any], folder: Path) -> list[Job]:
    inputs = table.get("inputs")
    sources = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(sources, list) or not sources or not all(map(is_name, sources)):
        raise SettingsError(
            f"inputs must be a source or a list of sources, not {clipped(repr(inputs))}"
        )
    merged = defaults | table
    for name in ("output", "model"):
        if name in merged and not is_name(merged[name]):
            raise SettingsError(f"{name} must be a path, not {clipped(repr(merged[name]))}")
    settings: dict[str, Any] = {}
    for level in (defaults, table):
        found = level.get("settings", {})
        if not isinstance(found, dict):
            raise SettingsError(f"settings must be a table, not {clipped(repr(found))}")
        settings |= found
    output, model = merged.get("output"), merged.get("model")
    return jobs_of(
        [folder / source for source in sources],
        folder / output if output else None,
        modelfile.named(Path(model), folder) if model else None,
        ConvertConfig.from_dict(_anchored(settings, folder)),
        folder,
        frozenset(defaults.get("settings", {})) - table.get("settings", {}).keys(),
    )


def _anchored(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let the relative paths among settings start at a folder."""
    options = field_options(ConvertConfig)

    def anchored(option: Option, value: Any) -> Any:
        if isinstance(value, list):
            return [anchored(option, one) for one in value]
        is_path = is_name(value) and (
            option.is_path or (option.may_be_path and (folder / value).is_file())
        )
        return str(folder / value) if is_path else value

    return {
        name: anchored(options[name], value) if name in options else value
        for name, value in settings.items()
    }


def convert_all(
    jobs: Sequence[Job],
    on_progress: OnProgress = ignore_progress,
    on_job: Callable[[Job], None] | None = None,
) -> Iterator[JobReport]:
    """Convert several sources, and yield what became of each.

    A source that cannot be converted does not stop the others. A conversion that an earlier run has
    carried out is not repeated, whether or not outputs may be replaced; one that was interrupted is
    continued.

    Args:
        jobs: The sources.
        on_progress: Called after each frame or photo.
        on_job: Called before each job.

    Raises:
        OutputError: If two sources would have the same output. Then nothing is converted.
        SettingsError: If a setting applies to none of the sources that share it.
    """
    planned = [_planned(job) for job in jobs]
    _refuse_same_output(jobs, planned)
    jobs = _with_applicable(jobs, planned)
    with Resources() as resources:
        for job in jobs:
            if on_job:
                on_job(job)
            try:
                result = _convert(job, resources, on_progress)
            except FaceswapError as error:
                failure = Failure(type(error).__name__, str(error), error.exit_code)
                yield JobReport(job.source, "failed", None, failure)
            else:
                yield JobReport(job.source, "done before" if result.done_before else "done", result)


def _convert(job: Job, resources: Resources, on_progress: OnProgress) -> ConvertReport:
    model = job.model
    if model is None and not job.config.cast:
        model = modelfile.newest(job.base / "models")
    if job.output is not None:
        make_folder(job.output.parent)
    planned = plan(
        job.source, job.output, model, job.config, load=resources.load, may_exist=True
    )  # fmt: skip
    return carry_out(planned, resources, on_progress, unless_done=True)


class _Planned(NamedTuple):
    """Where a job writes, in which form, and the kind of its source."""

    target: Path
    form: str
    kind: str


def _planned(job: Job) -> _Planned | None:
    """Look at the source of a job; None if it cannot be converted, as its report will say."""
    try:
        kind, _ = outputs.identified(job.source, job.config)
        target = outputs.target_of(job.source, job.output, kind)
    except FaceswapError:
        return None
    return _Planned(target, outputs.form_of(kind, target), kind)


def _refuse_same_output(jobs: Sequence[Job], planned: list[_Planned | None]) -> None:
    sources: dict[Path, Path] = {}  # by output
    for job, found in zip(jobs, planned, strict=True):
        if not found:
            continue
        target = found.target.absolute()
        if target in sources:
            raise OutputError(
                f"{sources[target]} and {job.source} would both be written to {target}: give each "
                "its own output"
            )
        sources[target] = job.source


def _with_applicable(jobs: Sequence[Job], planned: list[_Planned | None]) -> list[Job]:
    """Reset the shared settings of each job that do not apply to it.

    Raises:
        SettingsError: If a setting applies to none of the sources that share it.
    """
    defaults, changed, applied = ConvertConfig(), [], set[str]()
    unused: dict[str, str] = {}  # by setting: what it applies to, in words
    for job, found in zip(jobs, planned, strict=True):
        if not found:
            changed.append(job)
            continue
        useless = outputs.inapplicable(job.config, found.form, found.kind)
        shared = {name: words for name, words in useless.items() if name in job.shared}
        unused |= shared
        applied |= job.shared - useless.keys()
        reset = {name: getattr(defaults, name) for name in shared}
        changed.append(replace(job, config=replace(job.config, **reset)))
    for name in unused.keys() - applied:
        raise SettingsError(f"{name} applies to none of the sources, only to {unused[name]}")
    return changed
