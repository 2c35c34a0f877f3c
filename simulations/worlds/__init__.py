"""What is played: shops, archives of A/B tests, labelled tables. They alone know the truth.

In: seeds, effect sizes, files of past tests.
Out: traffic for the loop: requests, true click rates, reported ones.
"""
