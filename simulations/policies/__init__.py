"""Who plays: the engine as it is shipped, and the baselines it is compared with. Pure, with settings as data.

In: settings, and what the engine would see: features, eligibility, own outcomes.
Out: `Policy` triples of functions that the loop plays; never a glance at the truth.
"""
