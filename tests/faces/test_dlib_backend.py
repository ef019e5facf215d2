import numpy as np

from faceswap.errors import AlignmentError
from faceswap.faces import detection, dlib_backend
from faceswap.faces.geometry import Box, transform, warp_image


def distance_between_eyes(points):
    return np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))


def test_hog_finds_the_one_face_of_each_photo(collins, hopper):
    for photo in (collins, hopper):
        (face,) = dlib_backend.detect_hog(photo, 0.2)

        box = face.box
        assert face.score > 1
        assert face.landmarks.shape == (68, 2)
        assert (face.landmarks.mean(axis=0) > [box.left, box.top]).all()
        assert (face.landmarks.mean(axis=0) < [box.right, box.bottom]).all()


def test_landmarks_follow_the_face(collins, collins_face):
    matrix = np.array([[1.4, -0.25, 20.0], [0.25, 1.4, -60.0]])
    moved = warp_image(collins, matrix, 600, 500)

    (face,) = dlib_backend.detect_hog(moved, 0.2)[:1]

    expected = transform(collins_face.landmarks, matrix)
    error = np.linalg.norm(face.landmarks - expected, axis=1).mean()
    assert error < 0.06 * distance_between_eyes(expected)


def wobble(image):
    """How far landmarks move with the detector's box, over the distance between the eyes."""
    box = dlib_backend.detect_hog(image, 0.2)[0].box
    side = box.right - box.left
    answers = []
    for right, down, grow in ((0, 0, 0), (0.08, 0, 0), (-0.06, 0.05, 0), (0, -0.08, 0.04),
                              (0, 0, -0.05)):  # fmt: skip
        x, y, more = right * side, down * side, grow * side
        moved = Box(box.left + x - more, box.top + y - more, box.right + x + more,
                    box.bottom + y + more)  # fmt: skip
        answers.append(dlib_backend.predict_landmarks(image, moved))
    mean = np.mean(answers, axis=0)
    return np.linalg.norm(np.array(answers) - mean, axis=2).mean() / distance_between_eyes(mean)


def test_landmarks_depend_less_on_the_box_than_the_models_own(collins, hopper, monkeypatch):
    smoothed = [wobble(photo) for photo in (collins, hopper)]

    def no_box(landmarks):
        raise AlignmentError("one answer only")

    monkeypatch.setattr(dlib_backend, "AROUND", ((0, 0, 1),))
    monkeypatch.setattr(dlib_backend, "typical_box", no_box)
    single = [wobble(photo) for photo in (collins, hopper)]

    assert max(smoothed) < 0.03
    assert sum(smoothed) < 0.6 * sum(single)


def test_the_typical_box_is_hogs(collins, hopper):
    for photo in (collins, hopper):
        (face,) = dlib_backend.detect_hog(photo, 0.2)
        box, typical = face.box, dlib_backend.typical_box(face.landmarks)
        side = box.right - box.left
        for name in ("left", "top", "right", "bottom"):
            assert abs(getattr(box, name) - getattr(typical, name)) < 0.15 * side


def test_a_score_threshold_drops_faces(collins, collins_face):
    assert dlib_backend.detect_hog(collins, collins_face.score + 0.01) == []


def test_a_face_that_touches_the_border_is_found(hopper):
    box = dlib_backend.detect_hog(hopper, 0.2)[0].box
    tight = hopper[int(box.top) + 12 : int(box.bottom) - 8, int(box.left) + 6 : int(box.right) - 6]

    faces = detection.detect_auto(np.ascontiguousarray(tight), 0.2)

    assert len(faces) == 1


def test_cnn_and_hog_agree_where_both_find_the_face(collins, collins_face):
    (face,) = dlib_backend.detect_cnn(collins, 0.2)

    error = np.linalg.norm(face.landmarks - collins_face.landmarks, axis=1).mean()
    assert error < 0.1 * distance_between_eyes(collins_face.landmarks)


def test_no_face_in_noise():
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)

    assert dlib_backend.detect_hog(noise, 0.2) == []


def test_the_largest_face_comes_first(collins, hopper):
    small = warp_image(collins, np.array([[0.7, 0, 0], [0, 0.7, 0]]), 360, 360)
    both = np.zeros((600, 880, 3), np.uint8)
    both[:, :512], both[:360, 512:872] = hopper, small

    faces = dlib_backend.detect_hog(both, 0.2)

    widths = [face.box.right - face.box.left for face in faces]
    assert len(faces) == 2
    assert widths == sorted(widths, reverse=True)


def test_close_cropped_portraits_are_found(shared):
    from faceswap.media.photos import read_photo
    from faceswap.media.reader import photos_in

    for name, least in (("trump", 0.97), ("cage", 0.99)):
        photos = photos_in(shared / name)[::20]
        found = [bool(detection.detect_auto(read_photo(path).image, 0.2)) for path in photos]
        assert np.mean(found) >= least, name
