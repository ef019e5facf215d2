"""Say where photos and videos come from: their Content Credentials, and the watermark in them.

The credentials are signed, but are lost whenever a file is encoded again. The watermark survives
that, but is not signed. Each of them is looked for in every file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from faceswap.errors import FaceswapError, InputError, NoCredentialsError, TamperedError
from faceswap.media.footage import Footage, identify
from faceswap.media.photos import read_photo
from faceswap.provenance import watermark
from faceswap.provenance.credentials import Credentials, FileCredentials, FileError, read
from faceswap.provenance.watermark import Detector, Sighting, WatermarkCheck
from faceswap.types import OnProgress, Progress, ignore_progress

WINDOW = 150  # frames that are added up to find the watermark
EVERY = 2  # frames of a window from one that is looked at to the next
MAX_WINDOWS = 120  # of a long video that are looked at: ten minutes at 30 frames per second
READ_WINDOWS = 8  # that are looked at, from the first with the watermark, to read all of its bits


@dataclass(slots=True)
class Verification:
    """The result of verifying several files.

    Attributes:
        facts: A record for each file.
        worst: The most serious error (altered or expired, then no credentials, then any other);
            None if every file is intact.
    """

    facts: list[FileCredentials | FileError] = field(default_factory=list)
    worst: FaceswapError | None = None

    def note(self, error: FaceswapError) -> None:
        """Keep an error if it is worse than the worst so far."""
        if self.worst is None or _severity(error) > _severity(self.worst):
            self.worst = error


def _severity(error: FaceswapError) -> int:
    return 2 * isinstance(error, TamperedError) + isinstance(error, NoCredentialsError)


def verify(
    files: Iterable[str | Path],
    trust: str | Path | None = None,
    *,
    thorough: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Verification:
    """Verify the Content Credentials of photos and videos, and look for this program's watermark.

    Args:
        files: The files, made by this program or any other; an error with one of them is recorded
            and does not stop the others.
        trust: PEM file of certificates to trust [default: none]. If it cannot be read, that error
            is recorded for every file.
        thorough: Whether to look for the watermark everywhere in a video of more than ten minutes
            instead of in samples that are spread over it.
        on_progress: Called after each part of a video that was searched.
    """
    result = Verification()
    for file in map(Path, files):
        look = partial(look_for_watermark, file, thorough=thorough, on_progress=on_progress)
        try:
            found = read(file, Path(trust) if trust else None)
        except NoCredentialsError as error:
            result.note(error)
            result.facts.append(FileError(str(file), str(error), look()))
            continue
        except FaceswapError as error:
            result.note(error)
            result.facts.append(FileError(str(file), str(error)))
            continue
        if not found.intact:
            result.note(
                TamperedError(
                    f"the credentials of {file} are no longer valid: their certificate has expired"
                    if found.expired
                    else f"{file} was altered after it was signed"
                )
            )
        values = {f.name: getattr(found, f.name) for f in fields(Credentials)}
        result.facts.append(
            FileCredentials(file=str(file), watermark=look(named=found.binding), **values)
        )
    return result


def look_for_watermark(
    path: Path, named: str | None = None, *, thorough: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> WatermarkCheck:  # fmt: skip
    """Look for the watermark of this program in a photo or a video.

    Args:
        path: The file.
        named: The bits that its credentials name, hexadecimal; None if they name none.
        thorough: See :func:`verify`.
        on_progress: Called after each part of a video that was searched.

    Returns:
        What was found; if the file cannot be decoded, the reason.
    """
    try:
        _, footage = identify(path)
        if footage is None:
            detector = Detector()
            detector.add(read_photo(path).gray())
            seen = detector.detect()
            return _check_of([seen] if seen else [], named, 1, 1, is_complete=True)
        return _search(footage, named, thorough, on_progress)
    except InputError as error:
        return WatermarkCheck(found=False, reason=str(error))


def _search(
    footage: Footage, named: str | None, thorough: bool, on_progress: OnProgress
) -> WatermarkCheck:
    """Look for the watermark in windows of a video until it is found and can be read."""
    count = len(footage.times())
    starts = [*range(0, max(count - WINDOW // 2, 1), WINDOW)]  # half a window or more
    spread = _spread_out(starts)
    chosen = spread if thorough else spread[:MAX_WINDOWS]
    sightings: list[Sighting] = []
    frames = looked = reading = 0
    for looked, start in enumerate(chosen, start=1):
        detector = Detector()
        for frame in islice(footage.read(start), 0, WINDOW, EVERY):
            detector.add(frame.gray())
        frames += detector.frames
        seen = detector.detect()
        sightings += [seen] if seen else []
        on_progress(Progress(looked, len(chosen), "parts", "watermark found" if seen else ""))
        reading += bool(sightings)
        if sightings and (reading == READ_WINDOWS or not _is_open(sightings)):
            break
    is_complete = bool(sightings) or len(chosen) == len(starts)
    return _check_of(sightings, named, frames, looked, is_complete)


def _spread_out(starts: list[int]) -> list[int]:
    """Order the starts so that any first few of them are spread evenly.

    This is the van der Corput sequence: the places' bits are reversed.
    """
    digits = max(len(starts) - 1, 0).bit_length()
    order = sorted(
        range(len(starts)), key=lambda at: int(f"{at:0{digits}b}"[::-1], 2) if digits else 0
    )
    return [starts[at] for at in order]


def _is_open(sightings: list[Sighting]) -> bool:
    return not watermark.are_clear(_bits_of(sightings)).all()


def _bits_of(sightings: list[Sighting]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the score of each bit in all sightings together."""
    return np.asarray(sum(seen.bits for seen in sightings) / np.sqrt(len(sightings)))


def _check_of(
    sightings: list[Sighting], named: str | None, frames: int, looked: int, is_complete: bool
) -> WatermarkCheck:
    if not sightings:
        return WatermarkCheck(found=False, frames=frames, complete=is_complete)
    best = max(sightings, key=lambda seen: seen.score)
    bits = _bits_of(sightings)
    digits = watermark.digits_of(bits)
    return WatermarkCheck(
        found=True, model=digits[:4], source=digits[4:], score=round(best.score, 1),
        chance=min(looked * watermark.chance_of(best.score), 1.0), mirrored=best.is_mirrored,
        agrees=watermark.agree(bits, int(named, 16)) if named else None,
        frames=frames, complete=is_complete,
    )  # fmt: skip
