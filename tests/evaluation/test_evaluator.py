import numpy as np
import pytest

from faceswap.config import EvaluateConfig, TrainConfig
from faceswap.errors import NoFacesError
from faceswap.evaluation import evaluator
from faceswap.faces.dlib_backend import compute_embedding, detect_hog
from faceswap.training import trainer


@pytest.fixture(scope="module")
def report(faceset_folders, tmp_path_factory):
    """A report on a model of three steps: numbers of no worth, but all of them."""
    folder = tmp_path_factory.mktemp("models") / "m"
    trainer.train(*faceset_folders, folder, TrainConfig(model="small", steps=3, batch_size=4,
                                                        device="cpu", preview_every=0))  # fmt: skip
    return evaluator.evaluate(
        folder, *faceset_folders, EvaluateConfig(faces=3), html=folder / "page.html"
    ) | {"folder": folder}


def test_descriptors_tell_people_apart(collins, hopper, collins_face):
    mirrored = np.ascontiguousarray(collins[:, ::-1])
    one = compute_embedding(collins, collins_face.landmarks)
    same = compute_embedding(mirrored, detect_hog(mirrored, 0.2)[0].landmarks)
    other = compute_embedding(hopper, detect_hog(hopper, 0.2)[0].landmarks)

    assert one.shape == (128,)
    assert np.linalg.norm(one - same) < 0.6 < np.linalg.norm(one - other)


def test_the_report_has_every_number(report):
    assert report["faces"] == {"a": 3, "b": 3}
    measures = {
        "identity_transfer", "match_rate", "nme", "eye_correlation", "mouth_correlation",
        "pose_error_deg", "seam_color_step", "seam_gradient_ratio",
    }  # fmt: skip
    for direction in ("a_to_b", "b_to_a"):
        assert set(report[direction]) == measures | {"baselines"}
        assert set(report[direction]["baselines"]) == {"blur", "average", "original"}
        for row in report[direction]["baselines"].values():
            assert set(row) == measures
    for own in ("a_to_a", "b_to_b"):
        assert set(report[own]) == {"ssim", "psnr", "l1"}
        assert 0 < report[own]["l1"] < 0.5


def test_a_page_holds_any_name(report):
    from faceswap.evaluation.report import page as render

    odd = report | {"names": ["<b>$x$ \\frac$", "a & $\\q$\udce9"]}
    samples = {direction: [] for direction in ("a_to_b", "b_to_a")}

    page = render(odd, samples, report["folder"] / "none.jsonl")

    assert "<h1>&lt;b&gt;$x$ \\frac$ (a) and a &amp; $\\q$" in page


def test_the_unswapped_original_scores_no_identity_and_no_error(report):
    for direction in ("a_to_b", "b_to_a"):
        original = report[direction]["baselines"]["original"]
        assert original["identity_transfer"] == pytest.approx(0, abs=1e-4)
        assert original["nme"] == 0
        assert original["pose_error_deg"] == pytest.approx(0, abs=0.05)


def test_the_average_face_scores_identity_and_the_blur_less(report):
    for direction in ("a_to_b", "b_to_a"):
        rows = report[direction]["baselines"]
        assert rows["average"]["identity_transfer"] > rows["blur"]["identity_transfer"]
        assert rows["average"]["nme"] > 0


def test_other_faces_than_the_models_are_refused(report, faceset_folders, tmp_path):
    trainer.train(*faceset_folders, tmp_path / "m", TrainConfig(
        model="small", steps=1, batch_size=2, device="cpu", holdout=0.0))  # fmt: skip

    with pytest.raises(NoFacesError, match="train --holdout"):
        evaluator.evaluate(tmp_path / "m", *faceset_folders)


def test_the_page_is_one_file_with_every_picture(report):
    text = (report["folder"] / "page.html").read_text()

    assert text.count("data:image/jpeg;base64,") == 6 + 6  # the six worst of six, and all six
    assert text.count("data:image/png;base64,") == 2  # curves, identity against expression
    assert "src='http" not in text
    assert "collins" in text
    for measure in report["a_to_b"]["baselines"]["blur"]:
        assert f"<th>{measure.replace('_', ' ')}" in text


def test_a_clip_is_measured_for_flicker(report, collins, faceset_folders, tmp_path):
    from faceswap.media.writers import write_clip

    clip = tmp_path / "clip.mp4"
    still = np.ascontiguousarray(collins[:320, 60:380])
    write_clip(clip, iter([still] * 9), 25, np.zeros(16000, np.int16), 44100)

    again = evaluator.evaluate(
        report["folder"], *faceset_folders, EvaluateConfig(faces=1), clip=clip
    )

    assert again["flicker"]["frames"] == 9
    assert abs(again["flicker"]["landmark_acceleration"]) < 0.02  # a still clip, nearly
    assert abs(again["flicker"]["color_spread"]) < 0.5


def test_a_clip_without_a_face_is_named(report, faceset_folders, tmp_path):
    from faceswap.media.writers import write_clip

    clip = tmp_path / "clip.mp4"
    write_clip(clip, iter([np.zeros((96, 96, 3), np.uint8)] * 9), 25,
               np.zeros(16000, np.int16), 44100)  # fmt: skip

    with pytest.raises(NoFacesError, match="8 frames in a row"):
        evaluator.evaluate(report["folder"], *faceset_folders, EvaluateConfig(faces=1), clip=clip)


def test_the_table_shows_model_and_baselines(report):
    from faceswap.cli.text import evaluation_table

    lines = evaluation_table(report)

    assert lines[0] == "unseen faces: 3 of a, 3 of b"
    assert [line.split()[0] for line in lines[1:6]] == [
        "a_to_b", "model", "blur", "average", "original",
    ]  # fmt: skip
    assert lines[-1].startswith("b_to_b  ssim ")
