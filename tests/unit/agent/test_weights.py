import numpy as np
import pytest
import torch

from amago_ray.agent.weights import load_snapshot, save_snapshot, to_arrays, to_tensors
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.snapshot import BFLOAT16, Snapshot
from amago_ray.errors import CheckpointError

TENSORS = {
    "a.weight": torch.randn(3, 2),
    "b": torch.randn(4).to(torch.bfloat16),
    "count": torch.tensor(7, dtype=torch.int64),
    "half": torch.randn(2, 2, dtype=torch.float16),
}


def test_arrays_are_copies_and_dtype_exact():
    weight = torch.ones(2)
    arrays = to_arrays({"w": weight})
    weight.zero_()
    assert arrays["w"].tolist() == [1.0, 1.0]
    assert to_arrays(TENSORS)["b"].dtype == BFLOAT16
    back = to_tensors(to_arrays(TENSORS))
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in TENSORS.items())


def test_read_only_arrays_become_writable_tensors():
    array = np.ones(3, np.float32)
    array.setflags(write=False)
    to_tensors({"w": array})["w"].zero_()
    assert array.tolist() == [1.0] * 3


def test_a_snapshot_survives_its_file(tmp_path):
    snapshot = Snapshot(PolicyVersion(3, 40), to_arrays(TENSORS))
    path = tmp_path / "policy.safetensors"
    save_snapshot(path, snapshot)
    loaded = load_snapshot(path)
    assert loaded.version == (3, 40)
    assert loaded.arrays.keys() == snapshot.arrays.keys()
    for name, array in snapshot.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)


def test_saving_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "policy.safetensors"
    save_snapshot(path, Snapshot(PolicyVersion(0, 1), {"w": np.ones(2, np.float32)}))

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_snapshot(path, Snapshot(PolicyVersion(0, 2), {"w": np.zeros(2, np.float32)}))
    assert load_snapshot(path).version == (0, 1)


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_broken_file_is_one_readable_line(tmp_path, content):
    path = tmp_path / "policy.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: expected policy weights") as error:
        load_snapshot(path)
    assert "\n" not in str(error.value)
