"""Inspect an app: its routes, middleware, guards and OpenAPI schema."""
