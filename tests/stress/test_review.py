"""A killed server of ``faceswap review`` loses nothing that it confirmed."""

import base64
import http.client
import json
import random
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import count

import cv2
import numpy as np
import pytest

from faceswap.facesets.edits import EDITS, MASKS
from faceswap.facesets.faceset import Faceset
from faceswap.files import read_lines
from faceswap.review.conversion.choices import Choices
from faceswap.review.finished import Finished
from faceswap.review.jobs import Jobs
from faceswap.review.workspace import Workspace
from faceswap.swapping.batch import read_jobs
from faceswap.swapping.records import FrameRecord
from faceswap.swapping.report import FrameReport, write_report
from tests.review.conftest import SIZE, Server, until, workspace  # noqa: F401 - a fixture

KILLS = 8
ADDRESS = re.compile(r"open (http://127\.0\.0\.1:(\d+)/\?token=(\S+))")


@contextmanager
def killed_after(workspace, seconds):  # noqa: F811
    """Run a server that is killed after some seconds; what the block sends may fail then."""
    with subprocess.Popen(
        [sys.executable, "-m", "faceswap", "review", workspace], stdout=subprocess.PIPE, text=True
    ) as process:
        found = ADDRESS.match(process.stdout.readline())
        server = Server(found[1], int(found[2]), found[3])
        threading.Timer(seconds, process.kill).start()
        with suppress(OSError, http.client.HTTPException):
            yield server


@pytest.mark.stress
def test_killed_server_loses_no_confirmed_edit(workspace):  # noqa: F811
    folder = workspace / "data" / "ada" / "faces"
    chance, confirmed = random.Random(0), 0
    for _ in range(KILLS):
        with killed_after(workspace, chance.uniform(0.2, 1.2)) as server:
            while True:
                painted = np.full((SIZE, SIZE), chance.randrange(256), np.uint8)
                png = base64.b64encode(cv2.imencode(".png", painted)[1]).decode()
                mask = {"edit": "mask", "faces": ["05.jpg#0-0"], "mask": png}
                for edit in ({"edit": "reject", "faces": ["07.jpg#0-0"]}, mask):
                    status, _, body = server.ask(f"{server.faceset('ada')}/edits", "POST", edit)
                    assert status == 200, body
                    confirmed += 1
        written = read_lines(folder / EDITS) if (folder / EDITS).exists() else []
        assert len([json.loads(line) for line in written]) >= confirmed
        faceset = Faceset.read(folder)  # refuses damaged lines, and masks missing or damaged
        if confirmed:
            assert "07.jpg#0-0" not in faceset.keys
            last = json.loads([line for line in written if '"mask"' in line][-1])["mask"]
            assert (folder / MASKS / last).is_file()
    assert confirmed > KILLS


@pytest.mark.stress
def test_killed_server_loses_no_confirmed_choice(workspace, model):  # noqa: F811
    """The settings of a clip and of its shots, its cast, the marks of an output, and jobs."""
    shutil.copytree(model, workspace / "models" / "x")
    (workspace / "clip.mkv").touch()
    (workspace / "clip.mkv.cast.toml").write_text('[[swap]]\nwho = "a.jpg"\n' * 2)
    frames = [FrameRecord(number, number / 25, None, []) for number in range(1000)]
    report = FrameReport(1, "x", "x.mkv", "", "x", None, "", {}, "x", {}, [], frames)
    write_report(workspace / "x.report.json", report)
    places = Workspace(workspace)
    (clip,), (chosen,), (output,) = places.clips(), places.trained(), places.outputs()
    home, usual = f"/conversion/{clip.id}", {"model": chosen.id, "look": {}}
    chance, confirmed, sent = random.Random(1), {}, {}

    def send(server, what, address, body, value):
        sent[what] = value
        status, _, answer = server.ask(address, "POST", body)
        assert status == 200, answer
        confirmed[what] = value

    numbers = count(1)
    for _ in range(KILLS):
        with killed_after(workspace, chance.uniform(0.3, 1.5)) as server:
            for number in numbers:
                share = number % 500 / 1000
                look = usual | {"look": {"erosion": share}}
                send(server, "clip", f"{home}/choose", look, share)
                own = usual | {"look": {"erosion": share, "color": "none", "feather": share}}
                send(server, "shot", f"{home}/choose", own | {"shot": [3, 9]}, share)
                to = "ab"[number % 2]
                change = {"entry": 1, "model": chosen.id, "to": to}
                send(server, "cast", f"{home}/cast", change, to)
                place = number % 1000
                send(server, "marks", f"/review/{output.id}/marks", {"places": [place]}, place)
        choices = Choices(clip, places)
        found = choices.read()  # refuses damaged files
        finished = Finished(output.path, places)
        values = {"clip": found["look"]["erosion"], "cast": found["cast"][1]["to"]}
        values["shot"] = found["shots"][0]["settings"].get("feather") if found["shots"] else None
        values["marks"] = next(iter(finished.marks()), None)
        for what, value in confirmed.items():
            assert values[what] in (value, sent[what]), what
    assert len(confirmed) == 4
    read_jobs(workspace / "clip.mkv.jobs.toml")  # the command line takes it


@pytest.mark.stress
def test_job_is_never_lost_by_a_killed_server(workspace, model):  # noqa: F811
    """A job that was confirmed is found again, and has run or can be run again."""
    shutil.copytree(model, workspace / "models" / "x")
    (workspace / "clip.mkv").write_bytes(b"no video")
    places = Workspace(workspace)
    (clip,), (chosen,) = places.clips(), places.trained()
    chance, confirmed = random.Random(2), []
    for _ in range(KILLS // 2):
        with killed_after(workspace, chance.uniform(0.5, 2)) as server:
            for _ in range(3):
                asked = {"model": chosen.id, "existing": "ask"}
                status, _, body = server.ask(f"/conversion/{clip.id}/start", "POST", asked)
                assert status == 200, body
                confirmed.append(json.loads(body)["job"])
    jobs = Jobs(places.root)
    assert confirmed
    assert set(confirmed) <= {job.id for job in jobs.all()}
    for name in confirmed:
        until(lambda name=name: jobs.job(name).state == "failed", 300)  # the clip is no video
        assert "clip.mkv" in jobs.job(name).log
