"""What an app has: its routes, its middleware and its guards."""
