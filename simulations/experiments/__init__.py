"""A world, its policies and their seeds, put together: what each `simulate` command and the demo run.

In: the options of a command.
Out: a folder with results, settings and a report.
"""
