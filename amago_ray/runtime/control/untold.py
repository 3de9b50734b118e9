"""`Untold`: what waits to be collected."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Untold(Generic[Item]):
    """The newest `size` things that happened since somebody asked; how many more there were is counted."""

    def __init__(self, size: int) -> None:
        self._items: deque[Item] = deque(maxlen=size)
        self.num_forgotten = 0
        """Those that nobody will hear of, in all."""

    def extend(self, items: Iterable[Item]) -> None:
        """These happened."""
        for item in items:
            self.num_forgotten += len(self._items) == self._items.maxlen
            self._items.append(item)

    def take(self) -> Sequence[Item]:
        """All that wait, oldest first; they wait no longer."""
        items = list(self._items)
        self._items.clear()
        return items
