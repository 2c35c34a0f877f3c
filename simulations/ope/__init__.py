"""Off-policy evaluation: what another policy would have earned, from decisions logged with propensities.

In: a log, and a policy's probabilities or our engine with other settings.
Out: estimates with intervals, and a warning where the log cannot tell.
"""
