"""Blocks of code that hold a switch on or off."""
