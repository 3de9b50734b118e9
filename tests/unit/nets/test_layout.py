import pytest
import torch

from amago_ray.nets.layout import SequenceLayout


def test_rows_of_ragged_sequences() -> None:
    layout = SequenceLayout.from_lengths([3, 1, 2])
    assert layout.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert layout.cu_seqlens.dtype == torch.int32
    assert (layout.num_sequences, layout.num_tokens, layout.max_seqlen) == (3, 6, 3)
    assert layout.transition_rows.tolist() == [0, 1, 4]
    assert layout.sequence_index.tolist() == [0, 0, 0, 1, 2, 2]
    assert layout.starts.tolist() == [0, 3, 4]
    assert not layout.is_uniform


def test_derived_tensors_are_computed_once() -> None:
    layout = SequenceLayout.from_lengths([4, 4])
    assert layout.is_uniform
    assert layout.transition_rows is layout.transition_rows
    assert layout.length_groups is layout.length_groups


@pytest.mark.parametrize("lengths", [[], [2, 0]])
def test_empty_sequences_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="no empty one"):
        SequenceLayout.from_lengths(lengths)
