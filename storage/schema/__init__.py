"""What a database consists of: tables, the types of their columns, and the views that people read.

In: nothing; there is no query here.
Out: the mapped classes that the topics' statements are made of.
"""
