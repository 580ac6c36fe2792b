"""RoboReward: a vision-language model that was trained to grade how a video of a robot ends, from 1 to 5."""
