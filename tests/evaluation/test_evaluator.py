import shutil
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from faceswap.config import ConvertConfig, EvaluateConfig, TrainConfig
from faceswap.errors import NoFacesError, OutputError, SettingsError
from faceswap.evaluation import evaluator
from faceswap.evaluation.results import SwapScores
from faceswap.faces.detection import detect_hog
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.facesets import faceset
from faceswap.facesets.faceset import Faceset, face_key, read_keys, read_records
from faceswap.facesets.recognition import pictures_of
from faceswap.models import modelfile
from faceswap.swapping.swapper import Swapper
from faceswap.training import trainer
from faceswap.types import ignore_progress


@pytest.fixture(scope="module")
def folder(faceset_folders, tmp_path_factory):
    """A model of three steps."""
    folder = tmp_path_factory.mktemp("models") / "m"
    trainer.train(*faceset_folders, folder, TrainConfig(model="small", steps=3, batch_size=4,
                                                        device="cpu", preview_every=0))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def report(folder, faceset_folders):
    """A complete report on the model; its numbers are meaningless.

    One of the people wears glasses. The skin mask would keep them, sharp, before every baseline.
    """
    config = EvaluateConfig(faces=3, mask="hull")
    return evaluator.evaluate(folder, *faceset_folders, config, html=folder / "page.html")


class Measuring(Exception):
    """Raised where measuring begins: the checks before it are over."""


@pytest.fixture
def stopped(monkeypatch):
    """Return what would be measured: the identity, the unseen faces and the known ones."""
    seen = []

    def measure(trained, key, unseen, known, *_):
        seen.append((key, unseen, known))
        if key == "b":
            raise Measuring

    monkeypatch.setattr(evaluator, "_measure_person", measure)
    return seen


@pytest.fixture
def copies(faceset_folders, tmp_path):
    """Copies of both facesets that a test may change."""
    for faces in faceset_folders:
        shutil.copytree(faces, tmp_path / faces.parent.name / "faces")
    return tmp_path / "collins" / "faces", tmp_path / "hopper" / "faces"


def delete_held_out(folder, faces, most=None):
    held_out = modelfile.load(folder).held_out["a"][:most]
    for record in read_records(faces / "faces.jsonl"):
        if face_key(record) in held_out:
            (faces / record["file"]).unlink()


def test_only_measured_faces_are_read(folder, faceset_folders, stopped, monkeypatch):
    """Whole facesets at full size need half a megabyte of memory a face."""
    read, crops = faceset.read_crop, []
    monkeypatch.setattr(faceset, "read_crop", lambda *args: crops.append(args[0]) or read(*args))
    monkeypatch.setattr(evaluator, "CENTROID_FACES", 5)

    with pytest.raises(Measuring):
        evaluator.evaluate(folder, *faceset_folders, EvaluateConfig(faces=1))
    number = len(crops)

    trained = modelfile.load(folder)
    for key, unseen, known in stopped:
        whole = Faceset.read(faceset_folders[key == "b"]).resized(256)
        assert unseen.keys == whole.subset(trained.held_out[key]).evenly(1).keys
        not_seen = {*trained.held_out[key], *trained.left_out[key]}
        seen = whole.subset(not_seen, inside=False).keys
        assert known.keys == seen[:: len(seen) // 5]
        assert 5 <= len(known.keys) < 10
        assert torch.equal(known.crops, whole.subset(known.keys).crops)
        assert np.array_equal(known.landmarks, whole.subset(known.keys).landmarks)
    assert number == sum(len(u.keys) + len(k.keys) for _, u, k in stopped)


def test_exchanged_facesets_are_named(folder, faceset_folders, tmp_path):
    with pytest.raises(SettingsError, match="the wrong way round: the model's a is collins"):
        evaluator.evaluate(folder, *reversed(faceset_folders))


def test_exchanged_facesets_with_other_names_are_known_by_their_keys(folder, copies, tmp_path):
    for faces, name in zip(copies, ("one", "two"), strict=True):
        index = faces / "faces.jsonl"
        index.write_text(index.read_text().replace('"source": "', f'"source": "{name}-'))
        faces.parent.rename(tmp_path / name)
    trained = modelfile.load(folder)
    held_out = {
        key: [f"{name}-{face}" for face in trained.held_out[key]]
        for key, name in (("a", "one"), ("b", "two"))
    }
    trained = replace(trained, held_out=held_out)
    checked = {key: read_keys(tmp_path / name) for key, name in (("a", "two"), ("b", "one"))}
    folders = {"a": tmp_path / "two" / "faces", "b": tmp_path / "one" / "faces"}

    with pytest.raises(SettingsError, match=r"pass --a .*one/faces --b .*two/faces"):
        evaluator._refuse_exchanged(folders, checked, trained)
    evaluator._refuse_exchanged(
        {"a": folders["b"], "b": folders["a"]}, {"a": checked["b"], "b": checked["a"]}, trained
    )


def test_deleted_held_out_crops_are_told_as_what_they_are(folder, copies):
    delete_held_out(folder, copies[0])

    with pytest.raises(NoFacesError, match="all 3 faces of collins that training held out were"):
        evaluator.evaluate(folder, *copies)


def test_some_deleted_held_out_crops_are_a_warning(folder, copies, stopped, caplog):
    delete_held_out(folder, copies[0], most=1)

    with pytest.raises(Measuring):
        evaluator.evaluate(folder, *copies)

    assert "measuring 2 of the 3 faces that training held out; the others were" in caplog.text


def test_another_faceset_is_still_refused(folder, copies):
    index = copies[0] / "faces.jsonl"
    index.write_text(index.read_text().replace('"source": "', '"source": "other-'))

    with pytest.raises(NoFacesError, match="collins contains none of the 3 faces"):
        evaluator.evaluate(folder, *copies)


def test_page_is_replaced_only_if_asked(folder, faceset_folders, stopped, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("last week's page")

    with pytest.raises(OutputError, match=r"page\.html exists already; pass --overwrite .*file"):
        evaluator.evaluate(folder, *faceset_folders, html=page)
    with pytest.raises(Measuring):
        evaluator.evaluate(folder, *faceset_folders, EvaluateConfig(overwrite=True), html=page)


def test_embeddings_tell_people_apart(collins, hopper, collins_face):
    mirrored = np.ascontiguousarray(collins[:, ::-1])
    one = compute_embedding(collins, collins_face.landmarks)
    same = compute_embedding(mirrored, detect_hog(mirrored, 0.2)[0].landmarks)
    other = compute_embedding(hopper, detect_hog(hopper, 0.2)[0].landmarks)

    assert one.shape == (128,)
    assert np.linalg.norm(one - same) < 0.6 < np.linalg.norm(one - other)


def test_report_has_every_measure(report):
    assert report.faces == {"a": 3, "b": 3}
    measures = {field.name for field in fields(SwapScores)}
    for scores in (report.a_to_b, report.b_to_a):
        assert scores.nme.low <= scores.nme.value <= scores.nme.high
        assert scores.swd_fine.value > 0
        assert set(asdict(scores)) == measures | {"baselines", "occlusion"}
        for name, row in asdict(scores.baselines).items():
            assert set(row) == measures
            assert (row["nme"] is None) == (name == "real")
            assert row["sharpness_1"]["value"] > 0
    for rows in (report.a_to_a, report.b_to_b):
        assert rows.limit.ssim.value > rows.decoded.ssim.value
        assert 0 < rows.limit.l1.value < rows.decoded.l1.value < 0.5


def test_baselines_are_ordered_as_an_eye_orders_them(report):
    for scores in (report.a_to_b, report.b_to_a):
        rows = scores.baselines
        assert rows.blur.sharpness_2.value < rows.limit.sharpness_2.value
        assert rows.real.sharpness_2.value > rows.average.sharpness_2.value
        assert rows.limit.swd_fine.value < rows.average.swd_fine.value < rows.blur.swd_fine.value
        assert rows.limit.nme.value < rows.average.nme.value
        assert rows.footage.light_error.value == 0 < rows.average.light_error.value


@pytest.mark.slow
def test_skin_mask_keeps_occluders_in_front(folder, faceset_folders):
    report = evaluator.evaluate(folder, *faceset_folders, EvaluateConfig(faces=3))

    for scores in (report.a_to_b, report.b_to_a):
        assert scores.occlusion.faces == 3
        assert scores.occlusion.kept.value > 0.6
        assert scores.occlusion.lost.value < 0.15


@pytest.fixture(scope="module")
def swapper(folder):
    def make(**settings):
        return Swapper(modelfile.load(folder), ConvertConfig(**settings), torch.device("cpu"))

    return make


def test_hull_mask_paints_over_occluders(swapper, faceset_folders):
    faceset = Faceset.read(faceset_folders[0]).resized(256).evenly(3)
    faces = [evaluator._original(*face, 0.8, None) for face in pictures_of(faceset)]

    found = evaluator.measure_occlusion(swapper(mask="hull", color="average"), faces)

    assert found.kept.value < 0.3
    assert found.lost.value == 0


def test_page_escapes_names(report, folder):
    from faceswap.evaluation.report import page as render

    odd = replace(report, names=("<b>$x$ \\frac$", "a & $\\q$\udce9"))
    samples = {direction: [] for direction in ("a_to_b", "b_to_a")}

    page = render(odd, samples, folder / "none.jsonl")

    assert "<h1>&lt;b&gt;$x$ \\frac$ (a) and a &amp; $\\q$" in page


def test_unswapped_original_scores_no_identity_and_no_error(report):
    for scores in (report.a_to_b, report.b_to_a):
        footage = scores.baselines.footage
        assert footage.identity_transfer.value == pytest.approx(0, abs=1e-4)
        assert footage.nme.value == 0
        assert footage.pose_error_deg.value == pytest.approx(0, abs=0.05)


def test_average_face_scores_more_identity_than_the_blur(report):
    for scores in (report.a_to_b, report.b_to_a):
        rows = scores.baselines
        assert rows.average.identity_transfer.value > rows.blur.identity_transfer.value
        assert rows.average.nme.value > 0


def test_model_without_held_out_faces_is_refused(report, faceset_folders, tmp_path):
    trainer.train(*faceset_folders, tmp_path / "m", TrainConfig(
        model="small", steps=1, batch_size=2, device="cpu", holdout=0.0))  # fmt: skip

    with pytest.raises(NoFacesError, match="train --holdout"):
        evaluator.evaluate(tmp_path / "m", *faceset_folders)


def test_page_is_one_file_with_every_image(report, folder):
    text = (folder / "page.html").read_text()

    assert text.count("data:image/jpeg;base64,") == 6 + 6  # all six faces, and the six worst
    assert text.count("data:image/png;base64,") == 2  # loss curves; identity against expression
    assert "src='http" not in text
    assert "collins" in text
    for measure in fields(SwapScores):
        assert f"<td>{measure.name.replace('_', ' ')}<td class='model'>" in text
        assert f"<li><b>{measure.name.replace('_', ' ')}</b>: " in text


def test_flicker_is_measured_on_a_clip(swapper, collins, tmp_path):
    from faceswap.media.writers import write_clip

    clip = tmp_path / "clip.mp4"
    still = np.ascontiguousarray(collins[:320, 60:380])
    write_clip(clip, iter([still] * 9), 25, np.zeros(16000, np.int16), 44100)

    found = evaluator.measure_clip(clip, swapper(), EvaluateConfig(), ignore_progress)

    assert found.frames == 9
    assert found.placement_acceleration < 0.02  # the clip hardly moves
    assert len(found.boiling) == 4


def test_clip_without_a_face_is_refused(swapper, tmp_path):
    from faceswap.media.writers import write_clip

    clip = tmp_path / "clip.mp4"
    write_clip(clip, iter([np.zeros((96, 96, 3), np.uint8)] * 9), 25,
               np.zeros(16000, np.int16), 44100)  # fmt: skip

    with pytest.raises(NoFacesError, match="8 frames in a row"):
        evaluator.measure_clip(clip, swapper(), EvaluateConfig(), ignore_progress)


def test_table_shows_model_and_baselines(report):
    from faceswap.cli.text import evaluation

    lines = evaluation(report)

    assert lines[0] == "unseen faces: 3 of a, 3 of b"
    assert lines[1].split()[:3] == ["a_to_b", "model", "95"]
    names = [line.split()[0] for line in lines[2 : 2 + len(fields(SwapScores))]]
    assert set(names) == {field.name for field in fields(SwapScores)}
    assert any("worse than" in line for line in lines)  # a model of three steps
    assert lines[-1].startswith("b_to_b  limit ")
