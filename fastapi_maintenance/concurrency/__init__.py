"""The private event loop, daemon threads, and objects that belong to one event loop."""
