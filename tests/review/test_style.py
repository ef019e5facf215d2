"""Text is readable on every ground, in dark and in light (WCAG 2.1 AA)."""

import re
from itertools import product
from pathlib import Path

import pytest

import faceswap.review

CSS = (Path(faceswap.review.__file__).parent / "static" / "review.css").read_text()
DARK, LIGHT = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
)
TEXTS, GROUNDS = ("text", "muted", "accent", "bad", "good", "warm"), ("back", "panel", "raised")


def luminance(color):
    levels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return sum(share * x for share, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colors", [DARK, LIGHT], ids=["dark", "light"])
def test_text_has_contrast(colors):
    for text, ground in product(TEXTS, GROUNDS):
        assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert contrast(colors["on-accent"], colors["accent"]) >= 4.5
    for curve in ("a", "b"):
        assert contrast(colors[curve], colors["panel"]) >= 3


def test_pages_name_no_other_host():
    folder = Path(faceswap.review.__file__).parent
    for path in [*folder.glob("static/*"), *folder.glob("templates/*")]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, path
        assert not re.search(r"[\"'(=]//", text), path
        assert "style=" not in text, path
        assert not re.search(r"\bon\w+=", text), path  # handlers in attributes
