import cv2
import numpy as np
import pytest

from faceswap.arrays import LUMA
from faceswap.media.frame import rounded
from faceswap.swapping.light import apply_light, measure_light

SIZE = 256


def disc(radius=80):
    y, x = np.mgrid[:SIZE, :SIZE]
    return (np.hypot(x - SIZE / 2, y - SIZE / 2) < radius).astype(np.float32)


@pytest.fixture(scope="module")
def face(collins):
    """A face of natural colours, (256, 256, 3)."""
    return np.ascontiguousarray(cv2.resize(collins[60:220, 140:300], (SIZE, SIZE)))


def lit(swapped, reference, mask):
    return apply_light(swapped, measure_light(swapped, reference, mask)).astype(np.float64)


def error(image, reference, inside):
    """Root mean square difference of low-frequency colours inside a mask, in levels."""
    blurred = [cv2.GaussianBlur(np.float64(i) * inside[..., None], (0, 0), 12)
               for i in (image, reference)]  # fmt: skip
    weight = cv2.GaussianBlur(inside, (0, 0), 12)[..., None]
    difference = (blurred[0] - blurred[1]) / np.maximum(weight, 0.05)
    return float(np.sqrt((difference[inside > 0] ** 2).mean()))


def test_face_in_its_own_light_stays(face):
    assert np.abs(lit(face, face, disc()) - face)[disc() > 0].mean() < 1


@pytest.mark.parametrize("gain", [0.1, 0.4, 1.5])
def test_exposure_of_the_footage_is_followed_with_its_contrast(face, gain):
    footage = (gain * np.minimum(face, 160)).round().astype(np.uint8)
    dimmed = lit(np.minimum(face, 160), footage, disc())

    inside = disc() > 0
    assert error(dimmed, footage, disc()) < 4
    assert dimmed[inside].std() == pytest.approx(float(footage[inside].std()), rel=0.2)


def test_shadow_from_one_side_is_followed(face):
    shade = np.linspace(1.0, 0.35, SIZE)[None, :, None]
    footage = (face * shade).round().astype(np.uint8)

    assert error(lit(face, footage, disc()), footage, disc()) < 0.25 * error(face, footage, disc())


def test_tint_is_followed(face):
    footage = (face * [1.0, 0.15, 0.1]).round().astype(np.uint8)
    red = lit(face, footage, disc())

    assert error(red, footage, disc()) < 4


def test_black_and_white_stays_so(face):
    gray = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    other = np.ascontiguousarray(face[:, ::-1])

    result = lit(other, gray, disc())

    spread = result.max(axis=2) - result.min(axis=2)
    assert spread[disc() > 0].max() <= 3


def test_colors_of_the_new_face_survive_in_colored_footage(face):
    painted = face.copy()
    painted[150:170, 100:150] = (180, 60, 70)  # red lips on the new face only

    result = lit(painted, face, disc())[155:165, 105:145].mean(axis=(0, 1))

    assert result[0] - result[1] > 0.6 * (180 - 60)


def test_features_do_not_cast_shadows(face):
    footage = face.copy()
    footage[90:100, 70:190] = 10  # dark brows on the footage only

    below = lit(face, footage, disc())[120:150, 80:180]

    assert np.abs(below - face[120:150, 80:180]).mean() < 6


def test_numbers_are_finite_without_any_skin(face):
    numbers = measure_light(face, face, np.zeros((SIZE, SIZE), np.float32))

    np.testing.assert_array_equal(rounded(apply_light(face.astype(np.float32), numbers)), face)


def test_seam_meets_the_footage(face):
    """At the mask's edge the new face has the footage's colour."""
    ramp = np.linspace(0.7, 1.2, SIZE)[:, None, None]
    footage = np.clip(face * ramp * [1.0, 0.9, 0.8], 0, 255).astype(np.uint8)
    ring = disc(80) - disc(74)

    result = lit(face, footage, disc())

    assert error(result, footage, ring) < 0.3 * error(face, footage, ring)


def test_a_skin_of_another_colour_does_not_multiply_the_wrinkles():
    """Blue is doubled, as from tanned to pale skin; the contrast of lines in it is not."""
    lines = np.where(np.arange(256) % 8 < 4, 1.0, 0.8)[None, :, None]
    tanned = np.broadcast_to(np.array([200, 120, 70]) * lines, (256, 256, 3))
    numbers = np.zeros((64, 64, 5))
    numbers[..., :3] = np.log([1.05, 1.2, 2.0])
    numbers[..., 4] = 1

    lit = apply_light(tanned.round().astype(np.uint8), numbers).astype(float)

    luma = np.exp(np.log([1.05, 1.2, 2.0]) @ LUMA)
    blue = lit[100:150, 100:150, 2]
    assert blue.mean() == pytest.approx(2 * (63 + 8) - 8, abs=2)
    assert blue.max() - blue.min() == pytest.approx(luma * 14, abs=2)


def face_with_teeth(skin):
    """Skin of a colour, with a neutral patch and a blue one."""
    face = np.full((128, 128, 3), skin, np.uint8)
    face[80:90, 40:88] = (190, 190, 190)
    face[40:48, 40:48] = (90, 110, 150)
    return face


def relative_chroma(image, rows, columns):
    mean = image[rows, columns].reshape(-1, 3).astype(float).mean(0)
    return (mean[0] - mean[2]) / mean.mean()


def test_another_skin_does_not_tint_teeth_and_eyes():
    """The footage's skin is yellower, in the same light."""
    face, footage = face_with_teeth((200, 150, 120)), face_with_teeth((200, 155, 100))
    mask = np.ones((128, 128), np.float32)

    lit = apply_light(face, measure_light(face, footage, mask))

    np.testing.assert_allclose(lit[110, 64], (200, 155, 100), atol=6)
    teeth, iris = np.s_[82:88, 44:84], np.s_[42:46, 42:46]
    assert abs(relative_chroma(lit, *teeth)) < 0.04
    assert relative_chroma(lit, *iris) < -0.35  # still blue


def test_red_light_tints_teeth_too():
    face, mask = face_with_teeth((200, 150, 120)), np.ones((128, 128), np.float32)
    footage = (face * np.array([1, 0.3, 0.3])).astype(np.uint8)

    lit = apply_light(face, measure_light(face, footage, mask))

    assert relative_chroma(lit, np.s_[82:88], np.s_[44:84]) > 0.5


def test_bright_pixels_keep_their_hue(face):
    painted = np.minimum(face, 150)
    footage = (1.5 * painted).astype(np.uint8)
    painted[150:170, 100:150] = (200, 172, 150)  # teeth

    result = lit(painted, footage, disc())[160, 125]

    assert result.max() > 250
    assert result[1] / result[0] == pytest.approx(172 / 200, abs=0.03)
