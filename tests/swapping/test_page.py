"""The page of a conversion shows what to look at, in images that are really those frames."""

import base64
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from faceswap.cli import text
from faceswap.config import ConvertConfig
from faceswap.errors import OutputError, SettingsError
from faceswap.media.footage import VideoFile, identify
from faceswap.media.photos import read_photo
from faceswap.media.writers import write_clip
from faceswap.swapping import page
from faceswap.swapping.converter import contact_sheet, convert
from faceswap.swapping.page import write_page
from faceswap.swapping.plan import key_of, plan
from faceswap.swapping.records import FaceRecord, FrameRecord, counted_fates
from faceswap.swapping.report import ConvertReport, FrameReport, write_report
from faceswap.swapping.troubles import Kind, Trouble, troubles_in

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", html=True)
SIZE = 96
BOX = (24.0, 24.0, 72.0, 72.0)


class Reader(HTMLParser):
    """Collects the images, the text and the references of a page, and checks that tags match."""

    def __init__(self, path):
        super().__init__()
        self.images, self.text, self.ids, self.links, self.tags = [], [], [], [], []
        self.rects, self._open = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "img":
            self.images.append((values["alt"], values["src"]))
        if tag == "rect" and values["class"] != "track":
            self.rects.append((values["class"], float(values["x"]), float(values["width"])))
        if tag == "a":
            self.links.append(values["href"])
        if "id" in values:
            self.ids.append(values["id"])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_data(self, data):
        if data.strip() and "style" not in self._open:
            self.text.append(" ".join(data.split()))

    def all(self):
        return " ".join(self.text)

    def shown(self, alt):
        """Decode the first image with this alternative text."""
        source = next(source for found, source in self.images if found == alt)
        return decoded(source)


def decoded(source):
    head, data = source.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data, validate=True))) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, color, within=60):
    return (np.abs(pixels - np.array(color)).max(axis=-1) < within).sum()


def face(fate="swapped", box=BOX, **values):
    facts = {"track": 0, "target": 0, "box": box, "score": 1.0, "yaw": 0.0, "pitch": 0.0}
    return FaceRecord(fate, **facts | {"area": 0.3} | values)


def write_levels(path, count, offset):
    """Write frames whose grey levels tell their numbers."""
    images = [np.full((SIZE, SIZE, 3), offset + 4 * at, np.uint8) for at in range(count)]
    write_clip(path, images, 25, np.zeros(1920 * count, np.int16), 48000)
    return path


@pytest.fixture
def finished(tmp_path):
    """Return a function that describes a finished conversion of a clip of 30 frames."""
    source = write_levels(tmp_path / "clip.mp4", 30, 100)
    target = write_levels(tmp_path / "clip.swapped.mp4", 30, 20)

    def describe(records, troubles=None, name="clip.swapped.mp4"):
        report = ConvertReport(target.with_name(name), detector="YuNet")
        report.report = tmp_path / "clip.swapped.report.json"
        write_report(report.report, FrameReport(
            1, "clip.mp4", name, "00", "a-b", None, "00", {}, "YuNet", counted_fates(records), [],
            list(records),
        ))  # fmt: skip
        report.frames, report.faces = len(records), sum(r.swapped for r in records)
        report.without_face = sum(not r.swapped for r in records)
        report.not_swapped = {f: n for f, n in counted_fates(records).items() if f != "swapped"}
        report.troubles = troubles_in(records) if troubles is None else troubles
        job = SimpleNamespace(
            source=source, kind="video", footage=VideoFile(source), form="movie", target=target,
            model=SimpleNamespace(name="a-b"), config=ConvertConfig(),
        )  # fmt: skip
        return job, report

    return describe


def usual(count=30, **changed):
    """Return frames with a swapped face; ``changed`` holds the faces of frames f0, f1 ..."""
    return [FrameRecord(at, at / 25, None, changed.get(f"f{at}", [face()])) for at in range(count)]


def test_runs_show_their_frames_of_source_and_output(finished):
    job, report = finished(usual(f10=[], f11=[], f12=[], f20=[face("another person")]))

    path = write_page(job, report)

    found = Reader(path)
    assert path.name == "clip.swapped.report.html"
    assert [trouble.kind for trouble in report.troubles][:2] == ["lost face", "identity flicker"]
    assert "frames 10 to 12, 0:00.400 to 0:00.480, 3 frames" in found.text
    assert "frame 20, at 0:00.800" in found.text
    for at in (10, 11, 12):
        original, output = found.shown(f"Original, frame {at}"), found.shown(f"Output, frame {at}")
        assert original.mean() == pytest.approx(100 + 4 * at, abs=1.5)
        assert output.mean() == pytest.approx(20 + 4 * at, abs=1.5)
    assert found.ids == [f"look-{n + 1}" for n in range(len(report.troubles))]
    assert {link[1:] for link in found.links} == set(found.ids)


def test_boxes_have_the_colour_of_their_fate_and_only_the_original_has_them(finished):
    left, right = (10.0, 24.0, 40.0, 72.0), (56.0, 24.0, 86.0, 72.0)
    faces = [face(box=left), face("not chosen", right)]
    job, report = finished(usual(f0=faces))

    found = Reader(write_page(job, report))

    original, output = found.shown("Original, frame 0"), found.shown("Output, frame 0")
    assert near(original[:, :48], page.COLORS["swapped"]) > 60
    assert near(original[:, 48:], page.COLORS["not chosen"]) > 60
    assert near(original[:, 48:], page.COLORS["swapped"]) == 0
    assert output.std() < 3
    assert {"1: swapped", "2: not chosen"} <= set(found.text)  # colour is not all that tells


def test_header_names_files_counts_and_reasons(finished):
    job, report = finished(usual(f3=[face("smaller")], f4=[]))
    report.unreadable, report.left_out = ["x.png is torn"], ["notes.txt"]

    found = Reader(write_page(job, report)).all()

    assert "30 frames 28 faces swapped 2 frames without a swapped face" in found
    assert f"Source {job.source} Output {report.output} Model a-b Detector YuNet" in found
    assert "1 face smaller than the largest face (--largest)" in found
    assert "Unreadable x.png is torn" in found
    assert "Left out notes.txt" in found
    assert "clip.swapped.report.json" in found


def test_footage_without_trouble_says_so_and_shows_samples(finished):
    job, report = finished(usual())

    found = Reader(write_page(job, report))

    assert "No run of frames looks wrong." in found.text
    assert [alt for alt, _ in found.images if alt.startswith("Output")] == [
        "Output, frame 0", "Output, frame 14", "Output, frame 29",
    ]  # fmt: skip


def test_timeline_covers_every_frame_once(finished):
    job, report = finished(usual(f10=[], f11=[], f20=[face("not chosen")], f5=[face(yaw=80.0)]))

    found = Reader(write_page(job, report))

    faces = [rect for rect in found.rects if rect[0] not in ("serious", "other")]
    assert [kind for kind, *_ in faces] == ["swapped", "no-face", "swapped", "not-swapped",
                                           "swapped"]  # fmt: skip
    ends = [start + width for _, start, width in faces]
    assert [start for _, start, _ in faces] == pytest.approx([0, *ends[:-1]], abs=0.02)
    assert ends[-1] == pytest.approx(page.COLUMNS)
    assert faces[1][1:] == pytest.approx((10 / 30 * page.COLUMNS, 2 / 30 * page.COLUMNS), abs=0.02)
    # The lost face and the change are serious, the wide pose is not.
    assert ("serious", *faces[1][1:]) in found.rects
    assert [rect[1] for rect in found.rects if rect[0] == "other"][-1] == pytest.approx(
        5 / 30 * page.COLUMNS, abs=0.02
    )


def test_long_footage_is_summed_up_in_a_bounded_timeline():
    records = [FrameRecord(at, at / 25, None, [] if at % 2 else [face()]) for at in range(9000)]
    clip = page._Clip(SimpleNamespace(footage=None), records)

    lanes = page._timeline(clip, [Trouble("lost face", 4000, 4000, 10.0)])

    assert [mark.kind for mark in lanes["faces"]] == ["no-face"]  # the worse of neighbours
    (mark,) = lanes["serious"]
    assert mark.width >= page.MIN_MARK
    assert mark.start == pytest.approx(4000 / 9000 * page.COLUMNS, abs=page.MIN_MARK)


def test_number_of_runs_and_images_is_bounded(finished, monkeypatch):
    monkeypatch.setattr(page, "MAX_RUNS", 4)
    troubles = [Trouble("lost face", at, min(at + 9, 29), 30.0 - at) for at in range(25)]
    job, report = finished(usual(), troubles)

    found = Reader(write_page(job, report))

    assert len(found.ids) == 4
    assert len(found.images) == 2 * 3 * (4 + 1)  # runs and samples
    assert "21 more runs, less serious than these, are in clip.swapped.report.json." in found.text
    assert sum(kind == "serious" for kind, *_ in found.rects) == 25


def test_large_frames_become_small_images():
    tall = np.zeros((4000, 2000, 3), np.uint8)

    with Image.open(BytesIO(page._thumbnail(tall, [face(box=(0, 0, 2000, 2000))]))) as image:
        assert image.size == (160, 320)


def test_page_needs_nothing_from_elsewhere(finished):
    job, report = finished(usual(f10=[]))

    found = Reader(write_page(job, report))

    assert not {"script", "link", "iframe"} & set(found.tags)
    assert not re.search(
        r"https?:|url\(|@import|\son\w+=", re.sub('base64,[^"]+', "", found.source)
    )
    assert "default-src 'none'" in found.source
    assert found.source.startswith("<!doctype html>")
    assert '<html lang="en">' in found.source


def test_names_are_text_and_never_markup(finished):
    job, report = finished(usual(f3=[]), name="<script>alert(1)<i>.mp4")
    job.model.name = "<script>alert(1)</script>"
    job.source = Path("a\udcff<b>&.mp4")  # bytes that are not UTF-8

    found = Reader(write_page(job, report))

    assert "script" not in found.tags
    assert "b" in found.tags
    assert "a?<b>&.mp4" in found.text


def luminance(color):
    """Relative luminance of WCAG 2.1."""
    levels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_marks_have_the_contrast_of_wcag_aa(finished, scheme):
    job, report = finished(usual())
    schemes = re.findall(r"(?s):root \{(.*?)\}", write_page(job, report).read_text())
    colors = dict(re.findall(r"--([\w-]+): (#\w{6});", schemes[scheme]))

    pairs = [(text, ground) for text in ("text", "muted", "link") for ground in ("page", "card")]
    pairs += [(name, f"{name}-bg") for name in ("alarm", "note", "good")]
    assert {pair: contrast(*map(colors.get, pair)) for pair in pairs if
            contrast(*map(colors.get, pair)) < 4.5} == {}  # fmt: skip
    for name in ("lane-serious", "lane-other"):
        assert contrast(colors[name], colors["card"]) >= 3


def test_frames_that_cannot_be_read_again_are_left_out(finished, caplog):
    job, report = finished(usual(f10=[]))
    job.source.rename(job.source.with_name("moved.mp4"))
    caplog.set_level(logging.WARNING)
    job = SimpleNamespace(**vars(job) | {"footage": Gone(job.footage)})

    found = Reader(write_page(job, report))

    assert any("the page lacks images" in line for line in caplog.messages)
    assert found.shown("Output, frame 10").mean() == pytest.approx(60, abs=1.5)
    assert not [alt for alt, _ in found.images if alt.startswith("Original")]
    assert "cannot be read" in found.text


class Gone:
    """Footage whose file was moved after its header was read."""

    def __init__(self, footage):
        self._footage, self.first_file = footage, footage.first_file

    def probe(self):
        return SimpleNamespace(start=0)

    def read(self, first):
        return self._footage.read(first)


def test_page_that_cannot_be_written_is_an_error(finished):
    job, report = finished(usual())
    page.page_path(job.target, job.form).mkdir()

    with pytest.raises(OutputError, match=r"clip\.swapped\.report\.html"):
        write_page(job, report)


def test_far_frames_are_read_by_seeking_and_near_ones_in_one_go(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "NEAR", 5)
    footage = VideoFile(write_levels(tmp_path / "clip.mp4", 30, 100))
    starts = []

    class Counting:
        def read(self, first):
            starts.append(first)
            return footage.read(first)

    found = list(page._frames(Counting(), [2, 4, 9, 20, 29, 40]))

    assert [frame.index for frame in found] == [2, 4, 9, 20, 29]
    assert [round(float(f.image.mean())) for f in found] == pytest.approx(
        [100 + 4 * at for at in (2, 4, 9, 20, 29)], abs=1
    )
    assert starts == [2, 20, 29, 40]


@pytest.fixture
def clip(tmp_path, collins):
    """Eight frames; a moving face is in all of them except frame 4."""
    empty = np.full_like(collins, 40)
    images = [empty if at == 4 else np.roll(collins, 3 * at, axis=1) for at in range(8)]
    write_clip(tmp_path / "video.mp4", images, 25, np.zeros(15360, np.int16), 48000)
    return tmp_path / "video.mp4"


@pytest.mark.parametrize("output", ["out.mp4", "out.gif", "out.webp", "out.apng", "out"])
@pytest.mark.slow
def test_video_gets_a_page(clip, model, tmp_path, output):
    config = replace(QUICK, start="0.08")

    report = convert(clip, tmp_path / output, model, config)

    assert report.page == tmp_path / "out.report.html"
    found = Reader(report.page)
    assert "lost face" in found.text
    assert "frame 4, at 0:00.160" in found.text
    _, footage = identify(tmp_path / output, "sequence" if output == "out" else "auto")
    written = [frame.image for frame in footage.read()]
    small = found.shown("Output, frame 4")
    assert len(written) == 6
    full = np.asarray(Image.fromarray(written[2]).resize((320, 320), Image.Resampling.BOX), int)
    assert np.abs(small - full).mean() < 4
    assert near(found.shown("Original, frame 2"), page.COLORS["swapped"]) > 100


def test_sequence_gets_a_page_that_names_its_files(tmp_path, collins, model):
    (tmp_path / "shots").mkdir()
    for at in range(4):
        image = np.full_like(collins, 40) if at == 2 else np.roll(collins, 3 * at, axis=1)
        Image.fromarray(image).save(tmp_path / "shots" / f"shot.{1001 + at}.png")

    report = convert(tmp_path / "shots", model=model, config=replace(QUICK, images="sequence"))

    assert report.page == tmp_path / "shots.swapped.report.html"
    found = Reader(report.page)
    assert "shot.1003.png, at 0:00.083" in found.text
    assert found.shown("Output, shot.1003.png").mean() == pytest.approx(40, abs=1)
    first = read_photo(report.output / "shot.1001.png").image
    full = np.asarray(Image.fromarray(first).resize((320, 320), Image.Resampling.BOX), int)
    assert np.abs(found.shown("Output, shot.1001.png") - full).mean() < 4


def test_photos_that_are_not_swapped_are_shown(tmp_path, collins, hopper, model):
    source = tmp_path / "photos"
    (source / "deep").mkdir(parents=True)
    Image.fromarray(collins).save(source / "deep" / "both.jpg")
    Image.fromarray(hopper).save(source / "other.png")
    Image.fromarray(np.full((90, 90, 3), 70, np.uint8)).save(source / "wall.jpg")
    Image.fromarray(hopper).save(tmp_path / "not.png")
    (source / "torn.png").write_bytes(b"words")

    report = convert(
        source, model=model, config=replace(QUICK, exclude=(str(tmp_path / "not.png"),))
    )

    found = Reader(report.page)
    assert report.page == tmp_path / "photos.swapped.report.html"
    below = found.all().partition("To look at")[2]
    assert below.index("faces found, none swapped") < below.index("no face found")
    assert near(found.shown("Original, other.png"), page.COLORS["not chosen"]) > 100
    assert found.shown("Original, wall.jpg").shape == (90, 90, 3)
    assert found.shown("Output, wall.jpg").mean() == pytest.approx(70, abs=1)
    assert near(found.shown("Original, deep/both.jpg"), page.COLORS["swapped"]) > 100
    assert "torn.png cannot be read" in found.all() or "torn.png is not" in found.all()
    assert "svg" not in found.tags


def test_single_photo_gets_a_page(tmp_path, collins, model):
    Image.fromarray(collins).save(tmp_path / "x.png")

    report = convert(tmp_path / "x.png", model=model, config=QUICK)

    found = Reader(report.page)
    assert report.page == tmp_path / "x.swapped.report.html"
    assert f"page: {report.page}" in text.conversion(report)
    assert "Every face that was found is swapped, and every photo has one." in found.text
    assert [alt for alt, _ in found.images] == ["Original, x.png", "Output, x.png"]
    full = np.asarray(Image.open(report.output).resize((320, 320), Image.Resampling.BOX), int)
    assert np.abs(found.shown("Output, x.png") - full).mean() < 4


def test_preview_has_no_page(clip, model, tmp_path):
    with pytest.raises(SettingsError, match="--html does not apply to a preview"):
        contact_sheet(clip, tmp_path / "sheet.png", 2, model, QUICK)


def test_page_does_not_change_what_a_stopped_run_can_go_on_with(clip, model):
    keys = [key_of(plan(clip, None, model, replace(QUICK, html=html))) for html in (True, False)]

    assert keys[0] == keys[1]


def test_every_kind_of_trouble_is_explained():
    assert set(page.MEANING) == set(get_args(Kind))
