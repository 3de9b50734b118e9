"""`Ending`: how a call of an actor ended, and what to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from amago_ray.errors import AmagoRayError, TrainingError

_LONGEST_LINE = 500


class LostPeerError(TrainingError):
    """An actor lost another without which it cannot go on."""


@dataclass(frozen=True)
class Ending:
    """How a call ended.

    kind: it returned `value`; the actor raised `error` in it; the actor died (or its node did); or the actor could not
    be made, which is no death: its constructor raised `error`, or it died before it was there.
    is_preempted: its node was taken away, which had been announced.
    """

    kind: Literal["returned", "raised", "died", "not_made"]
    value: Any = None
    error: Exception | None = None
    is_preempted: bool = False

    @property
    def line(self) -> str:
        """What happened, in one line."""
        return "" if self.error is None else short_line(self.error)

    def failure(self, what: str) -> AmagoRayError:
        """The error with which a run ends for this: the original one where it is ours, `what` before it otherwise."""
        return self.error if isinstance(self.error, AmagoRayError) else TrainingError(f"{what}: {self.line}")


def short_line(error: BaseException) -> str:
    """An error's kind and text in one line of readable length, with the text alone where the error is ours."""
    text = short(str(error))
    return text if isinstance(error, AmagoRayError) else f"{type(error).__name__}: {text}"


def short(text: str) -> str:
    """A message in one line of readable length, without the general advice that Ray adds."""
    # Its own words about a process come after a list of names and numbers.
    text = text.partition("The actor is dead because ")[2] or text
    for advice in ("Some common causes include", "Ensure that the token"):
        text = text.partition(advice)[0]
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} …"
