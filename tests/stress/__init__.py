"""Many processes at one switch: what gets lost, what is read in pieces, and how long a change takes."""
