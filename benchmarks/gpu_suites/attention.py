"""Suite `attention`: the attention backends on packed batches, their values and gradients, and their time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measuring.rows import Case, NotRunError, Row
from measuring.works import relabeled_lengths
from torch import Tensor

from amago_ray.config.model import BackendName
from amago_ray.errors import ConfigError
from amago_ray.nets.attention.backend import AttentionBackend
from amago_ray.nets.attention.make import build_attention
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout
from gpu_suites.setting import Setting

ABOUT = (
    "Backends in bfloat16 against SDPA in float32 on the same packed batch of random numbers: norm of the difference "
    "over the norm, of the output and of the gradients of q, k and v. Equal: below 1 % and 2 %, which is what operands "
    "of bfloat16 leave. Forward, and forward with backward, in milliseconds."
)
BACKENDS: tuple[BackendName, ...] = ("flash_attn", "varlen", "sdpa")
NUM_HEADS = 8
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-2, 2e-2

# Name, transitions of each sequence, width of a head, window.
Batch = tuple[str, tuple[int, ...], int, int | None]
BATCHES: tuple[Batch, ...] = (
    ("24 x 250", (250,) * 24, 32, None),
    ("24 x 250 relabeled", relabeled_lengths(24, 250), 32, None),
    ("24 x 2000", (2000,) * 24, 96, None),
    ("24 x 2000 relabeled", relabeled_lengths(24, 2000), 96, None),
    ("24 x 2000, window 256", (2000,) * 24, 96, 256),
    ("8 x 4000", (4000,) * 8, 64, None),
    ("24 x 250, narrow heads", (250,) * 24, 16, None),
)
TINY: tuple[Batch, ...] = (("3 x 7", (7,) * 3, 8, None), ("ragged", (2, 9, 5), 8, None), ("window", (9, 9), 8, 4))


def cases(setting: Setting) -> Iterator[Case]:
    """Every backend on every batch."""
    for batch in TINY if setting.is_tiny else BATCHES:
        for backend in BACKENDS:
            yield _case(setting, batch, backend)


def _case(setting: Setting, batch: Batch, backend: BackendName) -> Case:
    name, _, head_dim, _ = batch
    return {"batch": name, "head_dim": head_dim, "backend": backend}, lambda: measure(setting, batch, backend)


def measure(setting: Setting, batch: Batch, name: BackendName) -> Row:
    """Errors and times of one backend on one batch.

    Raises:
        NotRunError: this machine lacks the backend.
    """
    try:
        backend = build_attention(name)
    except ConfigError as error:
        raise NotRunError(str(error)) from error
    device = setting.device
    _, lengths, head_dim, window = batch
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths([length + 1 for length in lengths], device.kind)
    shape = (layout.num_tokens, NUM_HEADS, head_dim)
    # As the network gives them: views of one product.
    qkv = torch.randn(shape[0], 3, *shape[1:], device=device.kind, dtype=torch.bfloat16)
    cotangent = torch.randn(shape, device=device.kind, dtype=torch.bfloat16)
    output, gradient = run(backend, qkv, cotangent, layout, window)
    expected, expected_gradient = run(SdpaAttention(), qkv.float(), cotangent.float(), layout, window)
    errors = {"output_error": relative_error(output, expected)}
    for part, found, right in zip("qkv", gradient.unbind(1), expected_gradient.unbind(1), strict=True):
        errors[f"d{part}_error"] = relative_error(found, right)
    gradient_error = max(errors["dq_error"], errors["dk_error"], errors["dv_error"])
    q, k, v = qkv.unbind(1)
    with torch.no_grad():
        forward_s = device.time_s(lambda: backend(q, k, v, layout, window), setting.seconds / 2)
    both_s = device.time_s(lambda: run(backend, qkv, cotangent, layout, window), setting.seconds / 2)
    return {
        "forward_ms": forward_s.median * 1e3,
        "forward_backward_ms": both_s.median * 1e3,
        **errors,
        "equal": errors["output_error"] <= OUTPUT_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE,
    }


def run(
    backend: AttentionBackend, qkv: Tensor, cotangent: Tensor, layout: SequenceLayout, window: int | None
) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of `qkv [N, 3, H, head_dim]` for that of the output."""
    leaf = qkv.detach().requires_grad_()
    q, k, v = leaf.unbind(1)
    output = backend(q, k, v, layout, window)
    output.backward(cotangent)  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return output.detach(), leaf.grad


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|; not a number where one of them is not."""
    return float((found.float() - expected).norm() / expected.norm())
