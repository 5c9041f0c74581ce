"""What maintenance is: pure, without I/O and without a clock."""
