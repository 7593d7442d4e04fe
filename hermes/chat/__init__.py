"""A conversation and the request for a response to it: pure values, no engine, no clock, no torch."""
