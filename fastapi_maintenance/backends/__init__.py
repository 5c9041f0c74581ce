"""Where the state of a switch is kept."""

from .base import BaseStateBackend
from .env import EnvVarBackend
from .file import LocalFileBackend
from .memory import MemoryBackend
from .redis import RedisBackend
from .sqlalchemy import SQLAlchemyBackend

__all__ = [
    "BaseStateBackend",
    "EnvVarBackend",
    "LocalFileBackend",
    "MemoryBackend",
    "RedisBackend",
    "SQLAlchemyBackend",
]
