"""A package holds what a compositor needs, and composites to what a conversion writes."""

import json
import re
import shutil
import sys
from dataclasses import replace

import cv2
import numpy as np
import opentimelineio
import pytest
from click.testing import CliRunner

from faceswap.cli.main import cli
from faceswap.config import ConvertConfig
from faceswap.errors import InputError, OutputError, SettingsError
from faceswap.media.exr import read_attribute
from faceswap.media.photos import read_photo
from faceswap.media.views import view_of
from faceswap.swapping import turnover
from faceswap.swapping.converter import carry_out, convert
from faceswap.swapping.elements import draw as draw_elements
from faceswap.swapping.nuke import Script
from faceswap.swapping.plan import plan
from faceswap.swapping.redo import redo
from faceswap.swapping.resources import Resources
from faceswap.swapping.turnover import package, redo_package
from faceswap.types import ignore_progress
from scripts.tools import recompose
from tests.support.clips import lossless_clip
from tests.support.films import exr_planes, write_exr

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog")
NUMBERS = (1001, 1002, 1004, 1005)  # 1003 is missing


@pytest.fixture(scope="module")
def shots(collins, hopper, tmp_path_factory):
    """Write a sequence of two shots, with light far above white, as ACEScg EXRs."""
    folder = tmp_path_factory.mktemp("plates") / "shot"
    folder.mkdir()
    portraits = [collins, np.roll(collins, 3, axis=1), hopper[:512], np.roll(hopper[:512], 2, 0)]
    for number, portrait in zip(NUMBERS, portraits, strict=True):
        shown = portrait.astype(np.float32)
        shown[2:20, 2:20] = 900
        path = folder / f"shot.{number}.exr"
        write_exr(path, view_of("ACEScg").stored(shown), np.float16,
                  colorInteropID="lin_ap1_scene")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def packaged(shots, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "shot_010"
    report = package(shots, folder, model, replace(QUICK, all_faces=True))
    assert (report.frames, report.faces, report.first, report.last) == (4, 4, 1001, 1005)
    return folder, report


def test_the_composite_equals_the_finished_frames(packaged):
    found = recompose.differences(packaged[0])

    assert list(found) == [f"shot.{number}" for number in NUMBERS]
    assert max(found.values()) <= recompose.STEP


def test_the_finished_frames_equal_a_conversion(packaged, shots, model, tmp_path):
    config = replace(QUICK, all_faces=True, intermediate=True)
    convert(shots, tmp_path / "out", model, config)

    for number in NUMBERS:
        one = read_photo(packaged[0] / "render" / f"shot.{number}.exr")
        other = read_photo(tmp_path / "out" / f"shot.{number}.exr")
        height, width = one.shape
        difference = one.rgb_float((0, 0, width, height)) - other.rgb_float((0, 0, width, height))
        assert np.abs(difference / 255).max() <= 2 / 1023  # two roundings to half, in two spaces
        plate = exr_planes(packaged[0] / "plate" / f"shot.{number}.exr")
        assert plate["R"].max() > 10  # far above white


def test_a_clip_is_packaged_alike(collins, model, tmp_path):
    clip = lossless_clip(tmp_path / "clip.mkv", [np.roll(collins, n, axis=1) for n in range(4)])

    config = replace(QUICK, start="0.04", html=True, matte=True, layers=True)
    report = package(clip, None, model, config)

    assert report.folder == tmp_path / "clip.package"
    assert (report.first, report.frames, report.faces) == (1, 3, 3)
    names = {"000001", "000002", "000003"}  # the first frame of the clip is left out
    found = recompose.differences(report.folder)
    assert found.keys() == names
    assert max(found.values()) <= recompose.STEP
    assert "data:image/" in (report.folder / "render.report.html").read_text()
    for companion in ("matte", "layers"):
        assert {path.stem for path in (report.folder / f"render.{companion}").iterdir()
                if path.suffix == ".png"} == names  # fmt: skip

    (report.folder / "clip.nk").write_text("mine")
    again = redo_package(clip, "2", changes={"color": "none"})
    assert again.redone == 1
    assert again.script == report.folder / "clip.nk"  # there is nothing new in it
    assert (report.folder / "clip.nk").read_text() == "mine"

    shorter = package(clip, None, model, replace(QUICK, start="0.08", overwrite=True))
    assert (shorter.first, shorter.last) == (2, 3)
    assert shorter.script == report.folder / "clip.2.nk"
    assert (report.folder / "clip.nk").read_text() == "mine"
    assert shorter.timeline == report.timeline  # nobody changed it
    assert {path.name.split(".")[0] for folder in ("render", "elements", "faces", "plate", "data")
            for path in (report.folder / folder).iterdir()} == {"000002", "000003"}  # fmt: skip


def test_names_and_pixels_of_any_kind_reach_the_script(collins, model, tmp_path):
    folder = tmp_path / "plates"
    folder.mkdir()
    for number in (7, 8):
        path = folder / f"a[b]$c{{d_{number:04d}_4k.v2.exr"
        pixels = view_of("ACEScg").stored(collins.astype(np.float32))
        write_exr(path, pixels, colorInteropID="lin_ap1_scene", pixelAspectRatio=2.0)
    report = package(folder / "a[b]$c{d_%04d_4k.v2.exr", tmp_path / "p", model, QUICK)

    nodes = parsed(report.script.read_text())
    assert nodes["Root"]["format"].split(" ")[6] == "2"
    literal = re.sub(r"\\(.)", r"\1", nodes["Plate"]["file"].removeprefix(turnover.HERE))
    assert literal == "/plate/a[b]$c{d_%04d_4k.v2.exr"
    assert (report.folder / (literal[1:] % 7)).exists()
    for kind in ("plate", "elements", "render"):
        path = report.folder / kind / (literal.split("/")[-1] % 8)
        assert read_attribute(path, "pixelAspectRatio") == 2
    timeline = opentimelineio.adapters.read_from_file(str(report.timeline))
    reference = timeline.tracks[0][0].media_reference
    assert (report.folder / reference.target_url_for_image_number(1)).exists()


def test_crops_of_several_sizes_lie_in_images_of_one(collins, model, tmp_path):
    clip = lossless_clip(tmp_path / "clip.mkv", [collins])
    job = plan(clip, tmp_path / "p", model, replace(QUICK, intermediate=True), "package")
    drawn = []

    def draw(frame, finished, swaps, record, place, config):
        (swap,), size = swaps, 256
        assert (swap.image.shape, place.side) == ((size, size, 3), size)
        larger = replace(place, side=320)
        drawn.append(draw_elements(frame, finished, swaps, record, larger, config))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch, Resources() as resources:
        patch.setattr("faceswap.swapping.elements.draw", draw)
        carry_out(job, resources, ignore_progress)

    elements, faces = (drawn[0][kind].channels for kind in ("elements", "faces"))
    assert {plane.shape for plane in faces.values()} == {(320, 320)}
    assert drawn[0]["faces"].whole == (320, 320)
    s, t, mask = (elements[name] for name in ("st_t0.R", "st_t0.G", "mask_t0.A"))
    sampled = cv2.remap(faces["mask_t0.A"].astype(np.float32), s * 320 - 0.5, (1 - t) * 320 - 0.5,
                        cv2.INTER_LINEAR)  # fmt: skip
    assert np.abs(sampled - mask)[s > 0].max() < 0.02


def test_the_st_map_and_the_corner_pin_put_the_face_where_it_belongs(packaged):
    """Both are applied here as compositing programs do, which count from the bottom left."""
    folder, _ = packaged
    knobs = parsed((folder / "shot.nk").read_text())
    for number in NUMBERS:
        facts = json.loads((folder / "data" / f"shot.{number}.json").read_text())
        (face,) = facts["faces"]
        planes = exr_planes(folder / "elements" / f"shot.{number}.exr")
        crop = exr_planes(folder / "faces" / f"shot.{number}.exr")
        track, size = face["track"], face["crop"]
        left, top = recompose._corner(folder / "elements" / f"shot.{number}.exr")
        s, t = planes[f"st_t{track}.R"], planes[f"st_t{track}.G"]
        mask = planes[f"mask_t{track}.A"].astype(np.float32)

        sampled = cv2.remap(crop[f"mask_t{track}.A"].astype(np.float32), s * size - 0.5,
                            (1 - t) * size - 0.5, cv2.INTER_LINEAR)  # fmt: skip
        assert np.abs(sampled - mask)[s > 0].max() < 0.02

        corners = [(0, 0), (size, 0), (size, size), (0, size)]
        pin = knobs[f"CornerPin_{track}"]
        where = [[pin[f"to{n}"][axis][number] for axis in (0, 1)] for n in range(1, 5)]
        to_crop = cv2.getPerspectiveTransform(np.float32(where), np.float32(corners))
        y, x = np.argwhere(mask > 0.5).T
        in_nuke = np.stack([x + left + 0.5, facts["height"] - (y + top) - 0.5], 1)
        seen = cv2.perspectiveTransform(np.float32(in_nuke)[:, np.newaxis], to_crop)[:, 0]
        expected = np.stack([s[y, x], t[y, x]], 1) * size
        np.testing.assert_allclose(seen, expected, atol=0.05)


def test_layers_hold_faces_masks_and_confidence(packaged):
    folder, _ = packaged
    for number in NUMBERS:
        facts = json.loads((folder / "data" / f"shot.{number}.json").read_text())
        assert (facts["number"], facts["width"], facts["height"]) == (number, 512, 512)
        (face,) = facts["faces"]
        track = face["track"]
        elements = exr_planes(folder / "elements" / f"shot.{number}.exr")
        faces = exr_planes(folder / "faces" / f"shot.{number}.exr")
        assert elements.keys() == {"R", "G", "B", "A"} | {
            f"{kind}_t{track}.A" for kind in ("mask", "occlusion", "confidence")
        } | {f"st_t{track}.R", f"st_t{track}.G"}
        assert faces.keys() == {
            f"{kind}_t{track}.{c}" for kind in ("face", "matched") for c in "RGB"
        } | {f"mask_t{track}.A", f"occlusion_t{track}.A"}
        np.testing.assert_allclose(
            elements["A"], elements[f"mask_t{track}.A"], atol=1e-3
        )  # which were rounded to half apart
        confidence = np.unique(elements[f"confidence_t{track}.A"])
        np.testing.assert_allclose(confidence, [0, face["confidence"]], atol=1e-3)
        assert len(face["landmarks"]) == 68
        x, y = np.transpose(face["landmarks"])
        assert face["box"][0] < x.mean() < face["box"][2]
        assert face["box"][1] < y.mean() < face["box"][3]
        matrix = np.array(face["frame_to_crop"])
        in_crop = np.c_[x, y, np.ones(68)] @ matrix.T
        assert in_crop.min() > 0
        assert in_crop.max() < face["crop"]


def test_a_frame_without_a_face_stays_the_plate(packaged, shots, model, tmp_path):
    report = package(shots, tmp_path / "p", model, replace(QUICK, all_faces=True, frames="1001"))

    assert report.faces == 1
    found = recompose.differences(report.folder)
    assert {name for name, value in found.items() if value == 0} >= {"shot.1004", "shot.1005"}
    assert json.loads((tmp_path / "p" / "data" / "shot.1005.json").read_text())["faces"] == []


def parsed(text):
    """Run a Nuke script as Nuke does, on a stack; return its nodes' knobs by name."""
    stack, named, nodes, lines = [], {}, {}, iter(text.splitlines())
    for line in lines:
        if match := re.fullmatch(r"push \$(\w+)", line):
            stack.append(named[match[1]])
        elif match := re.fullmatch(r"set (\w+) \[stack 0\]", line):
            named[match[1]] = stack[-1]
        elif match := re.fullmatch(r"add_layer \{(\w+)((?: \1\.\w+)+)\}", line):
            nodes.setdefault("layers", set()).update(match[2].split())
        else:
            kind = re.fullmatch(r"(\w+) \{", line)[1]
            knobs = {"class": kind}
            for knob in lines:
                if knob == "}":
                    break
                name, value = knob.strip().split(" ", 1)
                knobs[name] = animated(value) if "curve" in value else unquoted(value)
            count = int(knobs["inputs"])
            knobs["inputs"] = [stack.pop() for _ in range(count)]
            nodes[knobs.get("name", kind)] = knobs
            stack.append(knobs.get("name", kind))
    return nodes


def unquoted(value):
    """Return a value as Tcl reads it."""
    if value[0] != '"':
        return value
    assert not re.search(r"(?<!\\)(?:\\\\)*[$[{}]", value)  # nothing is replaced yet
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def animated(value):
    curves = re.findall(r"\{curve ([^}]*)\}", value)
    return [
        {int(frame): float(at) for frame, at in re.findall(r"x(\d+) (\S+)", curve)}
        for curve in curves
    ]


def test_the_nuke_script_links_what_the_package_holds(packaged):
    folder, report = packaged
    assert report.script == folder / "shot.nk"
    nodes = parsed(report.script.read_text())
    root = nodes["Root"]
    assert (root["first_frame"], root["last_frame"], root["fps"]) == ("1001", "1005", "24")
    assert root["format"] == "512 512 0 0 512 512 1 shot"
    for name in ("Plate", "Elements", "Faces"):
        read = nodes[name]
        assert (read["class"], read["first"], read["last"], read["raw"]) == (
            "Read", "1001", "1005", "true"
        )  # fmt: skip
        file = read["file"].replace(turnover.HERE, str(folder))
        assert all(len(list(folder.glob(f"{name.lower()}/shot.{n}.exr"))) == 1 for n in NUMBERS)
        assert file == f"{folder}/{name.lower()}/shot.%04d.exr"
    assert nodes["Comp"]["inputs"] == ["Plate", "Elements"]  # B, then A
    assert nodes["Comp"]["operation"] == "over"
    tracks = sorted(int(name[6:]) for name in nodes if name.startswith("STMap_"))
    assert len(tracks) == 2
    below = "Plate"
    for track in tracks:
        assert nodes[f"Face_{track}"]["inputs"] == ["Faces", "Faces"]
        assert nodes[f"STMap_{track}"]["inputs"] == [f"Premult_{track}", "Elements"]
        assert nodes[f"STMap_{track}"]["uv"] == f"st_t{track}"
        assert nodes[f"CornerPin_{track}"]["inputs"] == [f"Premult_{track}"]
        assert nodes[f"Way_{track}"]["inputs"] == [f"STMap_{track}", f"CornerPin_{track}"]
        assert nodes[f"Over_{track}"]["inputs"] == [below, f"Way_{track}"]
        copied = {nodes[f"Face_{track}"][f"from{place}"] for place in range(4)}
        below = f"Over_{track}"
        assert copied | {f"st_t{track}.red", f"st_t{track}.green"} <= nodes["layers"]
    assert nodes["Result"]["inputs"] == ["Comp", below]
    assert nodes["Output"]["inputs"] == ["Result"]


def test_layers_of_the_script_are_those_of_the_images(packaged):
    folder, report = packaged
    letters = {"R": "red", "G": "green", "B": "blue", "A": "alpha"}
    stored = set()
    for image in [*folder.glob("elements/*.exr"), *folder.glob("faces/*.exr")]:
        for name in exr_planes(image):
            layer, _, letter = name.rpartition(".")
            stored |= {f"{layer}.{letters[letter]}"} if layer else set()
    assert parsed(report.script.read_text())["layers"] == stored


def test_the_timeline_holds_the_shots(packaged):
    folder, report = packaged
    timeline = opentimelineio.adapters.read_from_file(str(report.timeline))

    assert report.shots == 2
    assert [track.name for track in timeline.tracks] == ["plate", "render"]
    for track in timeline.tracks:
        spans = [(clip.source_range.start_time.value, clip.source_range.duration.value)
                 for clip in track]  # fmt: skip
        assert spans == [(1001, 3), (1004, 2)]
        reference = track[0].media_reference
        assert reference.target_url_for_image_number(0) == f"{track.name}/shot.1001.exr"
        assert (folder / reference.target_url_for_image_number(0)).exists()


def test_a_package_that_is_done_is_not_made_again(packaged, shots, model):
    folder, report = packaged
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.exr")}
    report.script.unlink()

    again = package(shots, folder, model, replace(QUICK, all_faces=True))

    assert again == report
    assert report.script.exists()
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/*.exr")}


def test_a_package_is_not_replaced_unasked(packaged, shots, model):
    folder, _ = packaged
    with pytest.raises(OutputError, match="exists already"):
        package(shots, folder, model, replace(QUICK, all_faces=True, erosion=0.2))


def test_frames_of_a_package_are_redone(packaged, shots, model, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(packaged[0], folder)
    before = {path: path.read_bytes() for path in folder.glob("*/*.exr")}

    report = redo_package(shots, "1002,1004", folder, changes={"color": "none", "erosion": 0.2})

    differing = {path.stem for path, data in before.items() if path.read_bytes() != data}
    assert differing == {"shot.1002", "shot.1004"}
    assert {path for path in folder.glob("*/*") if path.suffix != ".json"} - before.keys() == {
        path.with_name(f"{path.name}.c2pa") for path in before if path.parent.name != "plate"
    }
    assert replace(report, redone=0) == replace(
        packaged[1], folder=folder, script=folder / "shot.nk", timeline=folder / "shot.otio"
    )
    assert report.redone == 2
    assert max(recompose.differences(folder).values()) <= recompose.STEP
    whole = package(shots, tmp_path / "other", model,
                    replace(QUICK, all_faces=True, color="none", erosion=0.2))  # fmt: skip
    for kind in ("render", "elements", "faces"):
        for number in (1002, 1004):
            one, other = (
                exr_planes(where / kind / f"shot.{number}.exr") for where in (folder, whole.folder)
            )
            assert one.keys() == other.keys()
            for name, plane in one.items():
                np.testing.assert_array_equal(plane, other[name])


def test_a_package_goes_on_with_fewer_or_more_images(shots, model, tmp_path):
    folder, config = tmp_path / "shot", replace(QUICK, all_faces=True)
    shutil.copytree(shots, folder)
    report = package(folder, tmp_path / "p", model, config)

    shutil.copy(folder / "shot.1001.exr", folder / "shot.1006.exr")  # after a cut
    again = redo_package(folder, "1002", tmp_path / "p", changes={"color": "none"})
    assert (again.shots, again.last) == (report.shots, report.last)

    (folder / "shot.1005.exr").unlink()
    with pytest.raises(OutputError, match="needs a new or empty folder"):
        package(folder, tmp_path / "p", model, replace(config, overwrite=True))


def test_another_size_of_faces_is_refused(packaged, shots, monkeypatch):
    monkeypatch.setattr("faceswap.swapping.swapper.PASTE_SIZE", 300)

    with pytest.raises(SettingsError, match="have 256 px, but this model draws 300 px"):
        redo_package(shots, "1002", packaged[0])


def test_files_that_were_changed_stay(tmp_path):
    def written(text):
        (path,) = turnover._kept_apart(tmp_path, {"a.nk": text})
        return path.name

    assert [written("one"), written("two")] == ["a.nk", "a.nk"]
    (tmp_path / "a.nk").write_text("one")  # as if the second run had been killed
    assert written("three") == "a.nk"
    (tmp_path / "a.nk").write_text("mine")
    assert written("three") == "a.nk"  # nothing is new
    assert written("four") == "a.2.nk"
    assert written("five") == "a.2.nk"
    (tmp_path / "a.2.nk").write_text("mine, too")
    assert written("six") == "a.3.nk"
    assert {path.name: path.read_text() for path in tmp_path.glob("*.nk")} == {
        "a.nk": "mine", "a.2.nk": "mine, too", "a.3.nk": "six",
    }  # fmt: skip
    (tmp_path / turnover.WRITTEN).write_text("[]")
    assert written("seven") == "a.4.nk"


def test_frames_of_a_package_are_not_redone_as_images(packaged, shots, tmp_path):
    with pytest.raises(SettingsError, match=r"belongs to a package: use faceswap package .+"):
        redo(shots, "1002", packaged[0] / "render")
    with pytest.raises(InputError, match=r"render does not exist; package .+ first"):
        redo_package(shots, "1002", tmp_path / "missing")


def test_what_has_no_effect_is_refused(packaged, shots, model, tmp_path, collins):
    with pytest.raises(SettingsError, match="--codec does not apply to a package"):
        package(shots, tmp_path / "p", model, replace(QUICK, codec="prores"))
    cv2.imwrite(str(tmp_path / "photo.png"), collins[..., ::-1])
    with pytest.raises(SettingsError, match="a package needs one"):
        package(tmp_path / "photo.png", tmp_path / "p", model, QUICK)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match="a package needs a folder"):
        package(shots, tmp_path / "file", model, QUICK)
    with pytest.raises(InputError, match="does not exist"):
        package(tmp_path / "missing.mp4", tmp_path / "p", model, QUICK)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("library", ["opentimelineio", "OpenEXR"])
def test_without_the_extra_one_line_says_what_to_install(
    shots, model, tmp_path, monkeypatch, library
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SettingsError, match=re.escape("pip install 'faceswap[film]'")):
        package(shots, tmp_path / "p", model, QUICK)


def test_damaged_elements_are_told_of(packaged, shots, model, tmp_path):
    folder = tmp_path / "p"
    package(shots, folder, model, replace(QUICK, all_faces=True))
    (folder / "elements" / "shot.1002.exr").write_bytes(b"v/1\x01 torn")
    with pytest.raises(OutputError, match=r"shot\.1002\.exr is damaged"):
        package(shots, folder, model, replace(QUICK, all_faces=True))


def test_the_command_says_where_everything_is(shots, model, tmp_path):
    arguments = ["package", str(shots), "-o", str(tmp_path / "p"), "-m", str(model), "--all",
                 "--detector", "hog", "--device", "cpu", "--workers", "1", "--json"]  # fmt: skip
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)

    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["script"] == str(tmp_path / "p" / "shot.nk")
    assert (found["frames"], found["shots"], found["faces"]) == (4, 2, 4)
    again = [*arguments[:4], "--redo", "1005"]
    result = CliRunner().invoke(cli, again, catch_exceptions=False)
    assert result.exit_code == 0
    assert "4 faces swapped, 1 frame redone" in result.stdout


def test_script_values_are_those_of_tcl():
    script = Script()
    script.add("Grade", "G", white=1.5, on=True, label='a "b" c', curve=[{1: 2.0, 3: 4.5}, 7])
    text = script.text
    assert " white 1.5\n on true\n" in text
    assert ' label "a \\"b\\" c"\n' in text
    assert " curve {{curve x1 2 x3 4.5} 7}\n" in text
