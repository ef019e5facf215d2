"""The registry of face detectors, and the choice between them for photos and for video.

A detector is a callable ``detect(image, min_score) -> faces``:

- ``image`` is RGB uint8 (H, W, 3); for the detector "hog" in video it is grey, (H, W).
- ``min_score`` is the minimum score of a detection; each detector has its own scale.
- It returns a list of :class:`~faceswap.faces.geometry.Face`, the largest first, each with its box
  and the 68 iBUG landmarks in image pixels, or an empty list.

A plug-in provides one under the entry point group ``faceswap.detectors``. Any such callable can
also be passed as ``ExtractConfig(detector=...)``; it then runs in the calling process.
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
    """Detect faces with BlazeFace, falling back to HOG, which detects smaller faces.

    Raises:
        InputError: If BlazeFace's files are not installed.
    """
    found = blazeface.detect_all(image, min_score)
    return found or [
        blazeface.with_mesh(image, face)
        for face in dlib_backend.detect_hog(image, min_score, landmarks)
    ]


def detect_auto(image: Image, min_score: float, landmarks: str | None = None) -> list[Face]:
    """Detect faces with BlazeFace or HOG, falling back to the CNN.

    BlazeFace is used if it is installed and ``landmarks`` is None.
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

# Landmarks in video are smoothed over time, so HOG averages fewer predictions there.
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
        """Return this record if the detector can run.

        Raises:
            InputError: If the detector's files or the landmark model are missing or unreadable.
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
        """Resolve ``auto`` without the CNN, which takes seconds for each frame without a face."""
        self.checked()
        if self.detector != "auto":
            return self
        return DetectorSpec("blaze" if _prefers_blaze(self.landmarks) else "hog", self.landmarks)

    def detect(self, image: Image, min_score: float) -> list[Face]:
        """Detect the faces in a photo, the largest first."""
        return self._run(DETECTORS, image, min_score)

    def detect_in_video(self, image: Image, min_score: float) -> list[Face]:
        """Detect the faces in a video frame, the largest first; HOG predicts cheaper landmarks."""
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

        FaceMesh tracks faces for BlazeFace, and dlib's landmark model for all other detectors.
        """
        if self.detector == "blaze":
            return blazeface.track_face(image, face)
        return dlib_backend.track_face(image, face, self.landmarks)

    def describe(self, video: bool) -> str:
        """Return the detectors' names in the order in which they run, such as "HOG, else CNN"."""
        if self.is_own_object:
            return getattr(self.detector, "__name__", type(self.detector).__name__)
        spec = self.for_video() if video else self.checked()
        uses_blaze = _prefers_blaze(self.landmarks) or self.detector == "blaze"
        fast = "BlazeFace, else HOG" if uses_blaze else "HOG"
        names = {"auto": f"{fast}, else CNN", "blaze": fast, "hog": "HOG", "cnn": "CNN"}
        return names.get(str(spec.detector), str(spec.detector))


def _prefers_blaze(landmarks: str | None) -> bool:
    """Return whether BlazeFace is the fast detector; it cannot use the user's landmark model."""
    return blazeface.is_installed() and not landmarks
