"""Every statement of the running engine, a file for each thing that it keeps.

In: the `Database`, ids, records and times that the caller has checked.
Out: records; one public method is one transaction.
"""
