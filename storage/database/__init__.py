"""One database, SQLite or PostgreSQL: connections, transactions, retries, and commits that calls share.

In: a URL, and functions that want a connection inside a transaction.
Out: what they return, or one of our errors in the place of a driver's.
"""
