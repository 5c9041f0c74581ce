"""Random applications, random requests, and the answer that maintenance mode must give to each."""
