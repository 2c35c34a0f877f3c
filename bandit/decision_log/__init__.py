"""Decision logs as files: written for other tools, read to be judged.

In: a database's decisions, or a file of them.
Out: the same as CSV, Open Bandit's columns, or dsjson lines.
"""
