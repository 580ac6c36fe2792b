"""Training: the loop, its settings, several processes, what it reports."""
