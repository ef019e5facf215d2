"""The plain loop that ``convert.py`` and ``extract.py`` are compared with, and the comparison."""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import cv2
import dlib
import numpy as np
import torch

from faceswap.arrays import Image, Matrix
from faceswap.config import COVERAGE
from faceswap.faces.dlib_backend import weights
from faceswap.faces.geometry import face_matrix
from faceswap.models import autoencoder
from faceswap.models.architectures import PRESETS

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "video"
DEFAULT = [CLIPS / "one_face_720p.mp4", CLIPS / "talking_512.mp4"]
SIZE = 256  # side of the rival's crops in pixels


class Rival:
    """Reads with cv2, runs HOG on every whole frame, swaps face by face and drops the sound."""

    def __init__(self) -> None:
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(weights("shape_predictor_68_face_landmarks.dat"))
        self._net = autoencoder.build(PRESETS["original"]).eval()

    def crops(self, frame: Image) -> list[tuple[Image, Matrix]]:
        """Aligned crops (256, 256, 3) of a frame's faces and their matrices."""
        found = []
        for box in self._hog(frame, 0):
            parts = self._predictor(frame, box).parts()
            points = np.array([(part.x, part.y) for part in parts], np.float32)
            matrix = face_matrix(points, SIZE, COVERAGE)
            crop = cv2.warpAffine(frame, matrix, (SIZE, SIZE))
            found.append((np.asarray(crop, np.uint8), matrix))
        return found

    def convert(self, clip: Path, folder: Path) -> int:
        """Swap every face of a clip and return how many there were."""
        reader = cv2.VideoCapture(str(clip))
        size = [int(reader.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        rate = reader.get(cv2.CAP_PROP_FPS)
        writer = cv2.VideoWriter(
            str(folder / "rival.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), rate, size
        )
        faces = 0
        while (read := reader.read())[0]:
            frame = _rgb(read[1])
            for crop, matrix in self.crops(frame):
                frame = self._paste(frame, crop, matrix)
                faces += 1
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        return faces

    @torch.no_grad()
    def _paste(self, frame: Image, crop: Image, matrix: Matrix) -> Image:
        inner = cv2.resize(crop[48:208, 48:208], (64, 64))
        batch = torch.from_numpy(inner.transpose(2, 0, 1)[None] / np.float32(255))
        decoded = self._net(batch, "b")[0].permute(1, 2, 0).numpy() * 255
        crop[48:208, 48:208] = cv2.resize(decoded, (160, 160))
        cv2.warpAffine(
            crop, matrix, frame.shape[1::-1], frame, cv2.WARP_INVERSE_MAP, cv2.BORDER_TRANSPARENT
        )
        return frame

    def extract(self, clip: Path, folder: Path) -> int:
        """Write a crop of every face of a clip and return how many there were."""
        reader = cv2.VideoCapture(str(clip))
        faces = 0
        while (read := reader.read())[0]:
            for crop, _ in self.crops(_rgb(read[1])):
                cv2.imwrite(str(folder / f"{faces:06d}.png"), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
                faces += 1
        return faces


def _rgb(frame: cv2.typing.MatLike) -> Image:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


def peak_memory(command: list[str]) -> float:
    """Peak memory of a command and all its processes, shared pages counted once, in MB."""
    process = subprocess.Popen([sys.executable, "-m", "faceswap", *command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, sum(_memory(pid) for pid in _tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(errors.decode())
    return peak


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        threads = [p.name for p in Path(f"/proc/{pid}/task").iterdir()]
        for thread in threads:
            children += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in dict.fromkeys(children) for one in _tree(int(child)))]


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def options(description: str) -> argparse.Namespace:
    """Parse the command line of both scripts."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--clip", type=Path, action="append", help="clip to process; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="skip the memory measurement")
    chosen = parser.parse_args()
    chosen.clip = chosen.clip or [clip for clip in DEFAULT if clip.is_file()]
    if not chosen.clip:
        parser.error("the default clips are missing; pass --clip FILE")
    return chosen


def compare(
    clips: list[Path],
    rounds: int,
    rival: Callable[[Path], int],
    ours: Callable[[Path], tuple[int, int]],
    memory: Callable[[Path], float] | None,
) -> None:
    """Alternate the two loops on each clip, print the comparison and one JSON object.

    Args:
        clips: The clips to process.
        rounds: How often each side processes each clip.
        rival: Processes a clip and returns the number of faces.
        ours: Processes a clip and returns the numbers of frames and faces.
        memory: Processes a clip in a separate run and returns its peak memory in MB.
    """
    result = {}
    for clip in clips:
        times: dict[str, list[float]] = {"rival": [], "ours": []}
        for _ in range(rounds):
            began = time.perf_counter()
            reference = rival(clip)
            times["rival"].append(time.perf_counter() - began)
            # Stop the fork server, so that our side loads its weights again too.
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
            began = time.perf_counter()
            frames, faces = ours(clip)
            times["ours"].append(time.perf_counter() - began)
        median = {name: float(np.median(seconds)) for name, seconds in times.items()}
        result[clip.stem] = {
            "ratio": round(median["rival"] / median["ours"], 2),
            "frames_per_second": round(frames / median["ours"], 1),
            "faces": faces,
            "reference_frames_per_second": round(frames / median["rival"], 1),
            "reference_faces": reference,
            "peak_memory_mb": round(memory(clip)) if memory else None,
        }
        print(f"{clip.stem}: {result[clip.stem]}", flush=True)
    print(json.dumps(result))
