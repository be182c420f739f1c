import errno
import os
import unicodedata
from pathlib import Path
from threading import Event

import pytest

from cluster import errors
from cluster.storage.purging import remove
from cluster.storage.volumes import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "volumes")


def filled(volumes: Volumes, name: str, text: str = "weights") -> Path:
    path = volumes.create("vision", name)
    (path / "a.bin").write_text(text)
    return path


def test_a_folder_is_a_directory_of_its_project(volumes: Volumes) -> None:
    path = volumes.create("vision", "cats")
    assert path.is_dir()
    assert path == volumes.root / "vision" / "cats"


def test_creating_twice_keeps_what_is_inside(volumes: Volumes) -> None:
    path = filled(volumes, "cats")
    volumes.create("vision", "cats")
    assert (path / "a.bin").read_text() == "weights"


def test_trash_and_restore_bring_back_every_byte(volumes: Volumes) -> None:
    path = filled(volumes, "cats")
    trash_id = volumes.trash("vision", "cats")
    assert not path.exists()
    assert volumes.trash_size(trash_id) == len("weights")
    volumes.restore(trash_id, "vision", "cats")
    assert (path / "a.bin").read_text() == "weights"


def test_every_step_can_be_repeated_after_a_crash(volumes: Volumes) -> None:
    filled(volumes, "cats")
    for _ in range(2):
        assert volumes.trash("vision", "cats", "f1") == "f1"
    for _ in range(2):
        assert (volumes.restore("f1", "vision", "cats") / "a.bin").exists()
    volumes.trash("vision", "cats", "f2")
    for _ in range(2):
        volumes.discard("f2")
    assert volumes.discarded() == [volumes.purging("f2")]
    for _ in range(2):
        volumes.take_back("f2")
    assert (volumes.place("vision", "cats", "f2") / "a.bin").exists()


def test_restoring_never_covers_a_folder_that_took_the_name(volumes: Volumes) -> None:
    filled(volumes, "cats", "old")
    trash_id = volumes.trash("vision", "cats")
    filled(volumes, "cats", "new")
    with pytest.raises(errors.Conflict, match="A folder named cats exists in vision"):
        volumes.restore(trash_id, "vision", "cats")
    assert (volumes.path("vision", "cats") / "a.bin").read_text() == "new"
    assert volumes.trash_size(trash_id) == 3


def test_two_folders_of_one_name_lie_in_the_trash_side_by_side(volumes: Volumes) -> None:
    filled(volumes, "cats", "1")
    first = volumes.trash("vision", "cats")
    filled(volumes, "cats", "22")
    second = volumes.trash("vision", "cats")
    assert (volumes.trash_size(first), volumes.trash_size(second)) == (1, 2)


def test_what_is_not_there_is_not_found(volumes: Volumes) -> None:
    with pytest.raises(errors.NotFound, match="no directory"):
        volumes.trash("vision", "ghost")
    with pytest.raises(errors.NotFound):
        volumes.restore("nothing", "vision", "ghost")


@pytest.mark.parametrize(
    "name", ["", " ", "..", ".", ".trash", "a/b", "a\\b", "../x", "a\0b", "a\nb", "x" * 256, "가" * 86, " a"]
)
def test_a_name_that_could_leave_its_place_is_refused(volumes: Volumes, name: str) -> None:
    with pytest.raises(errors.Invalid):
        volumes.create("vision", name)
    with pytest.raises(errors.Invalid):
        volumes.create(name, "cats")
    assert not volumes.root.exists()


def test_a_hangul_name_is_one_folder_however_it_was_typed(volumes: Volumes) -> None:
    composed = volumes.create("비전", "고양이 사진")
    assert volumes.create("비전", unicodedata.normalize("NFD", "고양이 사진")) == composed
    assert [p.name for p in composed.parent.iterdir()] == ["고양이 사진"]


def test_size_counts_each_file_once_and_follows_no_link(volumes: Volumes, tmp_path: Path) -> None:
    path = filled(volumes, "cats", "1234567890")
    os.link(path / "a.bin", path / "again.bin")
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 5000)
    (path / "link").symlink_to(outside)
    assert 10 <= volumes.size("vision", "cats") < 5000


def test_purge_removes_links_and_leaves_what_they_point_to(volumes: Volumes, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("mine")
    (filled(volumes, "cats") / "link").symlink_to(keep)
    trash_id = volumes.trash("vision", "cats")
    volumes.discard(trash_id)
    remove(volumes.purging(trash_id), Event())
    assert volumes.discarded() == []
    assert (keep / "file").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_changes_nothing(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(volumes.root))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(errors.StorageFull, match=r"is full\. Free some space"):
        volumes.create("vision", "cats")
    assert not volumes.root.exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "volumes").write_text("a file where the root should be")
    with pytest.raises(errors.Unavailable, match="cannot be used"):
        Volumes(tmp_path / "volumes").create("vision", "cats")


def test_free_space_is_told_before_the_root_exists(volumes: Volumes) -> None:
    assert volumes.free() > 0
