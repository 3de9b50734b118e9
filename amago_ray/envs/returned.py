"""What environments return beside observations, read where its meaning is plain and refused by name elsewhere."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.errors import EnvError

LARGEST_REWARD = float(np.finfo(np.float32).max)
_LONGEST_DESCRIPTION = 80


class ReturnedError(EnvError):
    """An environment returned something that has no plain meaning: `place` says which entry of which call."""

    def __init__(self, place: str, expected: str, found: object) -> None:
        self.place, self.expected, self.found = place, expected, describe(found)
        super().__init__(place, expected, self.found)

    def __str__(self) -> str:
        return f"{self.kind}, got {self.found}"

    @property
    def kind(self) -> str:
        """The message without what was found, which may differ each time."""
        return f"{self.place}: expected {self.expected}"


class Found(str):
    """A description that stands in a message as it is."""

    __slots__ = ()


def describe(value: object) -> str:
    """A value on one line of bounded length."""
    if isinstance(value, Found):
        return value
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    try:
        text = " ".join(reprlib.repr(value).split())
    except Exception:
        # The repr of foreign objects may raise.
        text = ""
    if not text or text.startswith("<") or len(text) > _LONGEST_DESCRIPTION:
        return f"a value of type {type(value).__name__}"
    return text


def number(place: str, value: Any) -> float:
    """A finite number of any type, also as an array, tensor or list of one.

    Raises:
        ReturnedError: it is none, or float32 cannot hold it.
    """
    result = value if type(value) is float else _plain_number(place, "a number", value)
    # Written so that NaN is refused.
    if not -LARGEST_REWARD <= result <= LARGEST_REWARD:
        raise ReturnedError(place, "a finite number of float32", value)
    return result


def flag(place: str, value: Any) -> bool:
    """True or False, also as 0 or 1, or as an array, tensor or list of one.

    Raises:
        ReturnedError: it is neither.
    """
    if type(value) is bool:
        return value
    result = _plain_number(place, "True or False", value)
    if result not in (0.0, 1.0):
        raise ReturnedError(place, "True or False", value)
    return bool(result)


def optional_number(place: str, value: Any) -> float | None:
    """As `number`; None stays None, for an entry without a value."""
    return None if value is None else number(place, value)


def numbers(place: str, values: Any, num_envs: int) -> tuple[npt.NDArray[np.float64], dict[int, ReturnedError]]:
    """The numbers `[E]` of a vector environment, and by index what is wrong with the others, which are 0.

    Raises:
        ReturnedError: there are not E entries.
    """
    entries = _entries(place, values, num_envs)
    if isinstance(entries, np.ndarray):
        result = entries.astype(np.float64)
        bad = np.flatnonzero(~(np.abs(result) <= LARGEST_REWARD)).tolist()
        result[bad] = 0.0
        return result, {i: ReturnedError(place, "a finite number of float32", entries[i]) for i in bad}
    return _one_by_one(place, number, entries)


def flags(place: str, values: Any, num_envs: int) -> tuple[npt.NDArray[np.bool_], dict[int, ReturnedError]]:
    """The flags `[E]` of a vector environment, and by index what is wrong with the others, which are False.

    Raises:
        ReturnedError: there are not E entries.
    """
    entries = _entries(place, values, num_envs)
    if isinstance(entries, np.ndarray):
        bad = [] if entries.dtype == np.bool_ else np.flatnonzero((entries != 0) & (entries != 1)).tolist()
        result = entries.astype(np.bool_)
        result[bad] = False
        return result, {i: ReturnedError(place, "True or False", entries[i]) for i in bad}
    found, errors = _one_by_one(place, flag, entries)
    return found.astype(np.bool_), errors


def info_dict(place: str, value: Any) -> Mapping[str, Any]:
    """`info` as a mapping; None is an empty one.

    Raises:
        ReturnedError: it is neither.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ReturnedError(f"{place}: info", "a dict", value)
    return value


def reset_result(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """The observation and info that a reset returned.

    Raises:
        ReturnedError: it returned anything else, such as the bare observation of Gym before 0.26.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ReturnedError("reset", "(observation, info) as in Gymnasium", _entries_found(value))
    return value[0], info_dict("reset", value[1])


def step_result(value: Any) -> Sequence[Any]:
    """The five entries that a step returned; its info may still be None.

    Raises:
        ReturnedError: they are not five, such as the four of Gym before 0.26.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 5:
        expected = "(observation, reward, terminated, truncated, info) as in Gymnasium"
        raise ReturnedError("step", expected, _entries_found(value))
    return value


def picture(value: Any) -> npt.NDArray[np.uint8]:
    """A rendered picture as RGB `[height, width, 3]`, also from grey ones, ones with alpha, and floats in [0, 1].

    Raises:
        ReturnedError: it is no picture.
    """
    expected = "a picture [height, width, 3] of uint8"
    if isinstance(value, list) and value:
        # Of the modes that return all frames since the last call, the newest.
        value = value[-1]
    if not isinstance(value, np.ndarray):
        raise ReturnedError("render", expected, value)
    pixels = value[..., None] if value.ndim == 2 else value
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.shape[2] not in (1, 3, 4):
        raise ReturnedError("render", expected, value)
    if pixels.dtype.kind == "f" and np.all((pixels >= 0) & (pixels <= 1)):
        pixels = np.rint(pixels * 255)
    if not np.all((pixels >= 0) & (pixels <= 255)):
        raise ReturnedError("render", expected, Found(f"values outside of 0 to 255 of {pixels.dtype}"))
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(rgb, np.uint8)


def _plain_number(place: str, expected: str, value: Any) -> float:
    found = value
    while isinstance(found, list | tuple) and len(found) == 1:
        found = found[0]
    item = getattr(found, "item", None)
    try:
        if callable(item):
            # Arrays and tensors, wherever they are; it raises where there is more than one number.
            found = item()
        if hasattr(found, "__float__"):
            return float(found)
    except Exception as error:
        raise ReturnedError(place, expected, value) from error
    raise ReturnedError(place, expected, value)


def _entries(place: str, values: Any, num_envs: int) -> npt.NDArray[Any] | list[Any]:
    """An array of numbers `[E]`, else a list of E objects."""
    array = values if isinstance(values, np.ndarray) else None
    if array is None and not isinstance(values, list | tuple):
        try:
            # Tensors of other libraries.
            array = np.asarray(values)
        except Exception as error:
            raise ReturnedError(place, f"{num_envs} entries", values) from error
    if array is not None and array.size == num_envs and array.ndim and array.dtype.kind in "biuf":
        return array.reshape(num_envs)
    entries = list(array if array is not None and array.ndim else () if array is not None else values)
    if len(entries) != num_envs:
        raise ReturnedError(place, f"{num_envs} entries", values)
    return entries


def _one_by_one(
    place: str, read: Callable[[str, Any], float], entries: Sequence[Any]
) -> tuple[npt.NDArray[np.float64], dict[int, ReturnedError]]:
    result, errors = np.zeros(len(entries)), {}
    for index, entry in enumerate(entries):
        try:
            result[index] = read(place, entry)
        except ReturnedError as error:
            errors[index] = error
    return result, errors


def _entries_found(value: Any) -> Any:
    return Found(f"{len(value)} entries") if isinstance(value, tuple | list) else value
