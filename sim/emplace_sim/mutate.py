"""Break a component on purpose, without a hook in its source, to see that its proof or test notices."""

import inspect
import sys
import types

__all__ = ["mutant"]


def mutant(cls, old, new):
    """A copy of ``cls`` from its module's source with ``old``, which must occur once, made ``new``."""
    module = sys.modules[cls.__module__]
    source = inspect.getsource(module)
    if source.count(old) != 1:
        raise ValueError(f"Text to mutate must occur once in {module.__name__}, not {source.count(old)} times: {old!r}")
    copy = types.ModuleType(module.__name__ + ".mutant")
    copy.__package__ = module.__package__
    exec(compile(source.replace(old, new), f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    return getattr(copy, cls.__name__)
