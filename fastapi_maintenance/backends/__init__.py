"""State backends: each keeps the state of one switch."""

from .base import BaseStateBackend, FollowOptions, StoreBackend
from .env import EnvVarBackend
from .file import LocalFileBackend
from .memory import MemoryBackend
from .redis import RedisBackend
from .sqlalchemy import SQLAlchemyBackend

__all__ = [
    "BaseStateBackend",
    "EnvVarBackend",
    "FollowOptions",
    "LocalFileBackend",
    "MemoryBackend",
    "RedisBackend",
    "SQLAlchemyBackend",
    "StoreBackend",
]
