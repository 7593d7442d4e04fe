"""Where commands write what is not their result: standard error."""

from rich.console import Console

notes = Console(stderr=True, highlight=False, soft_wrap=True)
