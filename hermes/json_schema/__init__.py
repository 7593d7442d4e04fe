"""JSON schemas: their limits, their grammars, and the validation of values.

This room has pure values only: it does not know a model, an engine or a server.
"""
