"""What the infos of vector environments hold of one of them, and the numbers worth reporting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.envs.env_batch import EnvEvent
from amago_ray.envs.gymnasium_batch import ATTEMPT_RETURN, SUCCESS_KEYS
from amago_ray.envs.returned import ReturnedError, flag, number


def vector_events(
    infos: Mapping[str, Any], final_infos: Any, wanted: npt.NDArray[np.bool_], ended: npt.NDArray[np.bool_]
) -> tuple[list[EnvEvent], dict[int, ReturnedError]]:
    """The events of the `wanted` environments `[E]`, and by index the entries that have no plain meaning.

    final_infos: what belongs to the episodes that `ended`, `infos` itself where nothing resets in the same step.
    """
    events: list[EnvEvent] = []
    errors: dict[int, ReturnedError] = {}
    has_attempts = not isinstance(infos, Mapping) or ATTEMPT_RETURN in infos
    for index in np.flatnonzero(wanted if has_attempts else wanted & ended).tolist():
        try:
            found = [(ATTEMPT_RETURN, _entry(infos, ATTEMPT_RETURN, index))]
            if ended[index]:
                if final_infos is not infos:
                    found.append((ATTEMPT_RETURN, _entry(final_infos, ATTEMPT_RETURN, index)))
                successes = (_entry(final_infos, key, index) for key in SUCCESS_KEYS)
                found.append(("success", next((value for value in successes if value is not None), None)))
            events += [EnvEvent(index, name, value) for name, value in found if value is not None]
        except ReturnedError as error:
            errors[index] = error
    return events, errors


def info_entry(call: str, infos: Any, key: str, index: int) -> Any:
    """What the infos that a `call` returned hold under `key` of one environment, None where there is nothing.

    infos: columns, beside which `_key` may say who has an entry; or one dict each, as in Gymnasium before 1.0.

    Raises:
        ReturnedError: there is no entry for each environment.
    """
    place = f"{call}: infos['{key}']"
    try:
        if not isinstance(infos, Mapping):
            return (infos[index] or {}).get(key)
        if key not in infos or not flag(place, infos.get(f"_{key}", _ALL)[index]):
            return None
        return infos[key][index]
    except ReturnedError:
        raise
    except Exception as error:
        raise ReturnedError(place, "an entry for each environment", infos) from error


def _entry(infos: Any, key: str, index: int) -> float | None:
    value = info_entry("step", infos, key, index)
    return None if value is None else number(f"step: infos['{key}']", value)


class _Everyone:
    """A mask that holds for all."""

    def __getitem__(self, index: int) -> bool:
        return True


_ALL = _Everyone()
