"""The operator's desk: the admin's API and page."""
