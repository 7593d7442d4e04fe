"""Measures what a server serves: the tables of the model card, function calling, JSON mode, and answers for a judge."""
