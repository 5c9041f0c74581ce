"""The answer to a refused request."""
