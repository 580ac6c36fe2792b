"""TOPReward, zero-shot: how sure a vision-language model is that the video so far completes the task."""
