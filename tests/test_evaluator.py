import numpy as np
import pytest

from faceswap import evaluator, trainer
from faceswap.aligner import describe, find_hog
from faceswap.config import EvaluateConfig, TrainConfig
from faceswap.errors import NoFacesError
from faceswap.evaluator import Margins, Measured, eye_aspect_ratio, mouth_aspect_ratio, nme


@pytest.fixture(scope="module")
def report(faceset_folders, tmp_path_factory):
    """A report on a model of three steps: numbers of no worth, but all of them."""
    folder = tmp_path_factory.mktemp("models") / "m"
    trainer.train(*faceset_folders, folder, TrainConfig(model="small", steps=3, batch_size=4,
                                                        device="cpu", preview_every=0))  # fmt: skip
    return evaluator.evaluate(folder, *faceset_folders, EvaluateConfig(faces=3))


@pytest.fixture
def points(collins_face):
    return collins_face.landmarks


def turned(points, degrees):
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = points.mean(axis=0)
    return ((points - center) @ matrix.T + center).astype(np.float32)


def test_descriptors_tell_people_apart(collins, hopper, collins_face):
    mirrored = np.ascontiguousarray(collins[:, ::-1])
    one = describe(collins, collins_face.landmarks)
    same = describe(mirrored, find_hog(mirrored, 0.2)[0].landmarks)
    other = describe(hopper, find_hog(hopper, 0.2)[0].landmarks)

    assert one.shape == (128,)
    assert np.linalg.norm(one - same) < 0.6 < np.linalg.norm(one - other)


def test_nme_of_a_shift_is_its_share_of_the_eyes_distance(points):
    eyes = np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))

    assert nme(points, points) == 0
    assert nme(points, points + np.float32([0.1 * eyes, 0])) == pytest.approx(0.1, rel=1e-4)
    assert nme(3 * points, 3 * (points + 1)) == pytest.approx(nme(points, points + 1), rel=1e-4)


@pytest.mark.parametrize("degrees", [-20, 5, 30])
def test_pose_error_is_the_angle_a_head_turned(points, degrees):
    assert evaluator.pose_error(points, points) == pytest.approx(0, abs=0.01)
    assert evaluator.pose_error(points, turned(points, degrees)) == pytest.approx(
        abs(degrees), abs=1.0
    )


def test_aspect_ratios_follow_the_opening(points):
    closed = points.copy()
    closed[[37, 38, 43, 44]] = closed[[41, 40, 47, 46]]  # upper lids on the lower
    closed[[61, 62, 63]] = closed[[67, 66, 65]]

    assert eye_aspect_ratio(points) > 0.15
    assert eye_aspect_ratio(closed) == pytest.approx(0, abs=1e-6)
    assert mouth_aspect_ratio(closed) == pytest.approx(0, abs=1e-6)
    assert mouth_aspect_ratio(2 * points) == pytest.approx(mouth_aspect_ratio(points), rel=1e-5)


def test_margins_are_0_for_real_own_faces_and_1_for_real_others(points):
    random = np.random.default_rng(0)
    own, other = np.zeros(128, np.float32), np.full(128, 0.1, np.float32)

    def faces(around):
        noise = random.normal(0, 0.01, (5, 128)).astype(np.float32)
        return [Measured(points, around + n) for n in noise]

    ours, theirs = faces(own), faces(other)
    margins = Margins(own, other, ours, theirs)

    assert np.mean([margins.scaled(face) for face in ours]) == pytest.approx(0, abs=1e-6)
    assert np.mean([margins.scaled(face) for face in theirs]) == pytest.approx(1, abs=1e-6)
    assert margins.scaled(Measured(points, (own + other) / 2)) == pytest.approx(0.5, abs=0.05)


def test_the_report_has_every_number(report):
    assert report["faces"] == {"a": 3, "b": 3}
    measures = {
        "identity_transfer", "match_rate", "nme", "eye_correlation", "mouth_correlation",
        "pose_error_deg",
    }  # fmt: skip
    for direction in ("a_to_b", "b_to_a"):
        assert set(report[direction]) == measures | {"baselines"}
        assert set(report[direction]["baselines"]) == {"blur", "average", "original"}
        for row in report[direction]["baselines"].values():
            assert set(row) == measures
    for own in ("a_to_a", "b_to_b"):
        assert set(report[own]) == {"ssim", "psnr", "l1"}
        assert 0 < report[own]["l1"] < 0.5


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


def test_the_table_shows_model_and_baselines(report):
    from faceswap.cli import evaluation_table

    lines = evaluation_table(report)

    assert lines[0] == "unseen faces: 3 of a, 3 of b"
    assert [line.split()[0] for line in lines[1:6]] == [
        "a_to_b", "model", "blur", "average", "original",
    ]  # fmt: skip
    assert lines[-1].startswith("b_to_b  ssim ")
