"""Which creative is shown, and with what probability: lookahead, draw, floors, caps, control. Pure.

In: the logits' joint posterior, the campaign's horizon and limits, uniform numbers.
Out: choices and their exact propensities.
"""
