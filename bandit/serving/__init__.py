"""How requests become decisions: candidates, batches of like requests, stored choices.

In: requests and the newest view of the posterior.
Out: decisions, stored before they are answered.
"""
