"""The command `creative-bandit`: `simulate`, `evaluate` and `demo` beside the commands of `bandit.cli`.

In: words of a shell.
Out: lines and files, and an exit code.
"""
