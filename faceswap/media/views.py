"""Show images of any colour space as sRGB, and bring new pixels back, by OpenColorIO.

Detector and network see what a display shows: sRGB (IEC 61966-2-1), whose curve goes on above 1
and below 0, so that nothing is clipped and the way back is exact. No tone mapping is applied. The
colour spaces are those of OpenColorIO's built-in ACES studio configuration, or those of the
configuration that the environment variable ``OCIO`` names.

HDR video states its own: PQ or HLG (ITU-R BT.2100). Its reference white of 203 cd/m2 (ITU-R
BT.2408) is the display's white.
"""

import difflib
import logging
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage
from faceswap.errors import InputError, SettingsError

log = logging.getLogger(__name__)

# Only the built-in configuration is known to name these colour spaces, which have an identifier of
# the Color Interop Forum: https://github.com/AcademySoftwareFoundation/ColorInterop
BUILT_IN = "ocio://studio-config-latest"
SRGB, LINEAR_REC709 = "srgb_rec709_scene", "lin_rec709_scene"
# Colour spaces of video by transfer characteristic (ITU-T H.273), relative to 100 cd/m2.
HDR = {16: "Rec.2100-PQ - Display", 18: "Rec.2100-HLG - Display"}
DISPLAY, SRGB_DISPLAY = "CIE XYZ-D65 - Display-referred", "sRGB - Display"
# x and y (CIE 1931) of red, green and blue by colour primaries (ITU-T H.273), all with D65 white.
PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),  # BT.709
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),  # P3
}
D65 = (0.3127, 0.3290)
UNSPECIFIED, BT2020 = 2, 9
REFERENCE_WHITE = 2.03  # of HDR video, in 100 cd/m2
AS_STORED = "as stored"  # the name of the view that changes nothing
GRAYS = 4097  # more than 12 bits tell apart
WHITE = np.float32(255)  # level of a display's white
FARTHEST = np.float32(255e4)  # levels; what is not finite is shown as this, or as 0


@dataclass(frozen=True, eq=False)
class View:
    """The way from the colour space of an image to the levels of a display, and back.

    Attributes:
        name: The colour space.
    """

    name: str
    _forward: Any = None
    _back: Any = None

    def shown(self, pixels: FloatImage) -> FloatImage:
        """Return the levels of a display, 0..255 and beyond, of pixels, (H, W, 3)."""
        levels = _applied(self._forward, pixels) * WHITE
        levels[np.isnan(levels)] = 0
        shown: FloatImage = np.clip(levels, -FARTHEST, FARTHEST)
        return shown

    def stored(self, levels: FloatImage) -> FloatImage:
        """Return the pixels in the colour space of the image of levels of a display, (H, W, 3)."""
        return _applied(self._back, levels / WHITE)

    @cached_property
    def grays(self) -> FloatImage:
        """The levels of a display of GRAYS greys, evenly spaced from 0 to 1, (GRAYS,)."""
        ramp = np.linspace(0, 1, GRAYS, dtype=np.float32)
        shown = self.shown(np.repeat(ramp, 3).reshape(1, GRAYS, 3))
        return np.maximum.accumulate(shown[0, :, 1])  # never falls, but for rounding

    def shown_grays(self, grays: FloatImage) -> FloatImage:
        """Return the levels of a display of greys of 0..1."""
        levels = np.interp(grays, np.linspace(0, 1, GRAYS), self.grays)
        return np.asarray(levels, np.float32)

    def stored_grays(self, levels: FloatImage) -> FloatImage:
        """Return the greys of 0..1 that a display shows at these levels."""
        grays = np.interp(levels, self.grays, np.linspace(0, 1, GRAYS))
        return np.asarray(grays, np.float32)


def _applied(processor: Any, pixels: FloatImage) -> FloatImage:
    changed = np.array(pixels, np.float32, order="C")  # a copy, which is changed in place
    if processor is not None and changed.size:
        import PyOpenColorIO as ocio  # noqa: N813

        height, width = changed.shape[:2]
        processor.apply(ocio.PackedImageDesc(changed, width, height, 3))
    return changed


def as_stored() -> View:
    """Return the view of an image whose pixels are already those of a display, 0..1."""
    return View(AS_STORED)


def view_of(name: str) -> View:
    """Return the view of a colour space.

    Args:
        name: Its name, alias or identifier in the configuration.

    Raises:
        InputError: If the user's configuration cannot be read.
        SettingsError: If there is no such colour space, or OpenColorIO is not installed.
    """
    if name == AS_STORED:
        return as_stored()
    return _view(name, os.environ.get("OCIO"))


@cache
def _view(name: str, own: str | None) -> View:
    ocio = _library()
    built_in = ocio.Config.CreateFromBuiltinConfig(BUILT_IN)
    config = _own_config(own) if own else built_in
    space = config.getColorSpace(name)
    if space is None and own:  # files name spaces by identifiers that old configurations lack
        config, space = built_in, built_in.getColorSpace(name)
    if space is None:
        raise SettingsError(_unknown(name, own, config))
    if space.isData():
        return as_stored()
    name = space.getName()
    transfer = next((code for code, hdr in HDR.items() if hdr == name), None)
    if config is built_in and transfer is not None and (view := hdr_view(transfer)):
        return view  # its white is that of HDR video whose tags say so
    try:
        forward, back = (
            ocio.Config.GetProcessorFromConfigs(*way).getOptimizedCPUProcessor(
                ocio.BIT_DEPTH_F32, ocio.BIT_DEPTH_F32, ocio.OPTIMIZATION_LOSSLESS
            )
            for way in ((config, name, built_in, SRGB), (built_in, SRGB, config, name))
        )
    except (ocio.Exception, ocio.ExceptionMissingFile) as error:  # the latter for lookup tables
        raise InputError(
            f"{own} does not tell how {name} is shown as sRGB and brought back: {error}"
        ) from error
    return View(name, forward, back)


@cache
def hdr_view(transfer: int, primaries: int = BT2020) -> View | None:
    """Return the view of video with a transfer characteristic; None if it is not HDR.

    Args:
        transfer: The transfer characteristic (ITU-T H.273).
        primaries: The colour primaries. BT.2020 takes the place of those that are not known.

    Raises:
        SettingsError: If OpenColorIO is not installed.
    """
    name = HDR.get(transfer)
    if name is None:
        return None
    if primaries not in PRIMARIES:
        if primaries != UNSPECIFIED:
            log.warning("colour primaries %d of HDR are not known: BT.2020 is assumed", primaries)
        primaries = BT2020
    ocio = _library()
    config = ocio.Config.CreateFromBuiltinConfig(BUILT_IN)
    to_own = _xyz_of(primaries) @ np.linalg.inv(_xyz_of(BT2020)) / REFERENCE_WHITE
    forward, back = (
        config.getProcessor(_between(one, other, matrix)).getOptimizedCPUProcessor(
            ocio.BIT_DEPTH_F32, ocio.BIT_DEPTH_F32, ocio.OPTIMIZATION_LOSSLESS
        )
        for one, other, matrix in (
            (name, SRGB_DISPLAY, to_own), (SRGB_DISPLAY, name, np.linalg.inv(to_own)),
        )
    )  # fmt: skip
    return View(name, forward, back)


def _xyz_of(primaries: int) -> npt.NDArray[np.float64]:
    """Return the matrix from linear RGB with these primaries to XYZ (SMPTE RP 177), (3, 3)."""
    corners = np.array([[x, y, 1 - x - y] for x, y in PRIMARIES[primaries]]).T
    x, y = D65
    white = np.array([x / y, 1, (1 - x - y) / y])
    xyz: npt.NDArray[np.float64] = corners * np.linalg.solve(corners, white)
    return xyz


def _between(one: str, other: str, matrix: npt.NDArray[Any]) -> Any:
    """Return the transform from a display's colour space to another's, by a matrix in XYZ."""
    ocio = _library()
    scaling = ocio.MatrixTransform()
    whole = np.eye(4)
    whole[:3, :3] = matrix
    scaling.setMatrix(whole.ravel().tolist())
    group = ocio.GroupTransform()
    for step in (ocio.ColorSpaceTransform(one, DISPLAY), scaling,
                 ocio.ColorSpaceTransform(DISPLAY, other)):  # fmt: skip
        group.appendTransform(step)
    return group


def _library() -> Any:
    try:
        import PyOpenColorIO
    except ImportError as error:
        raise SettingsError(
            "colour spaces need OpenColorIO: pip install 'faceswap[film]'"
        ) from error
    return PyOpenColorIO


def _own_config(path: str) -> Any:
    ocio = _library()
    try:
        return ocio.Config.CreateFromFile(path)
    except (ocio.Exception, ocio.ExceptionMissingFile) as error:
        raise InputError(
            f"{path}, which the environment variable OCIO names, is not a configuration of "
            f"OpenColorIO that can be read: {error}"
        ) from error


def _unknown(name: str, own: str | None, config: Any) -> str:
    names = [space.getName() for space in config.getColorSpaces()]
    known = {alias.lower(): space.getName() for space in config.getColorSpaces()
             for alias in (space.getName(), *space.getAliases())}  # fmt: skip
    words = [one for one in names if name.lower() in one.lower()]
    near = [known[one] for one in difflib.get_close_matches(name.lower(), known, 3)]
    likely = list(dict.fromkeys([*near, *words]))[:3] or names[:3]
    where = own or "OpenColorIO's ACES studio configuration"
    return f"{where} has no colour space {name}; it has {', '.join(likely)} and {len(names)} in all"


def space_by_rule(path: Path) -> str | None:
    """Return the colour space that the file rules of the user's configuration give a file.

    It is None without such a configuration, because the built-in rules only guess by the suffix.

    Raises:
        InputError: If the configuration cannot be read.
        SettingsError: If OpenColorIO is not installed.
    """
    own = os.environ.get("OCIO")
    return str(_own_config(own).getColorSpaceFromFilepath(str(path))[0]) if own else None
