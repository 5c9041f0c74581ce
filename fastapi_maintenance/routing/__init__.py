"""Find the code that the router would run. Only this package reads FastAPI's internals."""
