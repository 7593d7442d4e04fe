"""Benchmarks: ratios between systems that are measured side by side in one run. They are not tests."""
