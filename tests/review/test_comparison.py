"""Two models or settings are compared on the same frame and on held-out faces."""

import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from faceswap.cli.main import cli
from faceswap.errors import InputError, SettingsError
from faceswap.evaluation.results import (
    Baselines,
    DirectionScores,
    EvaluationReport,
    OcclusionScores,
    ReconstructionRows,
    ReconstructionScores,
    Score,
    SwapScores,
)
from faceswap.review.comparison.numbers import Candidate, table
from faceswap.review.conversion.choices import Look
from faceswap.review.workspace import Place, Workspace, people_of
from tests.review.browser import opened
from tests.review.conftest import at
from tests.support.clips import write_lossless


def scores(kind, value, spread=0.1):
    return {name: Score(value, value - spread, value + spread) for name in kind.__slots__}


def report(value, spread=0.1):
    """An evaluation in which every score of the model is the same."""
    real = SwapScores(**scores(SwapScores, 1.0))
    direction = DirectionScores(
        **scores(SwapScores, value, spread),
        baselines=Baselines(**dict.fromkeys(Baselines.__slots__, real)),
        occlusion=OcclusionScores(3, None, None, None),
    )
    rows = ReconstructionRows(*[ReconstructionScores(**scores(ReconstructionScores, 1.0))] * 2)
    return EvaluationReport(
        ("ada", "bob"), 300, 1.0, {"a": 4, "b": 5}, direction, direction, rows, rows
    )


@pytest.fixture
def candidate(tmp_path):
    folder = tmp_path / "models" / "x"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    return lambda look: Candidate(Place("1", "models/x", folder), look)


def write(candidate, value):
    candidate.path.parent.mkdir(exist_ok=True)
    candidate.path.write_bytes(msgspec.json.encode(value))


def test_numbers_are_kept_by_the_settings_that_evaluate_knows(candidate):
    usual = candidate(Look(blend="poisson", erosion=0.1, match_detail=False))
    other = candidate(Look(color="linear", mask="hull", identity_strength=0.5))
    write(usual, report(1.0))

    assert usual.path.name == "usual.json"
    assert other.path.name == "color-linear_mask-hull_identity-strength-0.5.json"
    assert usual.numbers() == report(1.0)
    assert other.numbers() is None


def test_numbers_of_an_older_state_of_the_model_do_not_count(candidate):
    usual = candidate(Look())
    write(usual, report(1.0))
    later = usual.path.stat().st_mtime_ns + 10**9

    os.utime(usual.model.path / "model.safetensors", ns=(later, later))

    assert usual.numbers() is None


def test_damaged_numbers_and_links_are_named(candidate, tmp_path):
    usual = candidate(Look())
    write(usual, {"names": 3})
    with pytest.raises(InputError, match=r"usual\.json is no evaluation"):
        usual.numbers()
    usual.path.unlink()
    usual.path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match="is a link"):
        usual.numbers()


def test_command_line_takes_the_arguments(candidate, tmp_path):
    chosen = candidate(Look(color="linear", expression_range=2.0, to="a"))
    a, b = Place("2", "data/ada/faces", None), Place("3", "data/bob/faces", None)

    args = chosen.arguments(a, b, tmp_path)

    context = cli.commands["evaluate"].make_context("evaluate", args[1:])
    assert context.params["color"] == "linear"
    assert context.params["expression_range"] == 2
    assert context.params["save_json"] == Path(
        "models/x/evaluations/color-linear_expression-range-2.json"
    )
    with pytest.raises(SettingsError, match="same faceset"):
        chosen.arguments(a, a, tmp_path)


def test_better_is_what_is_certainly_nearer_to_the_goal():
    rows = {row["name"]: row for row in table(report(0.6), report(0.9), "b")}
    assert rows["identity transfer"]["better"] == "right"  # more is better
    assert rows["nme"]["better"] == "left"  # less is better
    assert rows["sharpness 1"]["better"] == "right"  # 1 is right
    assert rows["sharpness 1"]["real"].value == 1
    assert "finest octave" in rows["sharpness 1"]["about"]

    assert {row["better"] for row in table(report(0.6, 0.3), report(0.9), "b")} == {None}
    assert {row["better"] for row in table(report(0.6), None, "a")} == {None}
    assert all(row["left"] is None for row in table(None, None, "b"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"names": ["x"]}', '{"names": 3}', "[" * 10_000])
def test_model_that_does_not_say_its_people(tmp_path, text):
    (tmp_path / "config.json").write_text(text)

    assert people_of(Place("1", "x", tmp_path), []) == {"a": None, "b": None}


@pytest.fixture
def both(workspace, faceset_folders, model, together):
    """The facesets of a model, the model twice, and a clip."""
    for folder in faceset_folders:
        shutil.copytree(folder, workspace / "data" / folder.parent.name / "faces")
    for name in ("one", "two"):
        shutil.copytree(model, workspace / "models" / name)
    write_lossless(workspace / "clip.mkv", [np.roll(together, 9 * n, axis=1) for n in range(3)])
    return Workspace(workspace)


def test_people_of_a_model_are_found(both, faceset_folders):
    names = {place.id: place.name for place in both.facesets()}

    found = people_of(both.trained()[0], both.facesets())

    wanted = [f"data/{folder.parent.name}/faces" for folder in faceset_folders]
    assert [names[found[key]] for key in "ab"] == wanted


@pytest.mark.browser
@pytest.mark.slow
def test_candidates_are_compared(server, both, workspace, together):
    with opened(server.address) as page:
        page.set_default_timeout(300_000)
        page.click("nav a >> text=Compare")
        page.wait_for_selector("[data-ready]")
        page.select_option("#right [name=color]", "none")
        page.wait_for_selector("[data-state=busy]", state="detached")
        page.keyboard.press("z")
        original = at(page, "#picture")
        page.keyboard.press("a")
        left = at(page, "#picture")
        page.keyboard.press("s")
        right = at(page, "#picture")
        assert (left != original).any()
        assert (right != left).any()
        page.keyboard.press("w")
        wiped, width = at(page, "#picture"), original.shape[1]
        assert (wiped[:, : width // 2 - 1] == left[:, : width // 2 - 1]).all()
        assert (wiped[:, width // 2 + 1 :] == right[:, width // 2 + 1 :]).all()
        page.keyboard.press("b")
        assert at(page, "#picture").shape[1] == 2 * width
        assert page.inner_text("#of-left") == "Left: not measured"
        page.select_option("#right [name=color]", "auto")  # two models with the same settings
        page.select_option("#right [name=model]", label="one")
        page.wait_for_selector("[data-state=busy]", state="detached")
        page.click("#measure")
        page.wait_for_selector('[data-measured="left right"]')
        assert page.inner_text("#of-left").startswith("Left: 3 steps")
        assert page.locator("#rows tr").count() > 20
        assert page.locator("td.better").count() == 0  # of a model and itself
        assert page.inner_text("#verdict").startswith("Both sides are the same")
        page.select_option("#right [name=model]", label="two")
        page.wait_for_selector('[data-measured="left"]')
        assert page.inner_text("#verdict") == ""
    jobs = [*(workspace / ".faceswap" / "jobs").iterdir()]
    assert len(jobs) == 1  # both sides were the same
    saved = json.loads((workspace / "models" / "one" / "evaluations" / "usual.json").read_text())
    assert saved["steps"] == 3
