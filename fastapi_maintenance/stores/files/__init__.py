"""The store that keeps documents in files."""
