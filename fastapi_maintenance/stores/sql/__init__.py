"""Documents in databases, by way of SQLAlchemy."""
