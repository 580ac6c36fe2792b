"""Subtask annotation by a vision-language model: what it is shown and asked, how its answer is read and checked, how far answers agree.

Nothing here asks a model: it makes the question and judges the reply. An annotation of one head is a tuple of `Segment`s.
"""
