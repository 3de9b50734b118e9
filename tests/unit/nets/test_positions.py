import math

import pytest
import torch
from helpers.numeric import assert_rounded

from amago_ray.nets.positions import LearnedPositions, SinusoidalPositions, rotary_tables, rotate, sinusoids

pytestmark = pytest.mark.numeric


def test_sinusoids_interleave_sine_and_cosine() -> None:
    row = sinusoids(torch.tensor([7]), 6)[0]
    for i in range(3):
        angle = 7 * 10000 ** (-2 * i / 6)
        # The angle is what is rounded: an exponential and a product.
        assert_rounded(row[2 * i], math.sin(angle), roundings=8, magnitude=7)
        assert_rounded(row[2 * i + 1], math.cos(angle), roundings=8, magnitude=7)


def test_odd_widths_end_with_a_sine() -> None:
    assert sinusoids(torch.tensor([3]), 5).shape == (1, 5)


def test_table_grows_with_the_time_index() -> None:
    positions = SinusoidalPositions(8)
    for time_index in (torch.tensor([0, 3]), torch.tensor([900, 2]), torch.tensor([5])):
        assert_rounded(positions(time_index), sinusoids(time_index, 8), roundings=8, magnitude=900)
    assert not positions.state_dict()


def test_learned_positions_look_up_their_row() -> None:
    positions = LearnedPositions(5, 3)
    assert torch.equal(positions(torch.tensor([4, 0])), positions.table[[4, 0]])


def test_rotation_keeps_norms_and_makes_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 8), torch.randn(1, 2, 8)

    def product(query_time: int, key_time: int) -> torch.Tensor:
        rotated_q = rotate(q, *rotary_tables(torch.tensor([query_time]), 8))
        rotated_k = rotate(k, *rotary_tables(torch.tensor([key_time]), 8))
        assert_rounded(rotated_q.norm(dim=-1), q.norm(dim=-1), roundings=16)
        return (rotated_q * rotated_k).sum(-1)

    # An angle of up to 25 is rounded, and a cosine of it moves by as much.
    largest = 25 * float((q.norm(dim=-1) * k.norm(dim=-1)).max())
    assert_rounded(product(9, 4), product(25, 20), roundings=16, magnitude=largest)
    assert not torch.allclose(product(9, 4), product(9, 5))


def test_rotation_pairs_the_halves() -> None:
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    rotated = rotate(x, *rotary_tables(torch.tensor([1]), 4))[0, 0]
    assert_rounded(rotated, torch.tensor([math.cos(1), 0.0, math.sin(1), 0.0]), roundings=8)
