"""Document stores: each keeps the documents of switches."""

from ..model.limits import MAX_BYTES
from .contract import Conflict, DocumentStore, Reading
from .urls import register_store

__all__ = ["MAX_BYTES", "Conflict", "DocumentStore", "Reading", "register_store"]
