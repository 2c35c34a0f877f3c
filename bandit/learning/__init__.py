"""How settled decisions become posterior: steps, refits, forgetting, snapshots, following, replay.

In: settled decisions and the log of steps.
Out: the next posterior, as a row of the log, and the summaries of arms that people read.
"""
