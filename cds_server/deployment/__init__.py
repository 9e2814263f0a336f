"""Which model answers: the bundle at start, and a new one while the server runs, without a restart."""
