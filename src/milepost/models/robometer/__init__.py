"""Robometer: a vision-language model with heads that say, at each frame it is shown, how far the robot is and whether it has succeeded."""
