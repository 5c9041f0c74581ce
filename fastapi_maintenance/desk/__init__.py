"""The operator's desk: a page and a JSON API to control switches."""
