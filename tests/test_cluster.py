"""A Ray cluster gives the same results as one machine, also if a machine is lost midway."""

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from faceswap import cluster
from faceswap.cli.main import cli
from faceswap.config import ConvertConfig, ExtractConfig
from faceswap.errors import DeviceError, InputError, OutputError, SettingsError
from faceswap.faces.detection import FrameView
from faceswap.facesets.extractor import extract
from faceswap.files import sha256_of
from faceswap.media import segments, writers
from faceswap.models import modelfile
from faceswap.swapping import clustered, shards
from faceswap.swapping.batch import convert_all, read_jobs
from faceswap.swapping.converter import convert
from faceswap.swapping.plan import plan
from faceswap.swapping.shards import Shard, convert_shard, join
from faceswap.swapping.turnover import package
from scripts.tools.check_machines import digest
from tests.support.clips import segment_length, write_lossless
from tests.support.stops import Stopped, stop_before_stream

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

QUICK = ConvertConfig(workers=1, device="cpu", detector="hog", codec="ffv1")
LENGTH, SEGMENT = 40, 8
RENDER = clustered._render


def render_short(*arguments):
    """Render a shard with short segments; a task in another process."""
    for module in (segments, writers, shards, clustered):
        module.SEGMENT_FRAMES = SEGMENT
    return RENDER(*arguments)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    segment_length(monkeypatch, SEGMENT)
    for module in (shards, clustered):
        monkeypatch.setattr(module, "SEGMENT_FRAMES", SEGMENT)
    monkeypatch.setattr(clustered, "_render", render_short)


@pytest.fixture(scope="module")
def nodes():
    """Start a cluster of two machines, with a core each, and connect to it."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    started.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = started.address
    cluster.connect()
    yield started
    ray.shutdown()
    started.shutdown()
    del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="module")
def small(collins):
    """Return a small moving face, (H, W, 3)."""
    return np.asarray(Image.fromarray(collins).resize((192, 192)))


@pytest.fixture(scope="module")
def clip(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    images = [np.roll(small, number % 7, axis=1) for number in range(LENGTH)]
    return write_lossless(folder / "clip.mkv", images)


@pytest.fixture(scope="module")
def reference(clip, model):
    convert(clip, clip.with_name("whole.mkv"), model, QUICK)
    return digest(clip.with_name("whole.mkv"))


def test_shards_give_the_same_packets(clip, model, reference):
    output = clip.with_name("shards.mkv")
    for number in (3, 1, 2):
        convert_shard(clip, output, model, QUICK, Shard(number, 3))
    join(clip, output)

    assert digest(output) == reference


def test_two_machines_give_the_same_packets(clip, model, reference, nodes):
    output, seen = clip.with_name("cluster.mkv"), []

    report = convert(clip, output, model, replace(QUICK, cluster=True), seen.append)

    assert digest(output) == reference
    assert report.frames == LENGTH
    assert not list(clip.parent.glob(".*.parts"))
    rendered = [progress.done for progress in seen if progress.unit == "frames"]
    assert rendered == sorted(rendered)
    assert rendered[-1] == LENGTH


def test_a_machine_that_is_lost_is_replaced(clip, model, reference, nodes, capsys):
    output, killed = clip.with_name("killed.mkv"), []
    extra = nodes.add_node(num_cpus=1)
    assert extra.any_processes_alive()

    def kill(progress):
        if progress.unit == "frames" and progress.done > 0 and not killed:
            killed.append(progress.done)
            nodes.remove_node(extra, allow_graceful=False)

    convert(clip, output, model, replace(QUICK, cluster=True), kill)

    assert killed
    assert killed[0] < LENGTH
    assert not extra.any_processes_alive()
    assert capsys.readouterr().out == ""  # stdout belongs to the report
    assert digest(output) == reference


def test_a_stopped_run_goes_on_with_other_machines(clip, model, nodes, monkeypatch):
    config = replace(QUICK, matte=True)
    convert(clip, clip.with_name("alone.mkv"), model, config)
    output, config = clip.with_name("stopped.mkv"), replace(config, cluster=True)

    def stop(progress):
        if progress.unit == "frames" and progress.done > 0:
            raise Stopped

    monkeypatch.setattr(clustered, "_slots", lambda _: (1, 0, 1))
    with pytest.raises(Stopped):
        convert(clip, output, model, config, stop)
    monkeypatch.setattr(clustered, "_slots", lambda _: (1, 0, 2))
    with monkeypatch.context() as patch:
        stop_before_stream(patch, "matte")
        with pytest.raises(Stopped):
            convert(clip, output, model, config)
    made = {path.name for path in clip.parent.glob(".stopped.mkv.*.parts/shard-*")}
    assert made == {"shard-1-of-2", "shard-2-of-2"}
    assert output.exists()
    with pytest.raises(OutputError, match="exists already"):  # it is not that of these settings
        convert(clip, output, model, replace(config, color="none"))
    convert(clip, output, model, config)

    for name in ("alone.mkv", "alone.matte.mkv"):
        assert digest(clip.with_name(name)) == digest(
            clip.with_name(name.replace("alone", "stopped"))
        )


def test_sigterm_ends_a_command_as_without_a_cluster(clip, model, nodes, tmp_path):
    output = tmp_path / "terminated.mkv"
    options = ["--model", model, "--detector", "hog", "--device", "cpu", "--cluster", "-o", output]
    command = [sys.executable, "-m", "faceswap", "convert", clip, *options]
    started = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".*.parts/shard-*")):  # a task has begun
        assert started.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    _, told = started.communicate(timeout=60)

    assert started.returncode == 130, told
    assert "interrupted; finished work is kept" in told


@pytest.mark.parametrize("option", ["--json", None])
def test_reports_are_printed_on_stdout(collins, model, nodes, tmp_path, option):
    for name in ("a.png", "b.png"):
        Image.fromarray(collins).save(tmp_path / name)
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--model", str(model)]
    arguments += ["--detector", "hog", "--device", "cpu", "--cluster", *filter(None, [option])]
    done = CliRunner().invoke(cli, ["convert", *arguments])

    assert done.exit_code == 0, done.output
    if option:
        assert [job["state"] for job in json.loads(done.stdout)["jobs"]] == ["done", "done"]
    else:
        assert done.stdout.count("swapped.png") >= 2


def test_only_what_ray_prints_goes_to_stderr(capsys):
    pool, out = cluster.ClusterPool(), sys.stdout
    ray_thread = threading.Thread(target=print, args=("a node died",), name="ray_listen")
    other = threading.Thread(target=print, args=("a result",))
    for thread in (ray_thread, other):
        thread.start()
        thread.join()
    pool.close()

    assert sys.stdout is not out
    assert capsys.readouterr() == ("a result\n", "a node died\n")


@pytest.mark.parametrize(("most_bytes", "expected"), [(350, 3), (10, 1), (2 << 30, 4)])
def test_what_is_on_its_way_is_bounded(monkeypatch, most_bytes, expected):
    sent, waiting = [], []

    def submit(views):
        sent.append(views)
        return len(sent)

    def result_of(number):
        waiting.append(len(sent) - len(waiting))
        return number

    monkeypatch.setattr(cluster, "remote", lambda _: submit)
    monkeypatch.setattr(cluster, "result_of", result_of)
    monkeypatch.setattr(cluster, "machines", lambda: [{"CPU": 2.0}, {}])
    monkeypatch.setattr(cluster, "MAX_BYTES", most_bytes)
    view = FrameView(np.zeros((5, 10), np.uint8))
    results = cluster.ClusterPool().map(range(10), len, lambda _: ([view, view],))

    assert list(results) == [(at, at + 1) for at in range(10)]
    assert max(waiting) == expected


def test_images_and_jobs_are_equal_too(small, model, nodes, tmp_path):
    folder = tmp_path / "shot"
    folder.mkdir()
    for number in range(20):
        Image.fromarray(np.roll(small, number % 5, axis=0)).save(folder / f"s.{1001 + number}.png")
    Image.fromarray(small).save(tmp_path / "photo.png")
    settings = {"workers": 1, "device": "cpu", "detector": "hog"}
    done = {}
    for name, on_cluster in (("alone", False), ("together", True)):
        lines = [f'output = "{name}"', f'model = "{model}"', "[settings]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += [
            f"cluster = {json.dumps(on_cluster)}",
            "[[job]]",
            'inputs = ["shot", "photo.png"]',
        ]
        (tmp_path / f"{name}.toml").write_text("\n".join(lines) + "\n")
        reports = list(convert_all(read_jobs(tmp_path / f"{name}.toml")))
        assert [report.state for report in reports] == ["done", "done"]
        done[name] = tmp_path / name

    pictures = [
        [np.asarray(Image.open(path)) for path in sorted((folder / "shot.swapped").glob("*.png"))]
        for folder in done.values()
    ]
    assert len(pictures[0]) == 20
    np.testing.assert_array_equal(*pictures)


def test_packages_are_equal_too(small, model, nodes, tmp_path):
    clip = write_lossless(tmp_path / "clip.mkv", [np.roll(small, n, axis=1) for n in range(10)])
    config = replace(QUICK, codec="auto")

    alone = package(clip, tmp_path / "alone", model, config)
    package(clip, tmp_path / "spread", model, replace(config, cluster=True))

    images = [path.relative_to(alone.folder) for path in alone.folder.rglob("*.exr")]
    assert len(images) == 4 * 10
    for name in [*images, "clip.nk", "data/000009.json"]:
        one, other = (tmp_path / folder / name for folder in ("alone", "spread"))
        assert one.read_bytes() == other.read_bytes(), name


def test_extraction_finds_the_same_faces(clip, nodes, tmp_path):
    config = ExtractConfig(workers=1, detector="hog", every=8)
    found = {}
    for name, on_cluster in (("alone", False), ("together", True)):
        extract(clip, tmp_path / name, replace(config, cluster=on_cluster))
        found[name] = {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")}

    assert len(found["alone"]) == 5
    assert found["alone"] == found["together"]


def fails(kind):
    if kind == "input":
        raise InputError("this.png is damaged")
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    os._exit(1)


@pytest.mark.parametrize("what", ["arguments", "function", "library"])
def test_what_a_machine_lacks_is_one_line(nodes, tmp_path, monkeypatch, what):
    """The driver alone knows a module, as if an old version or nothing were installed elsewhere."""
    (tmp_path / "only_here.py").write_text("def work(*_):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    if what == "function":
        monkeypatch.setattr(cluster, "_call", only_here.work)
    submit = cluster.remote(only_here.work if what == "arguments" else imports)
    with pytest.raises(SettingsError, match=r"cannot run faceswap \(\d.*: No module named") as e:
        cluster.result_of(submit())
    assert "\n" not in str(e.value)


def imports():
    importlib.import_module("nowhere_installed")


def test_a_machine_with_other_versions_or_inputs_says_so(clip, model, tmp_path):
    copied = tmp_path / "model"
    shutil.copytree(model, copied)

    def order():
        job = plan(clip, tmp_path / "out.mkv", copied, replace(QUICK, cluster=True))
        return clustered._order(shards.whole_of(job))

    first = order()
    assert clustered._planned(first).parts.name == first.parts
    here = socket.gethostname()
    with pytest.raises(
        SettingsError, match=rf"{here} would .* torch .* instead of torch 1; install"
    ):
        clustered._planned(replace(first, parts="other", versions="torch 1"))
    with pytest.raises(SettingsError, match=rf"{here} would .* another input differs there"):
        clustered._planned(replace(first, parts="other"))
    file = copied / "model.safetensors"
    trained = modelfile.load(copied, torch.device("cpu"))
    modelfile.save(file, replace(trained, step=9))
    second = order()
    assert second != first
    assert clustered._planned(second).job.model.sha256 == sha256_of(file)


@pytest.mark.parametrize(("kind", "error"), [("input", InputError), ("bug", ZeroDivisionError)])
def test_errors_of_tasks_arrive(nodes, kind, error):
    with pytest.raises(error, match=r"damaged|a bug"):
        cluster.result_of(cluster.remote(fails)(kind))


def test_a_task_that_always_dies_is_given_up(nodes, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 1)
    with pytest.raises(DeviceError, match="lost the machines"):
        cluster.result_of(cluster.remote(fails)("death"))


def test_a_machine_without_the_folder_says_so(nodes, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    submit = cluster.remote(fails)
    gone.rmdir()
    with pytest.raises(InputError, match="must share the folder"):
        cluster.result_of(submit("input"))


def test_a_gpu_or_all_cores_of_a_machine_make_a_slot(monkeypatch):
    def slots(machines, device="auto"):
        monkeypatch.setattr(cluster, "machines", lambda: machines)
        return clustered._slots(replace(QUICK, device=device))

    assert slots([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}]) == (1, 1, 3)
    assert slots([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 16.0}], device="cpu") == (8.0, 0, 3)
    assert slots([{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 0.0}]) == (4.0, 0, 2)
    assert slots([{}]) == (1.0, 0, 1)


def test_no_cluster_and_no_ray_are_one_line(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("no")))
    with pytest.raises(InputError, match=r"no Ray cluster can be reached at 127\.0\.0\.1:1 \(no\)"):
        cluster.connect()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'faceswap\[cluster\]'"):
        cluster.connect()
