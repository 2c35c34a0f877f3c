"""What an operator does to a database: upgrade, check, prune, redact, back up, copy out and in.

In: the `Database` or its URL.
Out: findings, counts and files; what a check finds wrong is told, not mended.
"""
