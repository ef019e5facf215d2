"""Show images of any colour space as sRGB, and bring new pixels back, by OpenColorIO.

Detector and network see what a display shows: sRGB (IEC 61966-2-1), whose curve goes on above 1
and below 0, so that nothing is clipped and the way back is exact. No tone mapping is applied. The
colour spaces are those of OpenColorIO's built-in ACES studio configuration, or those of the
configuration that the environment variable ``OCIO`` names.
"""

import difflib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from faceswap.arrays import FloatImage
from faceswap.errors import InputError, SettingsError

# Only the built-in configuration is known to name these colour spaces, which have an identifier of
# the Color Interop Forum: https://github.com/AcademySoftwareFoundation/ColorInterop
BUILT_IN = "ocio://studio-config-latest"
SRGB, LINEAR_REC709 = "srgb_rec709_scene", "lin_rec709_scene"
AS_STORED = "as stored"  # the name of the view that changes nothing
WHITE = np.float32(255)  # level of a display's white
FARTHEST = np.float32(255e4)  # levels; what is not finite is shown as this, or as 0


@dataclass(frozen=True, slots=True, eq=False)
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
