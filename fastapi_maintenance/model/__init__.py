"""The state of maintenance and its rules: pure functions, without I/O and without a clock."""
