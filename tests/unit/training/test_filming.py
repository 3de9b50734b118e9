"""Films: every frame of whole episodes, written or refused in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import imageio.v3 as imageio
import numpy as np
import pytest
from helpers.one_line import one_line
from helpers.scripted import ScriptedBatch, make_agent, make_config, snapshot_of

from amago_ray.acting.policy import Policy
from amago_ray.errors import ConfigError, EnvError, RunDirectoryError
from amago_ray.training.filming import check_film_name, film, write_film

FRAMES = [np.full((16, 16, 3), 20 * k, np.uint8) for k in range(4)]


def make_policy(batch: ScriptedBatch) -> Policy:
    config = make_config()
    policy = Policy(config, batch.spec)
    policy.load(snapshot_of(make_agent(config, batch.spec)))
    return policy


def test_a_film_shows_every_row_of_its_episodes_from_the_first_to_the_last() -> None:
    batch = ScriptedBatch(1, has_action_mask=True)
    frames = film(batch, make_policy(batch), [4, 11], greedy=True)
    shown = [int(frame[0, 0, 0]) for frame in frames]
    # Seeds 4 and 11 play 7 and 4 steps; the last picture of each is held.
    assert [time for time, following in zip(shown, [*shown[1:], -1], strict=True) if time != following] == [
        *range(8),
        *range(5),
    ]
    assert shown[7:14] == [7] * 7
    assert {frame.shape for frame in frames} == {(8, 8, 3)}


def test_it_acts_as_the_policy_does() -> None:
    """Greedy films of one seed are equal, and follow the mask."""
    histories = []
    for _ in range(2):
        batch = ScriptedBatch(1, has_action_mask=True)
        film(batch, make_policy(batch), [4], greedy=True)
        histories.append(np.concatenate(batch.history).tolist())
    assert histories[0] == histories[1]
    assert all(action != step % 5 for step, action in enumerate(histories[0]))


def test_an_environment_that_fails_ends_the_film_in_one_line() -> None:
    batch = ScriptedBatch(1, step_hook=lambda b: [0] if b.time[0] == 2 else [])
    with pytest.raises(EnvError, match="failed while it was filmed: RuntimeError: it broke") as error:
        film(batch, make_policy(batch), [4], greedy=False)
    one_line(error)


def test_a_gif_is_written_with_all_frames(tmp_path: Path) -> None:
    out = write_film(FRAMES, tmp_path / "new" / "x.gif")
    read = imageio.imread(out, index=None)
    assert len(read) == 4
    assert [int(frame[0, 0, 0]) for frame in read] == [0, 20, 40, 60]


@pytest.mark.parametrize("name", ["x.png", "x", "x.GIF"])
def test_other_endings_are_refused_before_anything_is_filmed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.gif or \.mp4") as error:
        check_film_name(tmp_path / name)
    one_line(error)
    with pytest.raises(ConfigError):
        write_film(FRAMES, tmp_path / name)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match="cannot be written") as error:
        write_film(FRAMES, tmp_path / "file" / "x.gif")
    one_line(error)


def test_mp4_without_its_plugin_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_plugin(*args: object, **kwargs: object) -> None:
        raise OSError("Could not find a backend to open `x.mp4` with iomode `wi`.\nBased on the extension, ...")

    monkeypatch.setattr(imageio, "imwrite", no_plugin)
    with pytest.raises(ConfigError, match=r"imageio\[ffmpeg\]") as error:
        write_film(FRAMES, tmp_path / "x.mp4")
    one_line(error)


def test_only_a_film_is_replaced(tmp_path: Path) -> None:
    film_of_before = write_film(FRAMES, tmp_path / "x.gif")
    write_film(FRAMES * 2, film_of_before)
    (tmp_path / "notes.gif").write_text("mine")
    (tmp_path / "folder.gif").mkdir()
    for name, words in (("notes.gif", "expected a film to replace"), ("folder.gif", "expected a file to write")):
        with pytest.raises(ConfigError, match=words) as error:
            write_film(FRAMES, tmp_path / name)
        one_line(error)
    assert (tmp_path / "notes.gif").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.gif", "notes.gif", "x.gif"]


def test_a_film_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(FRAMES, tmp_path / "x.gif")
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(RunDirectoryError, match="cannot be written: No space left on device") as error:
        write_film(FRAMES * 2, path)
    one_line(error)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.gif"]


@pytest.mark.parametrize("sizes", [[(7, 9)], [(7, 9), (9, 5), (1, 1)]], ids=["odd", "changing"])
@pytest.mark.parametrize(("suffix", "multiple"), [(".gif", 1), (".mp4", 16)])
def test_pictures_of_any_size_are_shown_whole_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[tuple[int, int]], suffix: str, multiple: int
) -> None:
    written: list[np.ndarray] = []

    def write(path: Path, pictures: np.ndarray, **options: object) -> None:
        written.append(pictures)
        path.write_bytes(b"")

    monkeypatch.setattr(imageio, "imwrite", write)
    write_film([np.full((*size, 3), 200, np.uint8) for size in sizes], tmp_path / f"x{suffix}")
    (pictures,) = written
    assert len(pictures) == len(sizes)
    for axis in (0, 1):
        largest = max(size[axis] for size in sizes)
        assert pictures.shape[1 + axis] % multiple == 0
        assert largest <= pictures.shape[1 + axis] < largest + multiple
    for picture, (height, width) in zip(pictures, sizes, strict=True):
        assert np.count_nonzero(picture) == 3 * height * width
        rows, columns = np.nonzero(picture[..., 0])
        for lines, size, whole in ((rows, height, len(picture)), (columns, width, picture.shape[1])):
            assert (lines.min(), lines.max()) == ((whole - size) // 2, (whole - size) // 2 + size - 1)


@pytest.mark.parametrize("error", [ValueError("no such\ncodec"), RuntimeError()])
def test_whatever_the_writer_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(imageio, "imwrite", fail)
    with pytest.raises(RunDirectoryError, match=r"x\.gif: cannot be written: (no such codec|RuntimeError)") as found:
        write_film(FRAMES, tmp_path / "x.gif")
    one_line(found)


@pytest.mark.parametrize("limit", ["MOST_FRAMES", "MOST_BYTES"])
def test_a_film_of_an_endless_episode_is_cut_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: str
) -> None:
    monkeypatch.setattr(f"amago_ray.training.filming.{limit}", 30 if limit == "MOST_FRAMES" else 30 * 8 * 8 * 3)
    batch = ScriptedBatch(1, length_of=lambda index, seed: 10**9)
    assert len(film(batch, make_policy(batch), [4, 11], greedy=True)) == 30
    assert "the film is cut after 30 pictures" in caplog.text
