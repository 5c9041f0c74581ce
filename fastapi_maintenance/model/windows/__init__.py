"""Windows: planned periods of maintenance, once or recurring."""
