"""Records are appended whole, sooner or later."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.full_disk import full_disk

from amago_ray.telemetry.appended_file import AppendedFile

TOO_LARGE = "File too large"


def test_what_finds_no_room_is_written_with_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "records"
    file = AppendedFile(path)
    file.append(b"one\n")
    with full_disk(6):
        for record in (b"two\n", b"three\n"):
            with pytest.raises(OSError, match=TOO_LARGE) as error:
                file.append(record)
            assert error.value.filename == str(path)
            assert path.read_bytes() == b"one\n", "no half of a record"
    file.append(b"four\n")
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    file.close()


def test_closing_writes_what_is_waiting_or_says_that_it_is_lost(tmp_path: Path) -> None:
    for room_at_last in (True, False):
        path = tmp_path / f"records {room_at_last}"
        file = AppendedFile(path)
        with full_disk():
            with pytest.raises(OSError, match=TOO_LARGE):
                file.append(b"one\n")
            if not room_at_last:
                with pytest.raises(OSError, match=TOO_LARGE):
                    file.close()
        file.close()
        assert path.read_bytes() == (b"one\n" if room_at_last else b"")


def test_a_file_that_was_removed_is_begun_again_when_its_folder_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = AppendedFile(folder / "records")
    file.append(b"one\n")
    (folder / "records").unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        file.append(b"two\n")
    folder.mkdir()
    file.append(b"three\n")
    assert (folder / "records").read_bytes() == b"two\nthree\n"
    file.close()
