"""The private event loop, and objects that belong to one event loop."""
