"""The private event loop, and what runs beside it."""
