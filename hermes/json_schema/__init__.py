"""JSON schemas: how large they may be, what of them a grammar enforces, and whether a value is valid.

Pure values: nothing here knows a model, an engine or a server.
"""
