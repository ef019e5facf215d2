"""The examples for render farms submit the right commands; stubs stand for the farms' programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap.swapping.shards import Shard

FARM = Path(__file__).parents[1] / "docs" / "farm"
ARGUMENTS = ["3", "my clip.mp4", "--model", "models/x", "--output", "out.mp4"]


def run(script, arguments, **environment):
    return subprocess.run(
        [sys.executable, FARM / script, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="the stub is a script for a POSIX shell")
def test_deadline_gets_a_task_for_each_shard_and_a_join(tmp_path):
    stub = tmp_path / "deadlinecommand"
    stub.write_text(
        f'#!/bin/sh\nn=$(ls {tmp_path} | grep -c copy)\ncp "$1" {tmp_path}/copy$n.job\n'
        f'cp "$2" {tmp_path}/plugin$n.job\necho Result=Success\necho JobID=id$n\n'
    )
    stub.chmod(0o755)

    done = run("submit_deadline.py", ARGUMENTS, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert (done.returncode, done.stdout) == (0, "shards: id0, join: id1\n"), done.stderr

    def read(name):
        lines = (tmp_path / name).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    render, last = read("copy0.job"), read("copy1.job")
    assert render["Plugin"] == last["Plugin"] == "CommandLine"
    assert (render["Frames"], render["ChunkSize"]) == ("1-3", "1")
    assert last["JobDependencies"] == "id0"
    command = read("plugin0.job")["Arguments"]
    assert command == (
        "convert <QUOTE>my clip.mp4<QUOTE> --model models/x --output out.mp4 --shard <STARTFRAME>/3"
    )
    for task in (1, 2, 3):
        Shard.parse(command.rpartition(" ")[2].replace("<STARTFRAME>", str(task)))
    assert read("plugin1.job")["Arguments"] == "join <QUOTE>my clip.mp4<QUOTE> --output out.mp4"


STUB = """
import atexit, json, os, sys, types

class Outline:
    def __init__(self, name, **about):
        self.about, self.layers = about, []
    def add_layer(self, layer):
        self.layers.append(layer)

class Shell:
    def __init__(self, name, **about):
        self.name, self.about, self.after = name, about, []
    def depend_all(self, other):
        self.after.append(other.name)

def launch(job, **options):
    layers = [{"name": l.name, "after": l.after, **l.about} for l in job.layers]
    open(os.environ["LAUNCHED"], "w").write(json.dumps(layers))
"""


def test_opencue_gets_a_frame_for_each_shard_and_a_join(tmp_path):
    package = tmp_path / "outline"
    (package / "modules").mkdir(parents=True)
    (package / "stub.py").write_text(STUB)
    (package / "__init__.py").write_text("from outline.stub import Outline\n")
    (package / "cuerun.py").write_text("from outline.stub import launch\n")
    (package / "modules" / "__init__.py").write_text("")
    (package / "modules" / "shell.py").write_text("from outline.stub import Shell\n")

    done = run(
        "submit_opencue.py", ARGUMENTS, PYTHONPATH=str(tmp_path), LAUNCHED=str(tmp_path / "job")
    )

    assert done.returncode == 0, done.stderr
    shards, joined = json.loads((tmp_path / "job").read_text())
    assert shards["command"] == ["faceswap", "convert", *ARGUMENTS[1:], "--shard", "#IFRAME#/3"]
    assert (shards["range"], shards["chunk"]) == ("1-3", 1)
    assert joined["command"] == ["faceswap", "join", "my clip.mp4", "--output", "out.mp4"]
    assert joined["after"] == ["shards"]


@pytest.mark.parametrize("script", ["submit_deadline.py"])
@pytest.mark.parametrize("arguments", [[], ["x", "clip.mp4"], ["3"]])
def test_senseless_arguments_show_how_it_is_used(script, arguments):
    done = run(script, arguments)
    assert done.returncode == 1
    assert script in done.stderr
