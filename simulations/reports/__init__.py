"""Results as people read them: scores with errors, conclusions in words, pictures, pages, files.

In: what policies earned, run by run.
Out: rows, SVG pictures, HTML pages, CSV files.
"""
