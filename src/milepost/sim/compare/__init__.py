"""Does weighting help? Policies trained with and without weights on simulated demonstrations of mixed quality, tried in closed loop.

`run(CompareConfig(...), folder, ...)` gives one line a policy; `rates` makes paired differences of them.
"""
