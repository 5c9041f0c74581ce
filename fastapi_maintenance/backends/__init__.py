"""Where the state of a switch is kept."""

from .base import BaseStateBackend
from .env import EnvVarBackend
from .memory import MemoryBackend

__all__ = ["BaseStateBackend", "EnvVarBackend", "MemoryBackend"]
