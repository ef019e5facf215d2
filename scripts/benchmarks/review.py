#!/usr/bin/env python3
"""Measure how quick the pages of ``faceswap review`` are, in Chromium.

    scripts/benchmarks/review.py [--faces 10000] [--rounds 3] [--clip CLIP --model MODEL]

A faceset of that many faces is made of noise. Measured are: from the start of the command to its
first page; from the click on the faceset to the first paint, and to all faces in sight; and the
longest time between two frames while the grid scrolls from top to bottom. With a clip and a model:
from the change of a setting to the new picture, how long a second of the clip takes, and how long
the search for shots and people takes.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from faceswap.config import COVERAGE

SIZE = 256  # pixels, side of a crop
DISTINCT = 200  # crops; the others are links to them
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SET = """
(input, value) => {
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}
"""
SCROLL = """
async (seconds) => {
  const grid = document.getElementById("grid"), gaps = [];
  const end = grid.scrollHeight - grid.clientHeight;
  let before = performance.now();
  const began = before;
  await new Promise((done) => requestAnimationFrame(function next(now) {
    gaps.push(now - before);
    before = now;
    grid.scrollTop = end * Math.min((now - began) / (1000 * seconds), 1);
    if (now - began < 1000 * seconds) requestAnimationFrame(next); else done();
  }));
  return gaps.slice(1);
}
"""


def make_faceset(folder: Path, count: int) -> None:
    """Write a faceset of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    header = {
        "format": "faceswap-faces", "version": 1, "size": SIZE, "coverage": COVERAGE,
        "settings": {}, "weights": [],
    }  # fmt: skip
    lines = [json.dumps(header)]
    landmarks = random.uniform(0, 1000, (68, 2)).round(2).tolist()
    for number in range(count):
        path = folder / f"{number:06d}-0.png"
        if number < DISTINCT:
            small = random.uniform(0, 255, (16, 16, 3)).astype(np.float32)
            image = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            noisy = np.clip(image + random.normal(0, 4, image.shape), 0, 255)
            cv2.imwrite(str(path), noisy.astype(np.uint8))
        else:
            os.link(folder / f"{number % DISTINCT:06d}-0.png", path)
        record = {
            "file": path.name, "source": "clip.mp4", "index": number, "bytes": 1, "time": "0",
            "box": [0, 0, 300, 300], "score": 1.0, "landmarks": landmarks,
            "matrix": [[1, 0, 0], [0, 1, 0]], "placed_by": "dlib", "track": 0,
            "pose": random.uniform(-40, 40, 3).round(1).tolist(),
            "sharpness": round(float(random.uniform(0.2, 0.9)), 3), "expression": {"jawOpen": 0.5},
            "occluded": 0.1, "glasses": False, "embedding": None,
        }  # fmt: skip
        lines.append(json.dumps(record))
    (folder / "faces.jsonl").write_text("\n".join(lines) + "\n")


def faces_in_sight(page: Page) -> None:
    """Wait until the faces in sight are painted."""
    page.wait_for_selector("[data-ready]")
    page.wait_for_selector(".tile img")
    page.evaluate(
        "() => Promise.all([...document.querySelectorAll('.tile img')].map((one) => one.decode()))"
    )


def shown(page: Page) -> None:
    """Wait until the newest settings are shown."""
    page.wait_for_selector("#clip[data-state=shown]")


def measure_clip(page: Page, clip: str) -> dict[str, float]:
    """Return how many seconds what a user does on the page of a clip takes."""
    page.set_default_timeout(60_000)
    page.click("nav a >> text=Conversion")
    page.click(f".cards a >> text={clip}")
    began = time.monotonic()
    page.wait_for_selector("[data-survey=done]")
    took = {"search for shots and people": time.monotonic() - began}
    page.wait_for_selector("[data-ready]")
    changes = [
        ("select[name=color]", ("average", "auto")), ("select[name=mask]", ("hull", "skin")),
        ("[name=erosion]", ("0.05", "0.01")), ("[name=identity_strength]", ("0.5", "1")),
    ]  # fmt: skip
    for name, values in changes:
        times = []
        for value in values * 2:
            began = time.monotonic()
            page.eval_on_selector(name, SET, value)
            shown(page)
            times.append(time.monotonic() - began)
        took[f"change of {re.search(r'name=(.*)]', name)[1]}"] = statistics.median(times)  # type: ignore[index]
    began = time.monotonic()
    page.click("#loop")
    page.wait_for_selector("[data-state=playing]")
    took["a second of the clip"] = time.monotonic() - began
    return took


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    of_clip: dict[str, float] = {}
    starts, paints, clicks, gaps = [], [], [], []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        make_faceset(Path(name, "data", "x", "faces"), given.faces)
        if given.clip:
            shutil.copy(given.clip, name)
            shutil.copytree(given.model, Path(name, "models", "x"))
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for number in range(given.rounds):
            began = time.monotonic()
            command = [sys.executable, "-m", "faceswap", "review", name]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                found = re.search(r"http\S+", process.stdout.readline())
                assert found
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(found[0])
                page.wait_for_selector(".cards a")
                starts.append(time.monotonic() - began)
                began = time.monotonic()
                page.click(".cards a")
                faces_in_sight(page)
                clicks.append(time.monotonic() - began)
                paints.append(page.evaluate(FIRST_PAINT) / 1000)
                gaps.append(max(page.evaluate(SCROLL, 5)))
                if given.clip and number == given.rounds - 1:  # its processes would disturb others
                    of_clip = measure_clip(page, given.clip.name)
                page.close()
                process.kill()
        browser.close()
    print(f"{given.faces} faces; medians of {given.rounds} rounds")
    print(f"start of the command to the first page: {statistics.median(starts):.2f} s")
    print(f"click to the first paint: {statistics.median(paints):.2f} s")
    print(f"click to faces in sight: {statistics.median(clicks):.2f} s")
    print(f"longest frame while scrolling for 5 s: {statistics.median(gaps):.0f} ms")
    for what, seconds in of_clip.items():
        print(f"{what}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
