"""The engine's commands, a file for each; `simulations.cli` puts them and its own into one program.

In: words of a shell.
Out: lines, tables or JSON on standard output, errors as one line.
"""
