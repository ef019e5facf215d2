"""Train one shared encoder and two decoders on two facesets, to undo a random warp.

A run folder holds ``model.safetensors`` (everything that conversion needs), ``resume.safetensors``
(everything that resuming needs), ``config.json``, ``metrics.jsonl``, ``curves.png``, ``previews/``,
``snapshots/`` (earlier resume states) and ``best.safetensors``. Lines are appended to
``metrics.jsonl`` and every other file is replaced atomically, so a kill at any moment leaves a
complete state to resume from.
"""

import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, cast

import torch
from msgspec import Meta
from torch import Tensor, nn

from faceswap.config import TrainConfig
from faceswap.errors import DeviceError, SettingsError, TrainingError
from faceswap.files import exclusive_folder, reason, sweep
from faceswap.models import devices
from faceswap.models.autoencoder import Autoencoder
from faceswap.provenance.consent import in_words
from faceswap.training import checkpoint, distributed
from faceswap.training.checkpoint import TrainingState
from faceswap.training.companions import Companion, Turn
from faceswap.training.data import Draw, TrainingFaces, draw_batch, prepare, sample_batch
from faceswap.training.distributed import World
from faceswap.training.losses import LOSSES, masked
from faceswap.training.monitor import Monitor
from faceswap.training.optimizer import Recipe, recipe_of
from faceswap.training.portraits import measure_paintings
from faceswap.training.recorder import StepRecorder
from faceswap.training.refining import refine_decoders
from faceswap.training.threads import ThreadTuner
from faceswap.types import BOTH_IDENTITIES, Count, Identity, OnProgress, ignore_progress

log = logging.getLogger(__name__)


CPU_BATCH, GPU_BATCH = 16, 64  # faces of each identity in a step unless the settings say so
ENOUGH_FACES = 1000  # of b, from which they are not mirrored: a parting or a mole has one side
DECAY_FROM = 0.5  # share of the run after which the learning rate decays like a cosine
REPORT_SECONDS = 1.0  # minimum time between two loss reports, unless the state is saved
# Assumed time of a step of both refiners over a network step's, until it is measured.
REFINING_SHARE, REFINING_SHARE_GPU = 0.8, 0.3
# Without a requested length the learning rate falls in cycles, each longer than the one before.
FIRST_CYCLE, CYCLE_GROWTH = 120.0, 1.5  # seconds and factor
AGAIN = 1.4  # ratio of the steps at which refiners are trained again before the end
ENOUGH = 0.99  # share of the requested minutes from which a run counts as done
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROLL_BACK_RATE = 0.5  # learning rate factor after a non-finite loss
# Ctrl-C and torchrun signal all processes of a machine, or of all machines, but not at once.
SIGNAL_SECONDS = 2.0


@dataclass(slots=True)
class TrainReport:
    """The result of a training run."""

    folder: Annotated[Path, Meta(description="The model's folder.")]
    step: Annotated[Count, Meta(description="Steps in total, over all runs of the model.")]
    minutes: Annotated[float, Meta(description="Minutes in total, over all runs of the model.")]
    loss_a: Annotated[float, Meta(description="Last loss; NaN, or null in JSON, if unknown.")]
    loss_b: float
    interrupted: Annotated[
        bool,
        Meta(description="Whether Ctrl-C or SIGTERM ended the run; the exit code is then 130."),
    ] = False
    done: Annotated[
        bool, Meta(description="Whether earlier runs had already reached the requested length.")
    ] = False
    consent: Annotated[
        dict[Identity, str],
        BOTH_IDENTITIES,
        Meta(description="Consent notes stored in the model, by identity."),
    ] = dataclasses.field(default_factory=dict)
    batch_size: Annotated[
        int,
        Meta(
            ge=1,
            description="Faces per identity per step at the end of the run. It is smaller than "
            "requested if memory ran out.",
        ),
    ] = 0


def train(
    a: str | Path,
    b: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> TrainReport:
    """Train a model on two facesets, or continue its training.

    Training ends at ``config.steps`` or ``config.minutes``, whichever comes first; without either
    it runs until it is stopped. Ctrl-C and SIGTERM save and stop after the current step; a second
    one stops at once.

    Args:
        a: Faceset folder of identity a.
        b: Faceset folder of identity b.
        output: The model's folder. If it holds a model, its training is resumed, unless
            ``config.restart`` is set.
        config: Settings.
        on_progress: Called after each face that is measured or compared with photos first, and then
            about once a second with the losses.

    Raises:
        InputError: If a folder is not a faceset or does not suit the model, a ``CONSENT.md`` cannot
            be read, or dlib's weights or the landmark model cannot be used.
        NoFacesError: If there are fewer than 25 faces of a person.
        ModelError: If the existing model cannot be resumed, or the model in ``config.init_from``
            cannot be loaded.
        SettingsError: If the settings contradict the existing model, the facesets or the number of
            processes, name a person twice, or need a plug-in or package that is not installed.
        OutputError: If a file cannot be written; the last saved state stays.
        BusyError: If another process trains the model.
        TrainingError: If the loss or a weight becomes infinite or NaN again after a roll-back to a
            lower learning rate; the last saved state stays.
        DeviceError: If the device is missing, or its memory is too small for a batch of one face
            per identity. With several processes the batch is not reduced. If the processes do not
            meet, or if another one was told to stop and ``torchrun`` is to start this one again.
    """
    config, folder = config or TrainConfig(), Path(output)
    device = distributed.local_device(devices.resolve_device(config.device))
    if config.batch_size is None:
        batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        config = dataclasses.replace(config, batch_size=batch_size)
    # Rank 0 takes the lock before init_process_group, so a refused run fails at once instead of
    # hanging the others.
    lock = exclusive_folder(folder, f"training of {folder} is under way")
    with lock if distributed.is_rank_zero() else nullcontext(), distributed.joined(device) as world:
        if config.restart and world.agree([], distributed.has_discarded())[1]:
            distributed.note_discard()  # a machine that has joined may outlast the others
            config = dataclasses.replace(config, restart=False)
        return _train_in(Path(a), Path(b), folder, config, world, device, on_progress)


def _train_in(
    a: Path, b: Path, folder: Path, config: TrainConfig, world: World, device: torch.device,
    on_progress: OnProgress,
) -> TrainReport:  # fmt: skip
    """Train in a folder that rank 0 has locked."""
    assert config.batch_size is not None, "train() chooses it by device"
    if config.batch_size < world.size:
        raise SettingsError(
            f"batch_size must be at least the number of processes, {world.size}, "
            f"not {config.batch_size}"
        )
    if config.also and world.size > 1:
        raise SettingsError("--also needs a single process: start without torchrun")
    read = world.first and not config.restart
    state = world.share(checkpoint.read_state(folder) if read else None)
    report = on_progress if world.first else ignore_progress
    run, faces = prepare(a, b, folder, config, state, device, report, world)
    if world.first:
        _open_folder(folder, config, run)
    if state:
        checkpoint.restore(run, state, folder)
    if world.first:
        checkpoint.trim_metrics(folder, run.step)
        if state and run.consent != state.consent:
            checkpoint.note_consent(run, folder, config.keep)
    if _share_done(run.step, run.seconds / ENOUGH, config) >= 1:
        return TrainReport(
            folder, run.step, run.seconds / 60, *checkpoint.last_losses(folder), done=True,
            consent=in_words(run.consent), batch_size=config.batch_size,
        )  # fmt: skip
    monitor = Monitor(run, faces, folder, config, on_progress) if world.first else None
    with _stop_signal() as stop:
        return Loop(run, faces, folder, config, world, monitor, stop).run_on()


def _open_folder(folder: Path, config: TrainConfig, run: TrainingState) -> None:
    """Remove the leftovers of a killed or discarded run and write this run's settings."""
    sweep(folder)
    if config.restart:
        checkpoint.discard(folder)
    preset = run.network.config
    recipe = recipe_of(preset.name)
    settings = config.to_dict() | {
        "model": preset.name,
        "learning_rate": config.learning_rate or recipe.learning_rate,
        "loss": recipe.loss if config.loss == "auto" else config.loss,
        "restart": False,
        "consent_a": None,  # personal, so reusing the settings for others must not copy it
        "consent_b": None,
    }
    checkpoint.write_config(folder, settings, dataclasses.asdict(recipe), run.names)


class Pair(nn.Module):
    """Decodes all people in one forward call, as DistributedDataParallel requires."""

    def __init__(self, network: Autoencoder, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, a: Tensor, b: Tensor, turn: Turn | None = None) -> list[Tensor]:
        """Decode warped faces of a, of b and of a companion with their own decoders.

        Args:
            a: Warped faces of a, (B, 3, size, size).
            b: As many warped faces of b.
            turn: As many warped faces of a companion.

        Returns:
            Decoded faces of each person, float32 (B, 3 or 4, size, size).
        """
        images = [a, b] if turn is None else [a, b, turn.warped]
        with devices.in_precision(a.device, self.precision):
            codes = self.network.encode(torch.cat(images)).chunk(len(images))
            decoded = [self.network.decode(codes[0], "a"), self.network.decode(codes[1], "b")]
            if turn is not None:
                decoded.append(turn.companion.decoder(codes[2]))
        return [faces.float() for faces in decoded]


@dataclass(frozen=True, slots=True)
class Due:
    """What is due before the next step, which all processes decide alike.

    Attributes:
        share: Share of the run that is done, or of the current cycle if no length was requested.
        end: Whether the run ends.
        report: Whether to report the losses.
        preview: Whether to write a preview.
        save: Whether to save the state.
        finish: Whether to bring the model up to date, too. Within a cycle, at a high learning rate,
            it would be worse than after the last one.
    """

    share: float
    end: bool
    report: bool
    preview: bool
    save: bool
    finish: bool


class Loop:
    """The training loop: steps, reports, previews and saves until the end or a stop signal.

    All processes decide by the clock of rank 0 and the signals of each. If one is told to stop
    where ``torchrun`` starts lost ones again, all stop after a quick save, and those without a
    signal end with an error so that they are started again.
    """

    def __init__(
        self, run: TrainingState, faces: TrainingFaces, folder: Path, config: TrainConfig,
        world: World, monitor: Monitor | None, stop: threading.Event,
    ) -> None:  # fmt: skip
        self._run, self._faces, self._folder, self._config = run, faces, folder, config
        self._world, self._monitor, self._stop = world, monitor, stop
        assert config.batch_size is not None, "train() chooses it by device"
        self._batch = config.batch_size
        self._recipe = recipe_of(run.network.config.name)
        self._loss_of = LOSSES.resolve(self._recipe.loss if config.loss == "auto" else config.loss)
        self._device = next(run.network.parameters()).device
        if self._device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.benchmark = True  # all batches have the same shape
        self._precision = (
            devices.fast_type(self._device) if config.precision == "auto"
            else PRECISIONS[config.precision]
        )  # fmt: skip
        # Small gradients would be 0 in float16 if the loss were not scaled.
        self._scaler = torch.amp.GradScaler(
            self._device.type, enabled=self._precision == torch.float16
        )
        pair: nn.Module = Pair(run.network, self._precision)
        self._masked_loss: Callable[[Tensor, Tensor], Tensor] = partial(
            masked, loss=self._loss_of, outside=self._recipe.outside
        )
        self._compile_errors: tuple[type[Exception], ...] = ()
        if config.compile:
            from torch._dynamo.exc import TorchDynamoException  # loading it takes time

            self._compile_errors = (TorchDynamoException,)
            pair = cast(nn.Module, torch.compile(pair, dynamic=False))
            self._masked_loss = torch.compile(self._masked_loss, dynamic=False)
        self._pair = world.wrap(pair, self._device)
        self._ema_share = torch.zeros((), device=self._device)
        # A replayed step is always the same: no companions by turns, no processes to wait for, and
        # no scaled loss, whose gradients the CPU checks.
        can_record = self._device.type == "cuda" and world.size == 1
        can_record = can_record and not run.companions and not self._scaler.is_enabled()
        self._recorder = StepRecorder[Draw]() if can_record else None
        self._threads = ThreadTuner(self._device.type == "cpu")
        self._pending: list[Tensor] = []  # losses since the last report, each (2,)
        self._means = [math.nan, math.nan]
        self._reported = self._saved = self._previewed = time.monotonic()
        self._refined = run.step  # when the refiners were last trained
        self._cycle = _cycle(run.seconds)[0]
        self._refining_time = 0.0  # seconds that they last took for each step of the network
        self._told = False  # whether any process was told to stop
        self._leaving = False  # whether the others are to be started again after that

    def run_on(self) -> TrainReport:
        """Train until the end or a stop signal and return the report.

        Raises:
            DeviceError, ModelError, OutputError, TrainingError: See :func:`train`.
        """
        run = self._run
        unsaved = not checkpoint.has_state(self._folder)
        if self._monitor and (unsaved or self._config.restart):
            keep = 1 if self._config.restart else self._config.keep  # drop the old run's states
            checkpoint.save(run, self._folder, keep)
        if self._config.restart:
            self._world.share(None)  # rank 0 has replaced the old model
            distributed.note_discard()
        while self.advance():
            pass
        self._threads.close()
        if self._monitor:
            self._monitor.close()
        # Torchrun stops a machine's processes once one fails, so let rank 0 finish saving first.
        self._world.share(None)
        if self._leaving and not self._stop.wait(SIGNAL_SECONDS):
            raise DeviceError(
                f"another process was told to stop at step {run.step}; {self._folder} keeps the "
                "state, and torchrun starts this process again to go on from it"
            )
        loss_a, loss_b = self._means
        interrupted = self._told or self._stop.is_set()
        return TrainReport(
            self._folder, run.step, run.seconds / 60, loss_a, loss_b, interrupted,
            consent=in_words(run.consent), batch_size=self._batch,
        )  # fmt: skip

    def advance(self) -> bool:
        """Report, preview and save if due, then take a step; return False at the end.

        Raises:
            DeviceError, ModelError, OutputError, TrainingError: See :func:`train`.
        """
        run, recipe, began = self._run, self._recipe, time.monotonic()
        due = self._decide(began)

        if due.report and not self._report(began):
            self._roll_back()
            return True
        if self._monitor and due.finish:
            self._refine(due.end)
            run.seconds += time.monotonic() - began
            began = time.monotonic()
        if self._monitor and (due.preview or due.finish):
            self._monitor.measure()
        if self._monitor and due.preview:
            self._monitor.preview()
            self._previewed = time.monotonic()
        if self._monitor and due.save:
            checkpoint.save(run, self._folder, self._config.keep, model=due.finish)
            self._monitor.draw_curves()
            self._saved = time.monotonic()
        if due.end:
            return False

        rate = run.lr_scale * _rate_factor(run.step, due.share, recipe)
        for optimizer in (run.optimizer, *(person.optimizer for person in run.companions)):
            optimizer.scale(rate)
        step_began = time.monotonic()
        self._pending.append(self._fitting_step(warp=due.share < recipe.warp_until))
        run.step += 1
        now = time.monotonic()
        run.seconds += now - began
        self._threads.stepped(now - step_began)
        return True

    def _refine(self, end: bool) -> None:
        """Train the refiners for a share of the steps since they were last trained.

        Every refining paints all faces again, so a long run does not refine at every save. Where
        painted features lie is measured at each save, because it is not part of the resume state.
        """
        run = self._run
        steps = round(run.step * self._recipe.refine) - round(self._refined * self._recipe.refine)
        if steps and (end or run.step >= AGAIN * self._refined):
            began, since = time.monotonic(), run.step - self._refined
            refine_decoders(run, self._faces.large, steps, self._precision)
            self._refining_time = (time.monotonic() - began) / since
            self._refined = run.step
        measure_paintings(run, self._faces.large, self._config.landmarks)

    def _owed(self) -> float:
        """Estimate the seconds that the refiners will take at the next save."""
        run = self._run
        since = run.step - self._refined
        share = REFINING_SHARE_GPU if self._device.type == "cuda" else REFINING_SHARE
        typical = share * self._recipe.refine * run.seconds / max(run.step, 1)
        return since * (self._refining_time or typical)

    def _decide(self, now: float) -> Due:
        """Decide what is due before the next step, alike in all processes."""
        run, config = self._run, self._config
        times = (self._saved, self._reported, self._previewed)
        clock = [run.seconds, self._owed(), *(now - then for then in times)]
        clock, self._told = self._world.agree(clock, self._stop.is_set())
        seconds, owed, saved, reported, previewed = clock
        share = _share_done(run.step, seconds + owed, config)
        shared = self._world.size > 1 and distributed.is_elastic()
        self._leaving = self._told and shared and share < 1
        end = share >= 1 or self._told
        stepped = bool(self._pending)  # since the last report
        every = config.preview_every * 60
        save = end or (stepped and saved >= config.save_every * 60)
        finish = save
        if not (config.steps or config.minutes):
            cycle, share = _cycle(seconds)
            finish = (save and not cycle) or cycle > self._cycle
            save = save or finish
            self._cycle = cycle
        report = stepped and (save or reported >= REPORT_SECONDS)
        preview = end or (stepped and every > 0 and previewed >= every)
        if self._leaving:  # the machine may go away within seconds
            preview = finish = False
        return Due(share, end, report, preview, save, finish)

    def _fitting_step(self, warp: bool) -> Tensor:
        """Take a step, halving the batch each time the device runs out of memory.

        Raises:
            DeviceError: If not even one face fits, or the network cannot be compiled.
        """
        while True:
            try:
                return self._step(warp)
            except self._compile_errors as error:
                raise DeviceError(
                    f"the network cannot be compiled for {self._device} ({reason(error)}): "
                    "install a C compiler, such as gcc, or run again without --compile"
                ) from error
            except torch.OutOfMemoryError as error:
                # The other processes wait for gradients of this step and cannot repeat it.
                if self._world.size > 1 or self._batch == 1:
                    raise DeviceError(
                        f"the memory of {self._device} is too small for a batch of "
                        f"{self._batch} at step {self._run.step}; {self._folder} keeps the last "
                        "saved state: run again with a smaller --batch-size, --size or --model"
                    ) from error
                half = self._batch // 2
                log.warning(
                    "the memory of %s is too small for a batch of %d: continuing with %d",
                    self._device, self._batch, half,
                )  # fmt: skip
                self._batch = half
                if self._recorder:
                    self._recorder.forget()
            # Free gradients outside `except`: the traceback keeps the graph alive.
            self._run.optimizer.zero_grad()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _step(self, warp: bool) -> Tensor:
        """Take an optimizer step on both identities; return their losses, (2,), on the device."""
        size, world = self._batch, self._world
        run, recipe = self._run, self._recipe
        crops: dict[str, Tensor] = {"a": self._faces.seen["a"], "b": self._faces.seen["b"]}
        companion = self._companion()
        if companion:
            crops[f"also/{companion.name}"] = self._faces.also[companion.name]
        draws = []
        for key, some in crops.items():
            deck = self._faces.decks.get(key)
            deck = torch.arange(len(some)) if deck is None else deck
            flip = key != "b" or len(some) < ENOUGH_FACES or not recipe.even
            draw = draw_batch(run, deck, key, size, world, warp, recipe.jitter, flip)
            draws.append(draw.to(self._device))
        if run.average:
            self._ema_share.fill_(ema_share(recipe.average, run.step))
        step = partial(self._learn, crops, companion)
        return self._recorder(step, draws) if self._recorder else step(draws)

    def _learn(
        self, crops: dict[str, Tensor], companion: Companion | None, draws: list[Draw]
    ) -> Tensor:
        """Do the device's part of a step.

        Args:
            crops: Faces of a, of b and of the companion.
            companion: Whose turn it is.
            draws: Random numbers for each of the three.
        """
        run = self._run
        (a, b, *third) = [
            sample_batch(run, some, key, draw)
            for (key, some), draw in zip(crops.items(), draws, strict=True)
        ]
        turn = Turn(companion, *third[0]) if companion else None
        warped, targets = (a[0], b[0]), (a[1], b[1])
        losses = learn(run, self._pair, warped, targets, self._loss, self._scaler, turn)
        if run.average:
            update_ema(run.average, run.network, self._ema_share)
        return losses

    def _loss(self, faces: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of this process's shard, weighted by its share of the batch."""
        loss, weight = self._masked_loss(faces, targets), self._world.weight(self._batch)
        return loss if weight == 1 else loss * weight

    def _companion(self) -> Companion | None:
        """Return the companion whose turn it is; None if there are none."""
        people = self._run.companions
        return people[self._run.step % len(people)] if people else None

    def _report(self, now: float) -> bool:
        """Report the mean losses; return False if they or the weights are not finite."""
        means: list[float] = self._world.mean(torch.stack(self._pending).mean(dim=0)).tolist()
        self._pending, self._reported = [], now
        weights = torch.stack([p.detach().sum() for p in self._run.network.parameters()])
        if not all(map(math.isfinite, [*means, float(weights.sum())])):
            return False
        self._means = means
        if self._monitor:
            self._monitor.losses(means)
        return True

    def _roll_back(self) -> None:
        """Return to the last saved state with a lower learning rate; raise an error next time."""
        run, folder = self._run, self._folder
        broken = run.step
        if run.lr_scale < 1:
            raise TrainingError(
                f"the loss is no longer finite at step {broken}, for the second time; {folder} "
                "keeps the last saved state: run again with a lower --learning-rate"
            )
        state = checkpoint.read_state(folder) if self._monitor else None
        checkpoint.restore(run, self._world.share(state), folder)
        if self._recorder:
            self._recorder.forget()
        run.lr_scale = ROLL_BACK_RATE
        if self._monitor:
            checkpoint.trim_metrics(folder, run.step)
            checkpoint.save(
                run, folder, self._config.keep, model=False
            )  # a kill must not undo the rate
            log.warning(
                "the loss was no longer finite at step %d: continuing from step %d at %g of the "
                "learning rate",
                broken, run.step, run.lr_scale,
            )  # fmt: skip


def learn(
    run: TrainingState, pair: nn.Module, warped: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor], loss_of: Callable[[Tensor, Tensor], Tensor],
    scaler: torch.amp.GradScaler, turn: Turn | None = None,
) -> Tensor:  # fmt: skip
    """Take one optimizer step on faces of a, of b and of a companion.

    Returns:
        The losses of a and b, (2,).
    """
    decoded = pair(*warped) if turn is None else pair(*warped, turn)
    wanted = targets if turn is None else (*targets, turn.target)
    losses = torch.stack([loss_of(*each) for each in zip(decoded, wanted, strict=True)])
    optimizers = [run.optimizer] if turn is None else [run.optimizer, turn.companion.optimizer]
    for optimizer in optimizers:
        optimizer.zero_grad()
    scaler.scale(losses.sum()).backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step(scaler)
    scaler.update()
    return losses[:2].detach()


def ema_share(decay: float, step: int) -> float:
    """Return the share of a step's weights in their moving average, larger in early steps."""
    return max(1 - decay, 9 / (10 + step))


@torch.no_grad()
def update_ema(average: Autoencoder, network: Autoencoder, share: Tensor) -> None:
    """Move an exponential moving average towards the network's weights by a share, ()."""
    means: list[Tensor] = list(average.parameters())
    weights: list[Tensor] = list(network.parameters())
    moves = torch._foreach_sub(weights, means)
    torch._foreach_mul_(moves, share)
    torch._foreach_add_(means, list(moves))


def _share_done(step: int, seconds: float, config: TrainConfig) -> float:
    """Return the share of the requested steps or minutes that is done; 0 without a limit."""
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (config.minutes * 60) if config.minutes else 0.0
    return max(by_steps, by_time)


def _cycle(seconds: float) -> tuple[int, float]:
    """Return the number of the cycle, from 0, in which a training time lies, and its share done.

    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """
    grown = 1 + seconds * (CYCLE_GROWTH - 1) / FIRST_CYCLE
    number = math.floor(math.log(grown) / math.log(CYCLE_GROWTH))
    start = FIRST_CYCLE * (CYCLE_GROWTH**number - 1) / (CYCLE_GROWTH - 1)
    return number, min((seconds - start) / (FIRST_CYCLE * CYCLE_GROWTH**number), 1.0)


def _rate_factor(step: int, share: float, recipe: Recipe) -> float:
    """Return the learning rate factor: linear warm-up, constant, then cosine decay to the end.

    Without a known end ``share`` is that of the current cycle.
    """
    warm = min(1.0, 0.1 + 0.9 * step / recipe.warm_up) if recipe.warm_up else 1.0
    late = max(0.0, (min(share, 1.0) - DECAY_FROM) / (1 - DECAY_FROM))
    return warm * (recipe.decay_to + (1 - recipe.decay_to) * (1 + math.cos(math.pi * late)) / 2)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set signal handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        event.set()
        restore()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        restore()
