"""The registry of face detectors, and the choice between them for photos and for video.

A detector is a callable ``detect(image, min_score) -> faces``:

- ``image`` is RGB uint8 (H, W, 3). Only the built-in "hog" also gets grey images, (H, W).
- ``min_score`` is the minimum score of a detection; each detector has its own scale.
- It returns a list of :class:`~faceswap.faces.geometry.Face`, the largest first, each with its box
  and the 68 iBUG landmarks in image pixels, or an empty list.

A plug-in provides one under the entry point group ``faceswap.detectors``. Any such callable can
also be passed as ``ExtractConfig(detector=...)`` or ``ConvertConfig(detector=...)``; it then runs
in the calling process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from faceswap.arrays import Image
from faceswap.config import DETECTOR_SEAM
from faceswap.errors import SettingsError
from faceswap.faces import blazeface, dlib_backend
from faceswap.faces.geometry import Face
from faceswap.registry import Registry

Detector = Callable[[Image, float], list[Face]]
# A built-in detector also takes the path of the user's landmark model, or None for dlib's own.
BuiltInDetector = Callable[[Image, float, str | None], list[Face]]


def detect_blaze(image: Image, min_score: float, landmarks: str | None = None) -> list[Face]:
    """Detect faces with BlazeFace; if it finds none, detect them with HOG and refine with FaceMesh.

    Raises:
        InputError: If BlazeFace's files or dlib's weights are not installed.
    """
    found = blazeface.detect_all(image, min_score)
    return found or [
        blazeface.with_mesh(image, face)
        for face in dlib_backend.detect_hog(image, min_score, landmarks)
    ]


def detect_auto(image: Image, min_score: float, landmarks: str | None = None) -> list[Face]:
    """Detect faces with a fast detector; if it finds none, detect them with the CNN.

    The fast detector is :func:`detect_blaze` if BlazeFace is installed and ``landmarks`` is None,
    otherwise HOG.

    Raises:
        InputError: If dlib's weights are not installed or the landmark model cannot be used.
    """
    fast = detect_blaze if _prefers_blaze(landmarks) else dlib_backend.detect_hog
    return fast(image, min_score, landmarks) or dlib_backend.detect_cnn(image, min_score, landmarks)


DETECTORS: Registry[BuiltInDetector] = Registry(
    DETECTOR_SEAM,
    {
        "auto": detect_auto,
        "blaze": detect_blaze,
        "hog": dlib_backend.detect_hog,
        "cnn": dlib_backend.detect_cnn,
    },
)

# Landmarks in video are usually smoothed over time, so HOG averages fewer predictions there.
VIDEO_DETECTORS: dict[str, BuiltInDetector] = DETECTORS | {"hog": dlib_backend.detect_hog_quickly}


@dataclass(frozen=True)
class DetectorSpec:
    """A detector and its landmark model. This record is sent to worker processes.

    Attributes:
        detector: The name of a built-in or a plug-in, or a detector object.
        landmarks: The path of a dlib shape predictor to use instead of dlib's own.
    """

    detector: str | Detector = "auto"
    landmarks: str | None = None

    @property
    def is_own_object(self) -> bool:
        """Whether the detector is an object rather than a name, so it may not be picklable."""
        return not isinstance(self.detector, str)

    def checked(self) -> "DetectorSpec":
        """Return this record after checking the user's landmark model and BlazeFace's files.

        Raises:
            InputError: If the landmark model cannot be used, or if BlazeFace is chosen by name and
                its files are not installed.
            SettingsError: If BlazeFace, which has its own landmarks, is combined with the user's
                landmark model.
        """
        if self.landmarks:
            dlib_backend.landmark_model(self.landmarks)
        if self.detector == "blaze":
            blazeface.require()
            if self.landmarks:
                raise SettingsError(
                    "--detector blaze predicts its own landmarks: leave out --detector or "
                    "--landmarks"
                )
        return self

    def for_video(self) -> "DetectorSpec":
        """Return the detector to use in video, with ``auto`` resolved to BlazeFace or HOG.

        The CNN is left out because it takes seconds for each frame without a face.

        Raises:
            InputError, SettingsError: See :meth:`checked`.
        """
        self.checked()
        if self.detector != "auto":
            return self
        return DetectorSpec("blaze" if _prefers_blaze(self.landmarks) else "hog", self.landmarks)

    def detect(self, image: Image, min_score: float) -> list[Face]:
        """Detect the faces in a photo (H, W, 3), the largest first.

        Raises:
            InputError: If the detector's files or the landmark model cannot be used.
            SettingsError: If the detector is a plug-in that is missing or cannot be imported.
        """
        return self._run(DETECTORS, image, min_score)

    def detect_in_video(self, image: Image, min_score: float) -> list[Face]:
        """Detect the faces in a video frame like :meth:`detect`, with cheaper landmarks for HOG.

        Raises:
            InputError, SettingsError: See :meth:`detect`.
        """
        return self._run(VIDEO_DETECTORS, image, min_score)

    def _run(
        self, built_in: dict[str, BuiltInDetector], image: Image, min_score: float
    ) -> list[Face]:
        if isinstance(self.detector, str) and self.detector in built_in:
            return built_in[self.detector](image, min_score, self.landmarks)
        detector = cast(Detector, DETECTORS.resolve(cast(str, self.detector)))
        return detector(image, min_score)

    def track(self, image: Image, face: Face) -> Face | None:
        """Track a face into a neighbouring frame; return None if it is lost.

        FaceMesh tracks the faces of BlazeFace. The user's landmark model, or dlib's own, tracks
        those of every other detector.

        Raises:
            InputError: If the model that tracks is missing or cannot be used.
        """
        if self.detector == "blaze":
            return blazeface.track_face(image, face)
        return dlib_backend.track_face(image, face, self.landmarks)

    def describe(self, video: bool) -> str:
        """Return the detectors' names in the order in which they run, such as "HOG, else CNN".

        Raises:
            InputError, SettingsError: See :meth:`checked`.
        """
        if self.is_own_object:
            return getattr(self.detector, "__name__", type(self.detector).__name__)
        spec = self.for_video() if video else self.checked()
        uses_blaze = _prefers_blaze(self.landmarks) or self.detector == "blaze"
        fast = "BlazeFace, else HOG" if uses_blaze else "HOG"
        names = {"auto": f"{fast}, else CNN", "blaze": fast, "hog": "HOG", "cnn": "CNN"}
        return names.get(str(spec.detector), str(spec.detector))


def _prefers_blaze(landmarks: str | None) -> bool:
    """Return whether ``auto`` uses BlazeFace, which cannot use the user's landmark model."""
    return blazeface.is_installed() and not landmarks
