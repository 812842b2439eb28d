"""Atomic writes: whole or not at all, nothing left behind, and errors that name the file."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from export.placing import placed
from neuro import atomic
from neuro.errors import NeuroError


def test_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    atomic.write_text(path, "ü\r\n\n日本\n")
    assert path.read_bytes() == "ü\r\n\n日本\n".encode()
    atomic.write_text(str(path), "second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_the_file_can_be_read_by_others(tmp_path):
    atomic.write_text(tmp_path / "a", "x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError("half way"), KeyboardInterrupt()])
def test_an_interrupted_block_leaves_the_old_file_and_no_litter(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        with atomic.replacing(path) as temporary:
            temporary.write_text("new, but hal")
            raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_target_is_untouched_until_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent and path.read_text() == "old"  # one file system: a rename, not a copy
    assert path.read_text() == "new"


def test_data_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    """fsync, then rename, then fsync of the folder: or a power cut leaves an empty file under the right name."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    atomic.write_text(tmp_path / "a", "x")
    assert calls == (["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
@pytest.mark.parametrize("when", ["block", "replace"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_kill_9_leaves_the_old_file(when, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        if when == "replace":
            atomic.os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL)
        with atomic.replacing(path) as temporary:
            temporary.write_text("new")
            if when == "block":
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == "old"
    atomic.write_text(path, "new")  # what was left behind is not in the way
    assert path.read_text() == "new"


def test_a_good_write_removes_what_killed_processes_left_of_the_same_target(tmp_path):
    old, young = atomic._STARTED - 60, atomic._STARTED + 60
    for name, when in (
        (".a.txt.abcd_123", old),  # ours
        (".a.txt.efgh5678", young),  # perhaps another writer's, at work
        (".b.txt.abcd_123", old),  # another target's
        (".a.txt.backup.old", old),  # the user's
    ):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (when, when))
    with pytest.raises(ValueError, match="half way"), atomic.replacing(tmp_path / "a.txt"):
        raise ValueError("half way")
    assert len(os.listdir(tmp_path)) == 4, "only a write that succeeds cleans up"
    atomic.write_text(tmp_path / "a.txt", "x")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.backup.old", ".a.txt.efgh5678", ".b.txt.abcd_123", "a.txt"]


def cannot(path: Path, reason: str) -> None:
    with pytest.raises(NeuroError) as error:
        atomic.write_text(path, "x")
    assert error.value.what == f"{path}: cannot write ({reason})."
    assert error.value.do == "Choose a folder you may write to, with free space."
    assert error.value.exit_code == 1


@pytest.mark.skipif(os.name != "posix", reason="the system's words differ")
def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    cannot(tmp_path / "file" / "below", "File exists")
    cannot(tmp_path / "file" / "below" / "deeper", "Not a directory")
    cannot(tmp_path / "folder", "Is a directory")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch):
    """By the error the system gives (the tests may run as root, whom no permission stops)."""

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic.tempfile, "mkstemp", refuse)
    cannot(tmp_path / "a", "Permission denied")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        cannot(tmp_path / "a", "Permission denied")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cannot(path, "No space left on device")
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_what_cannot_be_written_later_is_refused_now(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("")
    atomic.refuse_unwritable(tmp_path / "a")
    atomic.refuse_unwritable(tmp_path / "new" / "folder" / "b.txt")
    for path, as_folder in ((tmp_path / "a", True), (tmp_path / "a" / "b.txt", False)):
        with pytest.raises(NeuroError, match="is a file, expected a folder"):
            atomic.refuse_unwritable(path, as_folder)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(NeuroError, match="cannot be written to"):
        atomic.refuse_unwritable(tmp_path / "new" / "b.txt")
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_a_folder_of_a_full_disk_is_told_in_one_reason(tmp_path):
    said = "[Errno 28] No space left on device: 'a' -> 'b'"
    with pytest.raises(NeuroError) as error, placed(tmp_path / "out"):
        raise shutil.Error([("a", "b", said), ("c", "d", said)])
    assert error.value.what == f"{tmp_path / 'out'}: cannot write (No space left on device)."
    assert not list(tmp_path.iterdir())


def test_a_folder_put_in_place_takes_away_what_a_killed_export_left(tmp_path):
    old, young, other = (tmp_path / name for name in (".out.abcdefgh", ".out.12345678", ".outer.abcdefgh"))
    for path in (old, young, other):
        (path / "new").mkdir(parents=True)
        for part in (path, path / "new"):
            os.utime(part, (0, 0))
    (young / "new" / "at work").write_text("")
    with placed(tmp_path / "out") as new:
        (new / "a").write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [".out.12345678", ".outer.abcdefgh", "out"]
