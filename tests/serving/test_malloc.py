import os

from hermes.serving import malloc


def test_the_engine_does_not_inherit_what_is_for_cog(monkeypatch):
    for name, value in malloc.MALLOC.items():
        monkeypatch.setenv(name, value)
    malloc.not_for_children()
    assert not malloc.MALLOC.keys() & os.environ.keys()
    malloc.not_for_children()  # where nothing was set
