"""Golden model of an armed completion queue: what the host may rely on, in order of events, without time."""

from dataclasses import dataclass

__all__ = ["ArmedCq"]


@dataclass
class ArmedCq:
    """A CQ and what it is armed for. ``completed`` and ``arm`` return whether the host is notified there and then; while
    ``waiting``, its period runs, and :meth:`expire` is its end."""

    count: int = 0           # completions that notify at once; 0 counts as 1
    armed: bool = False
    any: bool = False        # of any completion, not of solicited ones alone
    seen: int = 0
    waiting: bool = False
    produced: int = 0
    last_solicited: int = 0  # completions up to the last solicited one

    def _judge(self, seen):
        self.seen, self.waiting = seen, seen > 0
        if seen and seen >= max(self.count, 1):
            self.expire()
            return True
        return False

    def expire(self):
        self.armed = self.waiting = False
        self.seen = 0

    def completed(self, solicited):
        self.produced += 1
        if solicited:
            self.last_solicited = self.produced
        return self.armed and (self.any or solicited) and self._judge(self.seen + 1)

    def arm(self, consumed, solicited):
        self.any = not solicited or (self.armed and self.any)
        self.armed = True
        there = self.produced - consumed if self.any else int(self.last_solicited > consumed)
        return self._judge(min(there, 255))
