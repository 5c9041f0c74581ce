"""What the router would run. Nothing else reads FastAPI's insides."""
