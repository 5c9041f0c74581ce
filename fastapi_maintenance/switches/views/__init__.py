"""This process's views of its switches: what requests read without I/O."""
