"""glibc's malloc in the processes of Cog, where prompts of megabytes come and go on some fifty threads."""

import os

# Left to itself it keeps a heap for each few threads, and more and more of what was freed in each: the worker was at
# 1.1 to 1.2 GB after some minutes of hostile prompts, and is at 0.61 GB with these. cog.yaml sets the same.
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}


def not_for_children() -> None:
    """Leave the processes that this one starts as they would be: on a CPU the engine allocates tensors all the time."""
    for name in MALLOC:
        os.environ.pop(name, None)
