"""What the model sees of a request and a creative: the numbers of a design row φ. Pure.

In: contexts, context schemas, text vectors.
Out: context vectors, content components, design rows.
"""
