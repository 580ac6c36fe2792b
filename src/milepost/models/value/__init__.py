"""A value model: the time that is left until success, as a distribution, learnt from successes and failures."""
