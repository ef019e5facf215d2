"""Paste prepared faces into their frame, and render the matte and the layers."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from faceswap.config import ConvertConfig
from faceswap.faces.geometry import compose, invert, warp_image_at, warp_mask
from faceswap.media.frame import Frame
from faceswap.provenance.watermark import Watermark
from faceswap.swapping import detail
from faceswap.swapping.compositor import COLORS, Swap, layer, paste
from faceswap.swapping.label import Label
from faceswap.swapping.region import covered


def render(
    frame: Frame, swaps: list[Swap], config: ConvertConfig, label: Label | None = None,
    watermark: Watermark | None = None, marked: Collection[str] = ("video", "layers"),
) -> dict[str, Frame]:  # fmt: skip
    """Render all output streams of one frame.

    Args:
        frame: The original frame.
        swaps: The frame's swaps from :meth:`Swapper.prepare`.
        config: Settings; ``matte`` and ``layers`` enable those streams.
        label: The label of the video stream; None draws none.
        watermark: The watermark that is added if a face is pasted; None adds none.
        marked: The streams that it is added to.

    Returns:
        Frames by stream name: "video", and "matte" and "layers" if they are enabled.

    Raises:
        SettingsError: If the label does not fit into the frame, or the plug-in of the blend or the
            colour match cannot be imported.
    """
    finished = [matched(swap, config, frame.index) for swap in swaps]
    video = frame
    for swap in finished:
        video = paste(video, swap, config.blend)
    is_swapped = bool(video.changes)
    streams = {"video": label.on(video) if label else video}
    if config.matte:
        streams["matte"] = matte(frame, finished)
    if config.layers:
        streams["layers"] = layer(frame, finished)
    names = streams.keys() & set(marked)
    if watermark and is_swapped and names:
        delta = watermark.delta(frame.gray())
        streams |= {name: streams[name].brightened(delta) for name in names}
    return streams


def paste_swaps(frame: Frame, swaps: list[Swap], config: ConvertConfig) -> Frame:
    """Apply the measured colours and detail, and blend prepared faces into their frame.

    Raises:
        SettingsError: If the plug-in of the blend or the colour match cannot be imported.
    """
    for swap in swaps:
        frame = paste(frame, matched(swap, config, frame.index), config.blend)
    return frame


def matte(frame: Frame, swaps: list[Swap]) -> Frame:
    """Return a frame that is white where faces were swapped and black elsewhere.

    Soft edges of a mask are grey.

    Args:
        frame: The original frame.
        swaps: Swaps from :func:`matched`.
    """
    drawn = frame.repainted(np.zeros((*frame.shape, 3), np.uint8), is_data=True)
    for swap in swaps:
        drawn = paste(drawn, replace(swap, image=np.full_like(swap.image, 255)))
    return drawn


def matched(swap: Swap, config: ConvertConfig, index: int = 0) -> Swap:
    """Apply the measured colour match, merge the cover, and apply the measured detail.

    Detail comes last, because a colour match would amplify or weaken its grain. It is applied on
    the frame's own pixels, so the swap is resampled to them.

    Args:
        swap: A swap from :meth:`Swapper.prepare`.
        config: Settings.
        index: The frame's index, which seeds the grain together with the face's track number.

    Raises:
        SettingsError: If the plug-in of the colour match cannot be imported.
    """
    image, mask, aligned = swap.image, swap.mask, swap.aligned
    if swap.color is not None:
        recoloured = COLORS.resolve(config.color).apply(image, swap.color)
        image = np.asarray(recoloured, np.float32)  # a plug-in may return any type
    if swap.cover is not None:
        image, mask = covered(image, mask, swap.cover)
    if swap.on_frame is not None:
        height, width = swap.on_frame.image.shape[:2]
        to_box = compose(swap.on_frame.matrix, invert(aligned.matrix))
        image = warp_image_at(image, to_box, width, height)
        mask = warp_mask(mask, to_box, width, height)
        aligned = swap.on_frame
    if swap.detail is not None:
        generator = np.random.default_rng((index, swap.aligned.face.track + 1))
        image = detail.apply(image, swap.detail, generator)
    return Swap(aligned, image, mask)
