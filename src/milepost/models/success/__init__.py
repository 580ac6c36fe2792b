"""A success head: the probability that the task is done, for every frame, learnt from `next.success` or from outcomes."""
