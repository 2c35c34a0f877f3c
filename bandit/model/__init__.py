"""What a process keeps of one model beside its posterior: campaigns, creatives, contexts, contents, settings.

In: rows of the database, text vectors.
Out: places in the posterior's arrays, and the content that stands in each.
"""
