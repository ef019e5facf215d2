"""Finished segments are stored, locked and resumed."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faceswap.errors import BusyError, OutputError
from faceswap.media.segments import SegmentStore, discard, folder_for, unfinished

NOTE = {"times": [0, 40, 80], "last": 40, "rotation": 0, "delays": {"video": 2},
        "records": [1, 1, 1]}  # fmt: skip
OUTPUT, SOURCE = Path("x.mp4"), Path("clip.mp4")


def open_store(folder):
    return SegmentStore(folder, folder.parent / OUTPUT, SOURCE)


def write_segments(folder, count):
    """Write finished segments and return the first timestamp of each."""
    segments = open_store(folder)
    for number in range(count):
        segments.path("video", number).write_bytes(b"part")
        segments.add(NOTE | {"times": [time + 120 * number for time in NOTE["times"]]})
    segments.close(keep=True)
    return [note["times"][0] for note in segments.notes]


def reload(folder):
    segments = open_store(folder)
    segments.close(keep=True)
    return [note["times"][0] for note in segments.notes]


def test_finished_segments_are_reloaded_until_deleted(tmp_path):
    folder = tmp_path / ".x.parts"
    assert write_segments(folder, 3) == reload(folder) == [0, 120, 240]

    segments = open_store(folder)
    segments.keep(1)
    segments.close(keep=True)

    assert reload(folder) == [0]
    open_store(folder).close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_segments_after_a_missing_file_are_dropped(tmp_path):
    folder = tmp_path / ".x.parts"
    write_segments(folder, 3)
    (folder / "video-00001.part").unlink()

    assert reload(folder) == [0]
    assert len((folder / "done.jsonl").read_text().splitlines()) == 1


def test_torn_last_line_is_dropped(tmp_path):
    folder = tmp_path / ".x.parts"
    write_segments(folder, 3)
    done = folder / "done.jsonl"
    done.write_bytes(done.read_bytes()[:-9])

    assert reload(folder) == [0, 120]


@pytest.mark.parametrize(
    "line",
    ["words", "[]", json.dumps(NOTE | {"times": [0, 80, 40]}), json.dumps(NOTE | {"delays": 3}),
     json.dumps(NOTE | {"delays": {"video": -1}}), json.dumps({"times": [0]}), "\0\0\0"],
)  # fmt: skip
def test_damaged_list_is_a_one_line_error_and_releases_the_lock(tmp_path, line):
    folder = tmp_path / ".x.parts"
    write_segments(folder, 2)
    done = folder / "done.jsonl"
    whole = done.read_text()
    done.write_text(f"{line}\n{whole}")

    with pytest.raises(OutputError, match=r"done\.jsonl is damaged .*delete .* to start over") as e:
        open_store(folder)

    assert "\n" not in str(e.value)
    done.write_text(whole)
    assert reload(folder) == [0, 120]
    gc.collect()  # a file left open would raise a ResourceWarning here


def test_folder_depends_on_output_and_settings(tmp_path):
    key = {"model": "1", "settings": {"color": "none", "who": []}}

    folder = folder_for(tmp_path / "x.mp4", key)

    assert folder == folder_for(tmp_path / "x.mp4", {"settings": {"who": [], "color": "none"},
                                                    "model": "1"})  # fmt: skip
    assert folder.parent == tmp_path
    assert folder.name.startswith(".x.mp4.")
    others = [folder_for(tmp_path / "y.mp4", key), folder_for(tmp_path / "x.mp4", {"model": "1"})]
    assert folder not in others


def test_second_process_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / ".x.parts"
    code = (
        "import sys\nfrom pathlib import Path\nfrom faceswap.media.segments import SegmentStore\n"
        "store = SegmentStore(Path(sys.argv[1]), Path('x'), Path('y'))\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match="is under way in another process; wait") as e:
            open_store(folder)
        assert "\n" not in str(e.value)
        other.send_signal(signal.SIGKILL)
        other.wait()

    assert reload(folder) == []


def test_segment_added_after_a_torn_line_starts_a_new_line(tmp_path):
    folder = tmp_path / ".x.parts"
    write_segments(folder, 2)
    done = folder / "done.jsonl"
    done.write_bytes(done.read_bytes() + b'{"times": [240')

    segments = open_store(folder)
    segments.path("video", 2).write_bytes(b"part")
    segments.add(NOTE | {"times": [240, 280], "records": [1, 1]})
    segments.close(keep=True)

    assert reload(folder) == [0, 120, 240]


def test_unfinished_conversions_are_kept_and_listed(tmp_path, caplog):
    target = tmp_path / "x [1].mp4"
    resumable, damaged, busy, stuck, empty = (folder_for(target, {"n": n}) for n in range(5))
    unrelated = [folder_for(tmp_path / "x [1].mp4.mp4", {}), folder_for(tmp_path / "x 1.mp4", {})]
    for folder in (resumable, damaged, *unrelated):
        write_segments(folder, 2)
    with (damaged / "done.jsonl").open("a") as file:
        file.write("damaged\n")
    busy_store = open_store(busy)
    (stuck / "lock").mkdir(parents=True)  # a folder cannot be locked
    empty.mkdir()

    found = unfinished(tmp_path)

    assert {kept.folder: kept.frames for kept in found} == dict.fromkeys(
        (resumable, damaged, *unrelated), 6
    )
    assert {(kept.output, kept.source) for kept in found} == {
        (tmp_path / OUTPUT, SOURCE.absolute())
    }
    assert all(kept.bytes > 8 and kept.stopped.startswith("20") for kept in found)
    assert f"cannot check whether {stuck} holds an unfinished conversion: " in caplog.text
    assert all(folder.is_dir() for folder in (resumable, damaged, busy, stuck, *unrelated))
    assert not empty.exists()
    with pytest.raises(BusyError):
        discard([replace(found[0], folder=busy)])
    discard(kept for kept in found if kept.folder != resumable)
    assert [kept.folder for kept in unfinished(tmp_path)] == [resumable]
    busy_store.close(keep=False)


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot delete an open file")
def test_folder_stays_locked_while_it_is_deleted(tmp_path, monkeypatch):
    folder, delete = tmp_path / ".x.parts", shutil.rmtree
    write_segments(folder, 1)
    segments = open_store(folder)
    refused = []

    def delete_while_locked(*args, **kwargs):
        with pytest.raises(BusyError):
            open_store(folder)
        refused.append(True)
        delete(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", delete_while_locked)
    segments.close(keep=False)

    assert refused
    assert reload(folder) == []
