"""Films: an episode's pictures as they are, and under them a panel with curves, values, stage and weight. Writes mp4 and GIF."""
