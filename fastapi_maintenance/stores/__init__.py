"""Stores: where the documents of switches live."""

from .contract import MAX_BYTES, Conflict, DocumentStore, Reading

__all__ = ["MAX_BYTES", "Conflict", "DocumentStore", "Reading"]
