"""What is chosen for a clip is in files beside it, which the command line reads."""

import os
from pathlib import Path

import pytest
import tomli_w

from faceswap.errors import InputError, SettingsError
from faceswap.review.conversion.choices import Choices, Look
from faceswap.review.workspace import Workspace
from faceswap.swapping.batch import read_jobs
from faceswap.swapping.cast import read_cast
from faceswap.swapping.shots import SETTINGS, Shot, read_shots


@pytest.fixture
def place(tmp_path):
    """A workspace with two models and a clip in a folder."""
    for name in ("models/one", "models/two"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    return Workspace(tmp_path)


@pytest.fixture
def choices(place):
    return Choices(place.clips()[0], place)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_looking_writes_nothing(choices, tmp_path):
    before = files(tmp_path)

    found = choices.read()

    assert (found["model"], found["shots"], found["cast"]) == (None, [], [])
    assert found["look"]["color"] == "auto"
    assert choices.settings() == {}
    assert files(tmp_path) == before


def test_choice_is_a_jobs_file(choices, place, tmp_path):
    choices.choose(place.models()[1], Look(color="linear", feather=0.1, to="a"))

    (job,) = read_jobs(tmp_path / "clips" / "a.mp4.jobs.toml")
    assert job.source == tmp_path / "clips" / "a.mp4"
    assert job.model.resolve() == tmp_path / "models" / "two"
    assert (job.config.color, job.config.feather, job.config.to) == ("linear", 0.1, "a")
    again = choices.read()
    assert again["model"] == place.models()[1].id
    assert (again["look"]["color"], again["look"]["to"]) == ("linear", "a")


def test_other_settings_in_the_file_stay(choices, place):
    choices.jobs.write_text(
        '[[job]]\ninputs = "a.mp4"\noutput = "b.mp4"\nsettings = { quality = 12, mask = "hull" }\n'
    )

    choices.choose(place.models()[0], Look(color="none"))

    (job,) = read_jobs(choices.jobs)
    assert (job.config.quality, job.config.mask, job.config.color) == (12, "skin", "none")
    assert job.output.name == "b.mp4"


def test_shot_holds_what_differs_from_the_clip(choices, place):
    choices.choose(place.models()[0], Look(color="linear", feather=0.1))

    choices.choose_for_shot("20-29", Look(color="linear", mask="hull"))
    choices.choose_for_shot("3-9", Look(color="none", feather=0.1, all_faces=True, to="a"))

    assert read_shots(choices.shots) == [
        Shot("3-9", {"color": "none"}), Shot("20-29", {"mask": "hull"}),
    ]  # fmt: skip
    (job,) = read_jobs(choices.jobs)
    assert Path(job.config.shots) == choices.shots
    assert choices.settings()["shots"] == str(choices.shots)
    choices.choose_for_shot("3-9", None)
    choices.choose_for_shot("20-29", Look(color="linear", feather=0.1))
    assert read_shots(choices.shots) == []
    assert read_jobs(choices.jobs)[0].config.shots is None


def test_people_of_the_cast_have_photos_and_models(choices, place):
    one, two = place.models()
    choices.choose(one, Look(to="a", all_faces=True, color="none"))

    choices.assign(None, b"photo 1", one, "b")
    choices.assign(None, b"photo 2", two, "a")
    choices.assign(0, b"", two, "b")

    first, second = read_cast(choices.cast)
    assert [path.read_bytes() for path in first.who] == [b"photo 1"]
    assert [path.read_bytes() for path in second.who] == [b"photo 2"]
    assert [entry.model.resolve().name for entry in (first, second)] == ["two", "two"]
    assert (first.to, second.to) == ("b", "a")
    assert choices.read()["cast"] == [{"model": two.id, "to": "b"}, {"model": two.id, "to": "a"}]
    (job,) = read_jobs(choices.jobs)  # who is swapped is now said by the cast alone
    assert (Path(job.config.cast), job.config.to, job.config.all_faces) == (
        choices.cast, "b", False,
    )  # fmt: skip
    assert job.config.color == "none"
    assert choices.photo(1).read_bytes() == b"photo 2"
    choices.leave(0)
    choices.assign(None, b"photo 3", one, "b")
    assert [entry.who[0].read_bytes() for entry in read_cast(choices.cast)] == [
        b"photo 2", b"photo 3",
    ]  # fmt: skip
    choices.leave(1)
    choices.leave(0)
    assert not choices.cast.exists()
    assert read_jobs(choices.jobs)[0].config.cast is None
    with pytest.raises(InputError, match="not in the cast any more"):
        choices.leave(0)


def test_entries_written_by_hand_keep_their_photos(choices, place):
    (choices.cast.parent / "own.jpg").touch()
    choices.cast.write_text('[[swap]]\nwho = ["own.jpg", "more.jpg"]\n')

    choices.assign(0, b"", place.models()[0], "a")

    (entry,) = read_cast(choices.cast)
    assert [path.name for path in entry.who] == ["own.jpg", "more.jpg"]
    assert (entry.model.resolve().name, entry.to) == ("one", "a")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("jobs", "job = 3", r"must have one \[\[job\]\] table"),
        ("jobs", "[[job]]\n[[job]]\n", r"must have one \[\[job\]\] table"),
        ("jobs", 'model = "x"\n[[job]]\n', r"must have one \[\[job\]\] table"),
        ("jobs", "[[job]]\nsettings = 3", "settings must be a table"),
        ("jobs", '[[job]]\nsettings = { color = "melt" }', "Invalid enum value 'melt'"),
        ("jobs", "[[job]]\nsettings = { erosion = 3 }", "erosion"),
        ("shots", "[[shot]]\n", "frames must be text"),
        ("cast", "[[swap]]\n", "who must be a photo"),
    ],
)
def test_file_that_makes_no_sense_is_named_and_kept(choices, place, name, text, message):
    path = getattr(choices, name)
    path.write_text(text)

    for act in (
        choices.read, choices.settings, lambda: choices.choose_for_shot("3", Look(color="none")),
        lambda: choices.choose(place.models()[0], Look()),
        lambda: choices.assign(None, b"x", place.models()[0], "b"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message) as caught:
            act()
        assert path.name in str(caught.value)
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["jobs", "shots", "cast"])
def test_links_are_neither_read_nor_written(choices, place, tmp_path, name):
    outside = tmp_path.parent / f"{tmp_path.name}-outside.toml"
    outside.write_text(tomli_w.dumps({"swap": [{"who": "x.jpg"}]}))
    before = outside.read_text()
    getattr(choices, name).symlink_to(outside)

    for act in (choices.read, lambda: choices.assign(None, b"x", place.models()[0], "b")):
        with pytest.raises(InputError, match="is a link; delete it"):
            act()
    assert outside.read_text() == before


def test_photos_outside_the_workspace_are_not_shown(choices, tmp_path):
    secret = tmp_path.parent / f"{tmp_path.name}-secret.jpg"
    secret.write_bytes(b"secret")
    choices.cast.write_text(
        tomli_w.dumps({"swap": [{"who": os.path.relpath(secret, choices.cast.parent)}]})
    )

    for entry in (0, 1, -1):
        with pytest.raises(InputError, match="not in the workspace"):
            choices.photo(entry)


def test_page_offers_every_setting_of_a_shot():
    assert set(SETTINGS) <= set(Look.__struct_fields__)
