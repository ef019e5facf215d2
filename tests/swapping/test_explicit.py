"""Explicit footage is refused before any work, in every way that a swap can be asked for.

``flagged.png`` shows nothing; an optimiser made it so that the classifier takes it for explicit.
"""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap.config import ConvertConfig, EvaluateConfig
from faceswap.errors import ExplicitFootageError
from faceswap.evaluation.evaluator import measure_clip
from faceswap.media.frame import Frame
from faceswap.media.writers import write_clip
from faceswap.models import modelfile
from faceswap.swapping import explicit
from faceswap.swapping.batch import convert_all, jobs_of, read_jobs
from faceswap.swapping.converter import contact_sheet, convert
from faceswap.swapping.explicit import LIMIT, score_of
from faceswap.swapping.redo import redo
from faceswap.swapping.swapper import Swapper
from faceswap.types import ignore_progress

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")
GRID = np.asarray(Image.open(Path(__file__).parents[1] / "support" / "flagged.png"))


def flagged(width=256, height=256):
    return np.asarray(cv2.resize(GRID, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write(path, images, rate=10):
    sound = np.zeros(len(images) * 4800, np.int16)
    write_clip(path, images, rate, sound, 48000)
    return path


@pytest.fixture
def clip(tmp_path, collins):
    """Three seconds; the frames from 1.2 to 1.5 seconds look explicit."""
    images = [flagged(512, 512) if 12 <= at < 15 else collins for at in range(30)]
    return write(tmp_path / "clip.mp4", images)


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_shots_are_refused_with_their_times_and_nothing_is_written(clip, model):
    before = files_in(clip.parent)

    with pytest.raises(ExplicitFootageError) as caught:
        convert(clip, None, model, QUICK)

    assert caught.value.exit_code == 14
    assert str(caught.value).startswith(f"{clip} looks explicit (score 0.9")
    assert "frame 12 at 0:01.2" in str(caught.value)
    assert "leave these shots out with --frames, or with --start and --end" in str(caught.value)
    assert files_in(clip.parent) == before


@pytest.mark.parametrize("settings", [
    {"frames": "0-11,15-"}, {"end": "1.1"}, {"start": "1.6"},
])  # fmt: skip
def test_leaving_the_shots_out_is_the_way_on(clip, model, settings):
    report = convert(clip, None, model, replace(QUICK, **settings))

    assert report.faces > 0


def test_frames_that_include_the_shot_are_refused(clip, model):
    with pytest.raises(ExplicitFootageError):
        convert(clip, None, model, replace(QUICK, frames="13-14"))


def test_photo_is_refused(tmp_path, model):
    Image.fromarray(flagged()).save(tmp_path / "x.png")

    with pytest.raises(ExplicitFootageError, match=r"x\.png looks explicit"):
        convert(tmp_path / "x.png", None, model, QUICK)

    assert files_in(tmp_path) == ["x.png"]


def test_folder_is_refused_with_the_names_of_its_photos(tmp_path, collins, model):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(collins).save(folder / "good.png")
    for number in range(7):
        Image.fromarray(flagged()).save(folder / f"bad{number}.jpg")
    (folder / "torn.png").write_bytes(b"\x89PNG")

    with pytest.raises(ExplicitFootageError) as caught:
        convert(folder, None, model, QUICK)

    assert "7 photos of" in str(caught.value)
    assert "bad0.jpg, bad1.jpg, bad2.jpg, bad3.jpg, bad4.jpg and 2 more" in str(caught.value)
    assert files_in(tmp_path) == sorted(["photos", *files_in(folder)])


def test_sequence_is_refused(tmp_path, collins, model):
    for number in range(6):
        image = flagged(512, 512) if number == 3 else collins
        Image.fromarray(image).save(tmp_path / f"shot.{1000 + number}.png")

    with pytest.raises(ExplicitFootageError, match=r"frame 1003 at 0:00\.1"):
        convert(tmp_path / "shot.####.png", None, model, QUICK)

    assert len(files_in(tmp_path)) == 6


def test_preview_redo_clip_of_evaluate_and_api_are_refused(clip, model, tmp_path):
    with pytest.raises(ExplicitFootageError):
        contact_sheet(clip, tmp_path / "sheet.png", 30, model, QUICK)
    output = convert(clip, None, model, replace(QUICK, frames="0-10")).output
    content = output.read_bytes()
    with pytest.raises(ExplicitFootageError, match="frame 12"):
        redo(clip, "11-14", output, model)
    assert output.read_bytes() == content
    settings = EvaluateConfig(device="cpu")
    with pytest.raises(ExplicitFootageError):
        measure_clip(clip, Swapper(modelfile.load(model), QUICK), settings, ignore_progress)
    swapper = Swapper(modelfile.load(model), QUICK)
    with pytest.raises(ExplicitFootageError, match="the image looks explicit"):
        swapper.swap(flagged())
    assert not (tmp_path / "sheet.png").exists()


def test_job_is_refused_and_the_others_are_done(clip, model, collins, tmp_path):
    Image.fromarray(collins).save(tmp_path / "good.png")
    jobs = jobs_of([clip, tmp_path / "good.png"], None, model, QUICK)

    refused, done = convert_all(jobs)

    assert (refused.state, refused.error.kind, refused.error.exit_code) == (
        "failed", "ExplicitFootageError", 14
    )  # fmt: skip
    assert done.state == "done"


def test_jobs_file_has_no_setting_that_switches_it_off(clip, tmp_path):
    from faceswap.errors import SettingsError

    for name in ("allow_explicit", "explicit", "nsfw", "filter", "gate"):
        (tmp_path / "jobs.toml").write_text(
            f'[settings]\n{name} = true\n[[job]]\ninputs = "{clip.name}"\n'
        )
        with pytest.raises(SettingsError):
            read_jobs(tmp_path / "jobs.toml")


def test_command_ends_with_its_exit_code_and_one_line(clip, model):
    done = subprocess.run(
        [sys.executable, "-m", "faceswap", "convert", clip, "--model", model, "--device", "cpu"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 14
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("faceswap: error: ")]
    assert "looks explicit" in line
    assert "Traceback" not in done.stderr


def test_forced_score_refuses_any_footage(clip, model, monkeypatch):
    monkeypatch.setattr(explicit, "score_of", lambda image: LIMIT)

    with pytest.raises(ExplicitFootageError, match=r"score 0\.65, the limit is 0\.65"):
        convert(clip, None, model, replace(QUICK, frames="0-5"))


def between_bars(image):
    """Show an image upright in the middle of a wide, blurred one, as phones and news do."""
    wide = cv2.GaussianBlur(cv2.resize(image, (640, 360)), (0, 0), 30)
    wide[:, 219:421] = cv2.resize(image, (202, 360))
    return wide


ROUND_ABOUT = {
    "turned": lambda image: np.rot90(image),
    "upside down": lambda image: np.rot90(image, 2),
    "mirrored": lambda image: image[:, ::-1],
    "letter box": lambda image: np.pad(image, ((60, 60), (0, 0), (0, 0))),
    "coloured border": lambda image: cv2.copyMakeBorder(
        image, 60, 60, 90, 90, cv2.BORDER_CONSTANT, value=(20, 90, 50)
    ),
    "64 pixels": lambda image: cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA),
    "wide": lambda image: cv2.resize(image, (640, 360)),
    "between blurred bars": lambda image: between_bars(image),
    "blurred bars above and below": lambda image: between_bars(image.swapaxes(0, 1)).swapaxes(0, 1),
    "dark": lambda image: (image * 0.2).astype(np.uint8),
}


@pytest.mark.parametrize("way", ROUND_ABOUT)
def test_ways_round_are_closed(way):
    assert score_of(np.ascontiguousarray(ROUND_ABOUT[way](flagged()))) >= LIMIT


def test_one_frame_of_a_long_film_is_found():
    """The frame lies between two samples, and the picture before and after it never changes."""
    still = np.full((120, 160, 3), 90, np.uint8)
    frames = (
        (Frame(flagged(160, 120) if at == 4321 else still, at, Fraction(at, 25), Path()), True)
        for at in range(6000)
    )

    with pytest.raises(ExplicitFootageError, match=r"frame 4321 at 2:52\.8"):
        explicit.refuse_explicit_frames(Path("film"), frames, int, None, ignore_progress)


def test_one_frame_a_second_and_each_new_shot_is_looked_at(collins):
    dark = np.zeros_like(collins)
    frames = (
        (Frame(collins if at < 37 else dark, at, Fraction(at, 10), Path()), at < 60)
        for at in range(100)
    )

    seen = [frame.index for frame in explicit._to_look_at(frames, None, ignore_progress)]

    assert seen == [0, 10, 20, 30, 37, 47, 57]


def test_faces_are_no_reason(collins, monkeypatch):
    """A picture counts only if it still looks explicit with its faces covered."""
    classified = explicit._classified
    grey = explicit.MEAN[::-1].round()

    def afraid_of_faces(image):
        covered = (image == grey).all(axis=2).mean() > 0.02
        return classified(image) if covered else 0.99

    assert score_of(collins) < 0.1
    monkeypatch.setattr(explicit, "_classified", afraid_of_faces)
    assert score_of(collins) < LIMIT
