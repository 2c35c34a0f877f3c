"""Counts from before: what creatives earned elsewhere becomes the model's first knowledge.

In: a CSV, rows, or another database.
Out: imported counts, and a refit that has learnt them.
"""
