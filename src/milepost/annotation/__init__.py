"""Subtask annotation: what each stage of an episode is called, where it starts and stops, asked, checked, kept and written.

One annotated episode is `Mapping[head, tuple[Segment, ...]]` with head "sparse" or "dense". Nothing is imported here.
"""
