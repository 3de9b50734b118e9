"""The compiled kernels do what torch does."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as, float64, nudged

from amago_ray.config.model import TransformerConfig
from amago_ray.nets import folding
from amago_ray.nets.decoding import transformer as decoding_transformer
from amago_ray.nets.decoding.transformer import TransformerDecoder
from amago_ray.nets.folded import Linear
from amago_ray.nets.folding import fold_mlp
from amago_ray.nets.native.decode import NativeMlp, load_decode_kernel, load_mlp_kernel
from amago_ray.nets.sequence.transformer import Transformer

pytestmark = pytest.mark.numeric
needs_kernels = pytest.mark.skipif(load_decode_kernel() is None, reason="installed without a C compiler")


def random_mlp(widths: list[int]) -> list[Linear]:
    return [(torch.randn(b, a) / a**0.5, torch.randn(b)) for a, b in itertools.pairwise(widths)]


@pytest.mark.skipif(shutil.which("cc") is None, reason="kernels are built where there is a C compiler")
def test_kernels_were_built() -> None:
    assert load_mlp_kernel() is not None
    assert load_decode_kernel() is not None


def run(
    decoder: TransformerDecoder, x: torch.Tensor, resets: dict[int, list[int]], *, half: bool = False
) -> dict[str, torch.Tensor]:
    """What all steps of `x [T, E, in]` led to, and what is kept; `half`: each step's is kept in float16."""
    state, outputs = decoder.initial_state(x.shape[1]), []
    with torch.inference_mode():
        for t, rows in enumerate(x):
            state.reset(np.array(resets.get(t, []), dtype=np.int64))
            outputs.append(decoder.step(rows, torch.full((len(rows),), t), state))
            if half:
                state.keys.copy_(state.keys.half())
                state.values.copy_(state.values.half())
    return {"outputs": torch.stack(outputs), "keys": state.keys, "values": state.values}


def run_exactly(model: Transformer, x: torch.Tensor, resets: dict[int, list[int]]) -> dict[str, torch.Tensor]:
    """The same in float64, where no kernel is."""
    with float64():
        return run(as_float64(model).make_decoder(21), x.double(), resets)


@needs_kernels
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 23])
@pytest.mark.parametrize("widths", [[3, 5], [19, 32, 16], [7, 40, 33, 20, 50]])
def test_perceptrons(monkeypatch: pytest.MonkeyPatch, widths: list[int], rows: int) -> None:
    torch.manual_seed(0)
    layers, norm = random_mlp(widths), (torch.randn(widths[-1]), torch.randn(widths[-1]))
    # A slice of wider rows, as the Transformer's result is.
    x = torch.randn(rows, widths[0] + 4)[:, : widths[0]] * 5
    compiled = [fold_mlp(layers), fold_mlp(layers, norm)]
    monkeypatch.setattr(folding, "load_mlp_kernel", lambda: None)
    for native, given in zip(compiled, [(layers, None), (layers, norm)], strict=True):
        assert isinstance(native, NativeMlp)
        plain, reference = fold_mlp(*given)(x), fold_mlp(*as_float64(given))(x.double())
        assert_as_exact_as(native(x), plain, reference=reference)
        assert_as_exact_as(native(x.t().contiguous().t()), plain, reference=reference)


@needs_kernels
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize(
    ("width", "num_heads", "hidden", "rows"),
    [(16, 2, 64, 7), (32, 2, 50, 3), (64, 2, 64, 1), (128, 2, 96, 6), (20, 5, 24, 13), (36, 6, 30, 4)],
)
def test_transformers(
    monkeypatch: pytest.MonkeyPatch, width: int, num_heads: int, hidden: int, rows: int, positions: str
) -> None:
    """Every head width the kernel knows and others, through a ring of no whole vectors, with scores far apart.

    What scores far apart do to rounding, they do to the kernel and to torch alike.
    """
    torch.manual_seed(0)
    config = TransformerConfig(
        d_model=width, num_heads=num_heads, d_ff=hidden, num_layers=2, context_length=21, positions=positions
    )
    model = Transformer(config, 11, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.layers[0].attention.qkv.gamma.mul_(3)
    native = model.make_decoder(21)
    assert native.is_compiled
    x, resets = torch.randn(50, rows, 11), {30: [0]}
    ours = run(native, x, resets)
    monkeypatch.setattr(decoding_transformer, "load_decode_kernel", lambda: None)
    plain = [run(model.make_decoder(21), nudged(x, seed), resets) for seed in range(4)]
    assert_as_exact_as(ours, *plain, reference=run_exactly(model, x, resets))


@needs_kernels
@pytest.mark.parametrize("num_heads", [2, 4, 8, 16, 32])
def test_a_float16_cache_rounds_keys_and_values_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, num_heads: int
) -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(d_model=128, num_heads=num_heads, num_layers=3, context_length=21), 9, None)
    x = torch.randn(50, 5, 9)
    full, half = (run(model.make_decoder(21, dtype), x, {}) for dtype in (torch.float32, torch.float16))
    assert [kept["keys"].dtype for kept in (full, half)] == [torch.float32, torch.float16]
    for name in ("keys", "values"):
        # The first layer's do not depend on what the cache holds.
        assert torch.equal(half[name][0], full[name][0].half())
    monkeypatch.setattr(decoding_transformer, "load_decode_kernel", lambda: None)
    reference = run_exactly(model, x, {})["outputs"]
    rounded = run(model.make_decoder(21), x, {}, half=True)["outputs"]
    assert not torch.equal(half["outputs"], full["outputs"])
    assert_as_exact_as(half["outputs"], rounded, reference=reference)


@needs_kernels
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e7])
def test_the_kernel_rounds_to_float16_as_torch_does_and_stays_finite(scale: float) -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(d_model=16, num_heads=2, num_layers=1), 3, None)
    with torch.no_grad():
        model.layers[0].attention.qkv.gamma.mul_(scale)
    decoders = [model.make_decoder(8, dtype) for dtype in (torch.float32, torch.float16)]
    states = [decoder.initial_state(4) for decoder in decoders]
    x, now = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    with torch.inference_mode():
        for _ in range(3):
            outputs = [decoder.step(x, now, state) for decoder, state in zip(decoders, states, strict=True)]
    assert outputs[1].isfinite().all()
    for kept, exact in ((states[1].keys, states[0].keys), (states[1].values, states[0].values)):
        assert torch.equal(kept, exact.clamp(-65504, 65504).half())
        assert (exact.abs().max() > 65504) == (scale > 1)


def test_nan_of_a_broken_observation_stays_in_its_environment_and_episode() -> None:
    torch.manual_seed(0)
    decoder = Transformer(TransformerConfig(d_model=16, num_heads=2), 3, None).make_decoder(8)
    state, now = decoder.initial_state(2), torch.zeros(2, dtype=torch.int64)
    with torch.inference_mode():
        decoder.step(torch.randn(2, 3), now, state)
        broken = decoder.step(torch.tensor([[torch.nan] * 3, [1.0] * 3]), now, state)
        assert broken[0].isnan().all()
        assert not broken[1].isnan().any()
        state.reset(np.array([0]))
        assert not decoder.step(torch.randn(2, 3), now, state).isnan().any()
