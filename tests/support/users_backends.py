"""Backends as users write them: of two methods, which let others run and may fail."""

from __future__ import annotations

import anyio.lowlevel

from fastapi_maintenance.backends import BaseStateBackend


class Slow(BaseStateBackend):
    """A user's backend that lets others run before and after it does what it does."""

    def __init__(self, value: bool = False) -> None:
        self.value = value

    async def get_value(self) -> bool:
        await anyio.lowlevel.checkpoint()
        value = self.value
        await anyio.lowlevel.checkpoint()
        return value

    async def set_value(self, value: bool) -> None:
        await anyio.lowlevel.checkpoint()
        self.value = value
        await anyio.lowlevel.checkpoint()


class Down(Slow):
    """A store that fails from some moment on."""

    is_down = False

    async def get_value(self) -> bool:
        if self.is_down:
            raise ConnectionError("down")
        return await super().get_value()

    async def set_value(self, value: bool) -> None:
        if self.is_down:
            raise ConnectionError("down")
        await super().set_value(value)
