import subprocess
import sys

import pytest

from faceswap.errors import OutputError
from faceswap.files import (
    append_lines,
    drop_torn_line,
    read_lines,
    replacing,
    sweep,
    write_bytes,
)


def test_a_file_appears_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "x.bin"

    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()

    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_a_path_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match=r"cannot write .*file: Not a directory"):
        write_bytes(tmp_path / "file" / "x.bin", b"data")


def test_a_full_disk_is_an_output_error():
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OutputError, match="No space left on device"):
        append_lines(Path("/dev/full"), ["line"])


def test_a_torn_last_line_is_dropped_and_appending_goes_on(tmp_path):
    path = tmp_path / "list.jsonl"
    append_lines(path, ["one", "two"])
    with path.open("ab") as file:
        file.write(b'{"torn')

    assert read_lines(path) == ["one", "two"]
    drop_torn_line(path)
    append_lines(path, ["three"])

    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_killed_process_leaves_litter_that_is_swept(tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom faceswap.files import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'x.bin') as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    (tmp_path / ".mine.part").write_text("not ours")

    with replacing(tmp_path / "y.bin") as mine:  # of a process that is alive
        mine.write_bytes(b"")
        assert len(list(tmp_path.iterdir())) == 3
        sweep(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([".mine.part", mine.name])
