"""Whether what a prediction was given goes with it, or waits for the garbage collector, which looks seldom."""

import gc
import weakref


class Megabytes:
    """Stands for the inputs of a prediction."""


def assert_goes_at_once(use):
    """`use` gets inputs, and has to leave nothing that leads to them."""
    inputs = Megabytes()
    left = weakref.ref(inputs)
    gc.disable()
    try:
        use(inputs)
        del inputs
        assert left() is None
    finally:
        gc.enable()
