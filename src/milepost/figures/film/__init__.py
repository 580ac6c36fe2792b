"""Episode videos: the camera images unchanged, and under them a panel with curves, values, stage and weight. Writes mp4 and GIF."""
