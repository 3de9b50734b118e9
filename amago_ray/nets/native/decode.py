"""Acting by the compiled kernels of `native/decode.c`: perceptrons, and a Transformer over its k/v cache."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.nets.folded import FoldedTransformer, Linear, Norm
from amago_ray.nets.mlp import NEGATIVE_SLOPE
from amago_ray.nets.native import load_kernel

if TYPE_CHECKING:
    from jaxtyping import Float

MAX_HEAD_DIM = 256
"""`MAX_HEAD_DIM` of the C file."""
LANES = 16
"""`LANES` of the C file."""


class _Linear(ctypes.Structure):
    """`Linear` of the C file."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("weight", "bias")],
        *[(name, ctypes.c_int64) for name in ("inputs", "outputs")],
    ]


class _Norm(ctypes.Structure):
    """`Norm` of the C file."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("gain", "shift")]


class _Layer(ctypes.Structure):
    """`Layer` of the C file."""

    _fields_ = [
        *[(name, _Linear) for name in ("qkv", "output", "expand", "contract")],
        ("output_norm", _Norm),
    ]


class _Transformer(ctypes.Structure):
    """`Transformer` of the C file."""

    _fields_ = [
        ("embed", _Linear),
        ("layers", ctypes.POINTER(_Layer)),
        *[(name, ctypes.c_int64) for name in ("num_layers", "width", "hidden_width", "num_heads", "head_dim")],
        ("output_norm", _Norm),
    ]


class _Cache(ctypes.Structure):
    """`Cache` of the C file."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("keys", "values")],
        *[(name, ctypes.c_int64) for name in ("half", "num_slots")],
        *[(name, ctypes.c_void_p) for name in ("slot", "live")],
    ]


class _Weights:
    """Weights in the layout of the C file, kept alive as long as this is."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []

    def linear(self, linear: Linear) -> _Linear:
        """Weight and bias, packed."""
        weight, bias = linear
        outputs, inputs = weight.shape
        padded = torch.zeros(round_up(outputs), inputs)
        padded[:outputs] = weight
        packed = padded.view(-1, LANES, inputs).transpose(1, 2).contiguous()
        padded_bias = torch.zeros(len(padded))
        if bias is not None:
            padded_bias[:outputs] = bias
        self._tensors += [packed, padded_bias]
        return _Linear(packed.data_ptr(), padded_bias.data_ptr(), inputs, len(padded))

    def norm(self, norm: Norm) -> _Norm:
        """Gain and shift."""
        self._tensors += norm
        return _Norm(*[tensor.data_ptr() for tensor in norm])


class _Scratch:
    """Room for intermediate results, kept from call to call."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    def __call__(self, size: int) -> int:
        """The address of room for at least `size` floats."""
        if size > len(self._room):
            self._room = torch.empty(size)
        return self._room.data_ptr()


class NativeMlp:
    """Linear layers with leaky ReLU between them, then a layer norm if there is one; float32 on the host."""

    def __init__(self, layers: Sequence[Linear], norm: Norm | None, kernel: Any) -> None:
        weights = self._weights = _Weights()
        self._layers = (_Linear * len(layers))(*[weights.linear(layer) for layer in layers])
        self._norm = None if norm is None else weights.norm(norm)
        self._outputs = len(layers[-1][0])
        self._widest = max(layer.outputs for layer in self._layers)
        self._scratch = _Scratch()
        self._kernel = kernel

    def __call__(self, x: Float[Tensor, "E inputs"]) -> Float[Tensor, "E outputs"]:
        """`[E, in]` to `[E, out]`."""
        x = _readable(x)
        rows, scratch_size = len(x), 2 * len(x) * self._widest
        out = torch.empty(rows, round_up(self._outputs))
        self._kernel(
            self._layers,
            len(self._layers),
            NEGATIVE_SLOPE,
            self._norm and ctypes.byref(self._norm),
            self._outputs,
            x.data_ptr(),
            x.stride(0),
            rows,
            self._scratch(scratch_size),
            scratch_size,
            out.data_ptr(),
        )
        return out[:, : self._outputs]


class NativeTransformer:
    """A folded Transformer, one token of each environment at a time; float32 on the host, the cache may be float16."""

    def __init__(self, model: FoldedTransformer, kernel: Any) -> None:
        weights = self._weights = _Weights()
        self._layers = (_Layer * len(model.layers))(
            *[
                _Layer(
                    *[weights.linear(linear) for linear in (layer.qkv, layer.output, layer.expand, layer.contract)],
                    weights.norm(layer.output_norm),
                )
                for layer in model.layers
            ]
        )
        self._width, hidden_width = model.width, len(model.layers[0].expand[0])
        self._model = _Transformer(
            weights.linear(model.embed),
            self._layers,
            len(model.layers),
            self._width,
            hidden_width,
            model.num_heads,
            model.head_dim,
            weights.norm(model.output_norm),
        )
        self._scratch_width = 3 * round_up(self._width) + round_up(max(3 * self._width, hidden_width))
        self._scratch = _Scratch()
        self._kernel = kernel

    def __call__(
        self,
        x: Float[Tensor, "E inputs"],
        positions: Float[Tensor, "E D"] | None,
        turn: tuple[Tensor, Tensor] | None,
        keys: Float[Tensor, "layers E H head_dim num_slots"],
        values: Float[Tensor, "layers E H num_slots head_dim"],
        slot: npt.NDArray[np.int64],
        live: npt.NDArray[np.int64],
    ) -> Float[Tensor, "E D"]:
        """`[E, D]` of the next row's vectors `x [E, in]`, whose keys and values go into a `KvCache`'s own.

        slot, live `[E]`: as in `CacheStep`.
        """
        x = _readable(x)
        rows = len(x)
        out = torch.empty(rows, round_up(self._width))
        num_slots = values.shape[3]
        cosines, sines = (None, None) if turn is None else turn
        self._kernel(
            ctypes.byref(self._model),
            ctypes.byref(
                _Cache(
                    keys.data_ptr(),
                    values.data_ptr(),
                    keys.dtype == torch.float16,
                    num_slots,
                    slot.ctypes.data,
                    live.ctypes.data,
                )
            ),
            NEGATIVE_SLOPE,
            x.data_ptr(),
            x.stride(0),
            rows,
            None if positions is None else positions.data_ptr(),
            None if cosines is None else cosines.data_ptr(),
            None if sines is None else sines.data_ptr(),
            self._scratch(rows * self._scratch_width + num_slots),
            out.data_ptr(),
        )
        return out[:, : self._width]


def _readable(x: Tensor) -> Tensor:
    """`x`, or a copy of it, as float32 with entries of a row side by side in memory."""
    x = x.float()
    return x if x.stride(1) == 1 else x.contiguous()


def round_up(width: int) -> int:
    """The width of a row in whole vectors."""
    return -(-width // LANES) * LANES


def load_mlp_kernel() -> Any | None:
    """`amago_ray_mlp`, or None where it was not built."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    types = [ctypes.POINTER(_Linear), number, ctypes.c_float, ctypes.POINTER(_Norm), number, pointer, number, number]
    return _typed(load_kernel("_decode", "amago_ray_mlp"), [*types, pointer, number, pointer])


def load_decode_kernel() -> Any | None:
    """`amago_ray_decode`, or None where it was not built."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    types = [ctypes.POINTER(_Transformer), ctypes.POINTER(_Cache), ctypes.c_float, pointer, number, number]
    return _typed(load_kernel("_decode", "amago_ray_decode"), [*types, *[pointer] * 5])


def _typed(kernel: Any | None, types: list[Any]) -> Any | None:
    if kernel is not None:
        kernel.restype, kernel.argtypes = None, types
    return kernel
