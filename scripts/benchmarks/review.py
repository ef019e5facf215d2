#!/usr/bin/env python3
"""Measure how quick the pages of ``faceswap review`` are, in Chromium.

    scripts/benchmarks/review.py [--faces 10000] [--rounds 3]

A faceset of that many faces is made of noise. Measured are: from the start of the command to its
first page; from the click on the faceset to the first paint, and to all faces in sight; and the
longest time between two frames while the grid scrolls from top to bottom.
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


def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    starts, paints, clicks, gaps = [], [], [], []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        make_faceset(Path(name, "data", "x", "faces"), given.faces)
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(given.rounds):
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
                page.close()
                process.kill()
        browser.close()
    print(f"{given.faces} faces; medians of {given.rounds} rounds")
    print(f"start of the command to the first page: {statistics.median(starts):.2f} s")
    print(f"click to the first paint: {statistics.median(paints):.2f} s")
    print(f"click to faces in sight: {statistics.median(clicks):.2f} s")
    print(f"longest frame while scrolling for 5 s: {statistics.median(gaps):.0f} ms")


if __name__ == "__main__":
    main()
