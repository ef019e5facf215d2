import numpy as np

from faceswap.faces import dlib_backend
from faceswap.faces.detection import detect_cnn, detect_hog, detect_yunet
from faceswap.faces.geometry import Box, transform, typical_box, warp_image


def distance_between_eyes(points):
    return np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))


def test_hog_detects_the_single_face_of_each_photo(collins, hopper):
    for photo in (collins, hopper):
        (face,) = detect_hog(photo, 0.2)

        box = face.box
        assert face.score > 1
        assert face.landmarks.shape == (68, 2)
        assert (face.landmarks.mean(axis=0) > [box.left, box.top]).all()
        assert (face.landmarks.mean(axis=0) < [box.right, box.bottom]).all()


def test_landmarks_move_with_the_face(collins, collins_face):
    matrix = np.array([[1.4, -0.25, 20.0], [0.25, 1.4, -60.0]])
    moved = warp_image(collins, matrix, 600, 500)

    (face,) = detect_hog(moved, 0.2)[:1]

    expected = transform(collins_face.landmarks, matrix)
    error = np.linalg.norm(face.landmarks - expected, axis=1).mean()
    assert error < 0.06 * distance_between_eyes(expected)


def landmark_jitter(image, **options):
    """Landmark jitter when the detector box moves, divided by the distance between the eyes."""
    box = detect_hog(image, 0.2)[0].box
    side = box.right - box.left
    predictions = []
    for right, down, grow in ((0, 0, 0), (0.08, 0, 0), (-0.06, 0.05, 0), (0, -0.08, 0.04),
                              (0, 0, -0.05)):  # fmt: skip
        x, y, more = right * side, down * side, grow * side
        moved = Box(box.left + x - more, box.top + y - more, box.right + x + more,
                    box.bottom + y + more)  # fmt: skip
        predictions.append(dlib_backend.predict_with_spread(image, moved, **options)[0])
    mean = np.mean(predictions, axis=0)
    return np.linalg.norm(np.array(predictions) - mean, axis=2).mean() / distance_between_eyes(mean)


def test_averaged_landmarks_depend_less_on_the_box(collins, hopper):
    averaged = [landmark_jitter(photo) for photo in (collins, hopper)]

    options = {"around": ((0, 0, 1),), "once": True}
    single = [landmark_jitter(photo, **options) for photo in (collins, hopper)]

    assert max(averaged) < 0.03
    assert sum(averaged) < 0.6 * sum(single)


def test_typical_box_matches_the_hog_box(collins, hopper):
    for photo in (collins, hopper):
        _, (found,) = dlib_backend.search_hog(photo, 0.2)
        (face,) = detect_hog(photo, 0.2)
        box, typical = found.box, typical_box(face.landmarks)
        side = box.right - box.left
        for name in ("left", "top", "right", "bottom"):
            assert abs(getattr(box, name) - getattr(typical, name)) < 0.15 * side


def test_score_threshold_drops_faces(collins, collins_face):
    assert detect_hog(collins, collins_face.score + 0.01) == []


def test_face_that_touches_the_border_is_detected(hopper):
    box = detect_hog(hopper, 0.2)[0].box
    tight = hopper[int(box.top) + 12 : int(box.bottom) - 8, int(box.left) + 6 : int(box.right) - 6]

    faces = detect_yunet(np.ascontiguousarray(tight), 0.2)

    assert len(faces) == 1


def test_cnn_and_hog_landmarks_agree(collins, collins_face):
    (face,) = detect_cnn(collins, 0.2)

    error = np.linalg.norm(face.landmarks - collins_face.landmarks, axis=1).mean()
    assert error < 0.1 * distance_between_eyes(collins_face.landmarks)


def test_noise_has_no_face():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)

    assert detect_hog(noise, 0.2) == []


def test_the_largest_face_comes_first(collins, hopper):
    small = warp_image(collins, np.array([[0.7, 0, 0], [0, 0.7, 0]]), 360, 360)
    both = np.zeros((600, 880, 3), np.uint8)
    both[:, :512], both[:360, 512:872] = hopper, small

    faces = detect_hog(both, 0.2)

    widths = [face.box.right - face.box.left for face in faces]
    assert len(faces) == 2
    assert widths == sorted(widths, reverse=True)


def test_closely_cropped_portraits_are_detected(shared):
    from faceswap.media.photos import read_photo
    from faceswap.media.sources import search

    for name, expected in (("trump", 1.0), ("cage", 1.0)):
        photos = search(shared / name).photos[::20]
        found = [bool(detect_yunet(read_photo(path).image, 0.2)) for path in photos]
        assert np.mean(found) >= expected, name
