"""A backend of two methods: maintenance is a boolean flag of OpenFeature, whoever the provider is.

The flag is turned in the provider's own console, so it can only be read from here.

    uvicorn examples.openfeature_flag:app
"""

from fastapi import FastAPI
from openfeature import api

from fastapi_maintenance import MaintenanceModeMiddleware, ReadOnlyBackend
from fastapi_maintenance.backends import BaseStateBackend


class OpenFeatureBackend(BaseStateBackend):
    """On or off, as a flag says."""

    read_only = True
    cache_seconds = 0.5

    def __init__(self, flag: str) -> None:
        self.flag = flag
        self._client = api.get_client()

    async def get_value(self) -> bool:
        """Return the flag's value; off while the provider does not know it."""
        return await self._client.get_boolean_value_async(self.flag, default_value=False)

    async def set_value(self, value: bool) -> None:
        """Refuse: the flag is the provider's."""
        raise ReadOnlyBackend(f"the flag {self.flag!r}", "turn it where your OpenFeature provider keeps its flags")


app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, backend=OpenFeatureBackend("maintenance"))


@app.get("/orders")
async def orders() -> list[str]:
    """Return the orders."""
    return []
