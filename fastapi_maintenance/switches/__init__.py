"""The switches: their backends, the views of their states, and the functions that change them."""
