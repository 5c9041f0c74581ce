"""The store that keeps documents in a database, through SQLAlchemy."""
