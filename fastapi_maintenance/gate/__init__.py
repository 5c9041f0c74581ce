"""Deciding about a request."""
