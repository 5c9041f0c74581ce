"""Document stores: each keeps the documents of switches."""

from .contract import MAX_BYTES, Conflict, DocumentStore, Reading
from .urls import register_store

__all__ = ["MAX_BYTES", "Conflict", "DocumentStore", "Reading", "register_store"]
