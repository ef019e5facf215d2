"""Convert a video or an image sequence on a Ray cluster: its segments are tasks.

The caller follows the faces, with the whole cluster to detect them. Then each task renders a shard,
as ``convert --shard`` does, into the folder that the machines share.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from faceswap import cluster
from faceswap.config import ConvertConfig
from faceswap.errors import BusyError, SettingsError
from faceswap.faces.pool import DetectorPool
from faceswap.media.segments import BEGUN, SEGMENT_FRAMES
from faceswap.models import devices
from faceswap.swapping import shards
from faceswap.swapping.outputs import refuse_existing
from faceswap.swapping.plan import Conversion, plan, versions
from faceswap.swapping.shards import Shard, ShardReport, Whole
from faceswap.types import OnProgress, Progress, counted

PER_SLOT = 2  # shards per machine or GPU, so that the slow ones hold nobody up
POLL = 0.5  # seconds between looks at the progress
PATIENCE = 120.0  # seconds to wait for a shard that a lost machine may still hold


@dataclass(frozen=True, slots=True)
class Order:
    """The description of a conversion for its tasks.

    Attributes:
        source: The source.
        output: The main output, or the folder of a package.
        model: The model; None with a cast file.
        config: Settings.
        form: The form of the output.
        threads: In how many threads torch computes, wherever it does.
        parts: The name of the folder of the segments, which says what determines the result.
        versions: What the caller runs, in words.
    """

    source: Path
    output: Path
    model: Path | None
    config: ConvertConfig
    form: str
    threads: int
    parts: str
    versions: str


def render(job: Conversion, pool: DetectorPool, on_progress: OnProgress) -> None:
    """Render all segments of a conversion, so that they only need to be joined.

    Args:
        job: The conversion.
        pool: Detects faces.
        on_progress: Called as the work goes on.

    Raises:
        DeviceError: If machines are lost again and again.
        InputError: If no cluster is running, or a machine does not see the shared folder.
        OutputError: If an output exists already and may not be replaced.
        SettingsError: If Ray is not installed here, or the machines differ in their versions or
            inputs.
    """
    cluster.connect()
    whole = shards.whole_of(job)
    # The plan looks for segments of any conversion to these outputs, also one with other settings.
    if not (job.config.overwrite or (whole.parts / BEGUN).exists()):
        refuse_existing(job.outputs)
    cores, gpus, slots = _slots(job.config)
    segments = -(-whole.total // SEGMENT_FRAMES)
    few = max(min(segments, PER_SLOT * slots, shards.MOST_SHARDS), 1)
    count = shards.count_before(whole) or few  # the machines may be others than in a stopped run
    shards.begin(whole, count)
    shards.follow_faces(whole, pool, on_progress)
    order = _order(whole)
    with _board() as board:
        submit = cluster.remote(_render, cores, gpus)
        waiting = [submit(order, number, count, board) for number in range(1, count + 1)]
        try:
            _watch(waiting, board, whole.total, on_progress)
        except BaseException:
            for reference in waiting:
                cluster.connect().cancel(reference, force=True)
            raise
    shards.merge(whole, count)


def _order(whole: Whole) -> Order:
    """Return the description of a conversion for its tasks."""
    job = whole.job
    output = job.target.parent if job.form == "package" else job.target
    return Order(
        job.source, output, job.model_path, replace(job.config, cluster=False), job.form,
        devices.threads_to_render(), whole.parts.name, _versions(),
    )  # fmt: skip


def _versions() -> str:
    """Return in words what this machine runs."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def _slots(config: ConvertConfig) -> tuple[float, float, int]:
    """Return the cores and GPUs of a task, and how many tasks run at a time.

    A task takes a GPU, or else all cores of a machine, because the network uses them.
    """
    found = cluster.machines()
    gpus = sum(int(machine.get("GPU", 0)) for machine in found)
    if gpus and config.device != "cpu":
        return 1, 1, gpus
    cores = [machine["CPU"] for machine in found if machine.get("CPU", 0) >= 1]
    least = min(cores, default=1.0)
    return least, 0, max(sum(int(have // least) for have in cores), 1)


def _watch(waiting: list[Any], board: Any, total: int, on_progress: OnProgress) -> None:
    """Wait for all tasks, and tell of the frames that they have rendered."""
    ray = cluster.connect()
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=POLL)
        for reference in ready:
            cluster.result_of(reference)
        frames, faces = ray.get(board.sums.remote())
        on_progress(Progress(frames, total, "frames", counted(faces, "face")))


class _Counts:
    """Counts the frames of each shard, and its faces once it is done.

    It runs as a process on the caller's machine.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[int, int]] = {}

    def put(self, shard: int, frames: int, faces: int) -> None:
        self._done[shard] = frames, faces

    def sums(self) -> tuple[int, int]:
        return (
            sum(frames for frames, _ in self._done.values()),
            sum(faces for _, faces in self._done.values()),
        )


@contextmanager
def _board() -> Iterator[Any]:
    """Start the process that collects the progress of all tasks."""
    ray = cluster.connect()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Counts).remote()
    try:
        yield board
    finally:
        ray.kill(board)


def _render(order: Order, number: int, count: int, board: Any) -> ShardReport:
    """Render a shard; this is a task."""
    whole = _planned(order)
    started = told = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= POLL:
            told = time.monotonic()
            board.put.remote(number, int(progress.done), 0)

    while True:
        try:
            report = shards.render(whole, Shard(number, count), tell, order.threads)
        except BusyError:  # a machine that was lost a moment ago may still hold it
            if time.monotonic() - started > PATIENCE:
                raise
            time.sleep(POLL)
            continue
        board.put.remote(number, report.frames, report.faces)
        return report


def _difference(order: Order) -> str:
    """Return why this machine would render something else, and what to do."""
    if _versions() != order.versions:
        return f"it has {_versions()} instead of {order.versions}; install the same versions"
    return "the source, the model or another input differs there; let all machines share them"


@lru_cache(1)
def _planned(order: Order) -> Whole:
    """Load the model once for all tasks that a process runs.

    Raises:
        SettingsError: If this machine would make another conversion than the caller.
    """
    form = order.form if order.form == "package" else None
    job = plan(order.source, order.output, order.model, order.config, form=form, may_exist=True)
    whole = shards.whole_of(job)
    if whole.parts.name != order.parts:
        raise SettingsError(
            f"{socket.gethostname()} would render a different result than the machine with the "
            f"command: {_difference(order)}"
        )
    return whole
