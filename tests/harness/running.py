"""What is started for a test and stopped after it."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Running(ABC):
    """Runs within `async with`; may be stopped and started again in it."""

    @abstractmethod
    async def start(self) -> None:
        """Start it, and wait until it can be used."""

    @abstractmethod
    async def stop(self) -> object:
        """Let it end by itself."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
