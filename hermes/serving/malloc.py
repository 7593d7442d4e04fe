"""glibc's malloc in the processes of Cog, where prompts of megabytes come and go on some fifty threads."""

import os

# By default, malloc keeps many heaps and what was freed in each. After some minutes of hostile prompts the worker had
# 1.1 to 1.2 GB; with these settings it has 0.61 GB. cog.yaml sets the same.
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}


def not_for_children() -> None:
    """Keep these settings from child processes: on a CPU the engine allocates tensors all the time."""
    for name in MALLOC:
        os.environ.pop(name, None)
