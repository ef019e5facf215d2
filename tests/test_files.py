import os
import subprocess
import sys

import pytest

from faceswap import files
from faceswap.errors import OutputError
from faceswap.files import (
    append_lines,
    atomic_write,
    drop_torn_line,
    lock_file,
    read_lines,
    sweep,
    temporary_beside,
    write_bytes,
)


def test_atomic_write_creates_the_file_only_on_success(tmp_path):
    path = tmp_path / "x.bin"

    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()

    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_atomic_write_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_unwritable_path_raises_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match=r"cannot write .*file: Not a directory"):
        write_bytes(tmp_path / "file" / "x.bin", b"data")


def test_full_disk_raises_output_error():
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("/dev/full does not exist")
    with pytest.raises(OutputError, match="No space left on device"):
        append_lines(Path("/dev/full"), ["line"])


def test_torn_last_line_is_dropped_before_appending(tmp_path):
    path = tmp_path / "list.jsonl"
    append_lines(path, ["one", "two"])
    with path.open("ab") as file:
        file.write(b'{"torn')

    assert read_lines(path) == ["one", "two"]
    drop_torn_line(path)
    append_lines(path, ["three"])

    assert path.read_text() == "one\ntwo\nthree\n"


def test_sweep_deletes_temporary_files_of_killed_processes(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from faceswap.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1]) / 'x.bin') as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    (tmp_path / ".other.part").write_text("not a temporary file of faceswap")

    with atomic_write(tmp_path / "y.bin") as temporary:  # of a live process
        temporary.write_bytes(b"")
        assert len(list(tmp_path.iterdir())) == 3
        sweep(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".other.part", temporary.name])


def test_sweep_deletes_temporary_folders_of_killed_processes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = temporary_beside(tmp_path / "clip.mp4")
    gone = alive.with_name(alive.name.replace(str(os.getpid()), str(dead.pid)))
    for folder in (gone, alive, tmp_path / ".clip.mp4.0123456789ab.parts"):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "video.part").write_bytes(b"")

    sweep(tmp_path)

    assert not gone.exists()
    assert sorted(tmp_path.iterdir()) == sorted([alive, tmp_path / ".clip.mp4.0123456789ab.parts"])
    sweep(tmp_path / "nowhere")


def test_temporary_names_are_hidden_and_unique(tmp_path):
    names = {temporary_beside(tmp_path / "x.mp4", ".mp4") for _ in range(50)}

    assert len(names) == 50
    for name in names:
        assert name.parent == tmp_path
        assert name.name.startswith(".x.")
        assert name.suffix == ".mp4"


def test_closing_a_locked_file_releases_the_lock(tmp_path):
    first = lock_file(tmp_path / "lock", "the work")
    with pytest.raises(OutputError, match="the work in another process; wait for it or stop it"):
        lock_file(tmp_path / "lock", "the work")
    first.close()

    lock_file(tmp_path / "lock", "the work").close()
    with pytest.raises(OutputError, match="cannot write"):
        lock_file(tmp_path / "nowhere" / "lock", "the work")


def test_lasting_lines_are_appended_like_others(tmp_path):
    append_lines(tmp_path / "list.jsonl", ["one"], lasting=True)
    append_lines(tmp_path / "list.jsonl", ["two"])

    assert read_lines(tmp_path / "list.jsonl") == ["one", "two"]


@pytest.mark.skipif(os.name != "posix", reason="only administrators create links on Windows")
def test_links_are_not_written_through(tmp_path):
    private = tmp_path / "private"
    private.write_text("a line\nno line")
    (tmp_path / "link").symlink_to(private)
    (tmp_path / "dangling").symlink_to(tmp_path / "new")

    for change in (
        lambda path: append_lines(path, ["x"]),
        drop_torn_line,
        lambda path: lock_file(path, "the work"),
    ):
        for name in ("link", "dangling"):
            with pytest.raises(OutputError, match=f"cannot write .*{name}: it is a link"):
                change(tmp_path / name)
    write_bytes(tmp_path / "link", b"a new file")

    assert private.read_text() == "a line\nno line"
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "link").is_symlink()


def test_longest_file_names_can_be_written(tmp_path):
    for name in ("x" * 251 + ".bin", "\N{SNOWMAN}" * 83 + ".bin"):
        write_bytes(tmp_path / name, b"data")

        assert (tmp_path / name).read_bytes() == b"data"


def test_sweep_keeps_files_of_other_machines(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = temporary_beside(tmp_path / "x.bin").name.replace(str(os.getpid()), str(dead.pid))
    monkeypatch.setattr(files, "_machine_id", lambda: "beef")
    theirs = temporary_beside(tmp_path / "x.bin").name.replace(str(os.getpid()), str(dead.pid))
    monkeypatch.undo()
    for path in (tmp_path / name, tmp_path / theirs):
        path.write_bytes(b"half")

    sweep(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [theirs]
