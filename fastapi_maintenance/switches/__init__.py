"""What this process knows of each switch."""
