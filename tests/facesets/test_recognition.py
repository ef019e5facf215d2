import numpy as np
import pytest
from PIL import Image

from faceswap.errors import InputError, NoFacesError
from faceswap.faces.detection import DetectorSpec, detect_yunet
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.facesets.faceset import Faceset
from faceswap.facesets.recognition import appears, centroid, embedding_of, pictures_of
from faceswap.media.footage import VideoFile
from faceswap.media.writers import write_clip


def test_reference_photo_gives_the_embedding_of_its_face(tmp_path, collins, collins_face):
    Image.fromarray(collins).save(tmp_path / "c.png")

    (face,) = detect_yunet(collins, 0.0)
    expected = compute_embedding(collins, face.landmarks)
    np.testing.assert_array_equal(embedding_of(tmp_path / "c.png"), expected)
    known = compute_embedding(collins, collins_face.landmarks)
    assert np.linalg.norm(expected - known) < 0.1


def test_reference_without_a_face_or_a_file_is_refused(tmp_path):
    Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save(tmp_path / "wall.png")

    with pytest.raises(NoFacesError, match=r"no face found in the reference photo .*wall\.png"):
        embedding_of(tmp_path / "wall.png")
    with pytest.raises(InputError, match=r"nobody\.png"):
        embedding_of(tmp_path / "nobody.png")


def test_centroid_is_the_mean_and_near_the_person(faceset_folders, collins, hopper, collins_face):
    faces = Faceset.read(faceset_folders[0])
    subset, counted = faces.evenly(4), []

    mean = centroid(subset, lambda: counted.append(1))

    embeddings = [centroid(faces.subset({key})) for key in subset.keys]
    np.testing.assert_allclose(mean, np.mean(embeddings, axis=0), atol=1e-6)
    assert (mean.shape, mean.dtype, len(counted)) == ((128,), np.float32, 4)
    assert np.linalg.norm(mean - compute_embedding(collins, collins_face.landmarks)) < 0.35
    other = centroid(Faceset.read(faceset_folders[1]).evenly(4))
    assert np.linalg.norm(mean - other) > 0.6


def test_pictures_of_returns_crops_with_their_landmarks(faceset_folders):
    faces = Faceset.read(faceset_folders[0])

    images = pictures_of(faces)

    assert len(images) == 30
    for (image, points, by), crop, known in zip(images, faces.crops, faces.landmarks, strict=True):
        np.testing.assert_array_equal(image, crop.permute(1, 2, 0))
        np.testing.assert_array_equal(points, known)
        assert by == "dlib"


def test_appears_finds_a_person_late_in_a_video(tmp_path, collins, hopper, collins_face):
    images = [hopper[:500, :500]] * 45 + [collins[:500, :500]] * 5
    clip = tmp_path / "x.mp4"
    write_clip(clip, images, 25, np.zeros(96000, np.int16), 48000)
    person = compute_embedding(collins, collins_face.landmarks)

    assert appears(person, VideoFile(clip), DetectorSpec())
    assert not appears(-person, VideoFile(clip), DetectorSpec())


def test_appears_is_false_for_a_video_of_unknown_length(tmp_path, collins, collins_face):
    person = compute_embedding(collins, collins_face.landmarks)
    Image.fromarray(collins).save(tmp_path / "x.mjpeg", "jpeg")

    assert not appears(person, VideoFile(tmp_path / "x.mjpeg"), DetectorSpec())
