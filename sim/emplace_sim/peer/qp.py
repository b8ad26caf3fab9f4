"""A queue pair: TCP connection, MPA start-up and FPDUs, and what of them reaches requester and responder.

Ref: RFC 5044 (MPA), RFC 6581 (enhanced start-up), RFC 5040 6.8 (Terminate).
"""

from collections import Counter
from dataclasses import dataclass

from .. import ddp
from ..fpdu import build_fpdu, split_fpdus
from ..mpa import PRIVATE_MAX, REPLY_KEY, REQUEST_KEY, MpaFrame
from .errors import StreamError, quote
from .requester import Requester, _Entry
from .responder import Responder
from .tcp import TcpEndpoint, TcpState
from .verbs import AsyncEvent, Completion, Opcode, QpState, RecvWr, SendWr, Status

__all__ = ["Qp", "QpSettings"]


@dataclass
class QpSettings:
    """Parameters of MPA, DDP and RDMAP on one connection."""

    crc: bool = True                 # wanted, at the start-up; used, where the connection is taken over
    ird: int = 4
    ord: int = 4
    mulpdu: int | None = None        # by default what the MSS allows
    fpdu_max: int = 65544            # of a received one, octets
    extensions: bool = True          # RFC 7306
    revision: int = 2                # of MPA
    private: bytes = b""
    rtr: str | None = None           # "write" or "read": ask for peer-to-peer mode
    reject: bool = False             # a responder that turns the request down
    ahead: int = 1 << 16             # octets framed before TCP sends them


class Qp:
    """One connection of a :class:`~emplace_sim.peer.Peer`. ``start``: "done" where MPA's start-up lies behind it."""

    def __init__(self, peer, pd, tcp: TcpEndpoint, settings: QpSettings, *, initiator, start="done", on_start=None):
        self.peer, self.pd, self.tcp, self.settings = peer, pd, tcp, settings
        self.stags, self.events, self.faults = peer.stags, peer.events, tcp.faults
        self.cq = self.recv_cq = peer.cq
        self.initiator, self.gate_open = initiator, initiator
        self.crc, self.ird, self.ord = settings.crc, settings.ird, settings.ord
        self.rtr = None
        self.state = QpState.RTS if start == "done" else QpState.START
        self.requester, self.responder = Requester(self), Responder(self)
        self.deaf = False                # what arrives is not looked at any more
        self.current = b""               # ULPDU at hand
        self.on_start = on_start         # called with the QP once the start-up is about to succeed
        self.private = b""               # the other side's
        self._asked = self._fin_seen = False
        self.counts = Counter()

    # Verbs

    def post_send(self, opcode, sges=(), **fields):
        """Post a work request: ``opcode`` by :class:`Opcode` or its name; fields as in :class:`SendWr`."""
        wr = opcode if isinstance(opcode, SendWr) else SendWr(Opcode(opcode), list(sges), **fields)
        if self.state in (QpState.RTS, QpState.START):
            self.requester.post(wr)
        else:
            self.cq.append(Completion(wr.wr_id, wr.opcode, Status.WR_FLUSH_ERR, 0, self))

    def post_recv(self, sges=(), wr_id=0):
        if self.state in (QpState.RTS, QpState.START):
            self.responder.rq.append(RecvWr(list(sges), wr_id))
        else:
            self.recv_cq.append(Completion(wr_id, Opcode.RECV, Status.WR_FLUSH_ERR, 0, self))

    def expect_read(self, sink, wr_id=0):
        """Let a Read Response come whose request was sent by somebody else."""
        self.requester.expect_read(sink, wr_id)

    def disconnect(self):
        """FIN behind what is framed; what is not flushes once the other side has closed, too."""
        if self.state is QpState.RTS:
            self.state = QpState.CLOSING

    def abort(self):
        """RST."""
        self.tcp.abort(self.tcp.now)
        self._dead("reset by us")

    @property
    def mulpdu(self):
        if self.settings.mulpdu is not None:
            return self.settings.mulpdu
        return self.tcp.tx.mss - (6 + self.tcp.tx.mss % 4)

    @property
    def idle(self):
        """Nothing under way that we sent or owe."""
        r = self.requester
        return not (r.sq or r.inflight or r.answers or r.active or self.tcp.tx.sent or self.tcp.tx.unsent)

    # Time

    def receive(self, segment, now):
        self.tcp.receive(segment, now)
        self._stream()

    def poll(self, now):
        """Frames that may go now."""
        frames = []
        while True:
            self._advance()
            self._fill()
            made = self.tcp.poll(now)
            retired = self.requester.retire()
            if self.tcp.closed_by and self.state is not QpState.ERROR:
                self._dead(self.tcp.closed_by)
            frames += made
            if not made and not retired:                     # what has retired may have held others back
                return frames

    @property
    def next_deadline(self):
        return self.tcp.next_deadline

    def _dead(self, kind):
        """TCP is gone."""
        self.events.append(AsyncEvent(kind, self))
        self.state, self.deaf = QpState.ERROR, True
        self.requester.flush()
        self.responder.flush()

    # Start-up

    def _advance(self):
        if self.state is QpState.START and self.tcp.state is TcpState.ESTABLISHED and self.initiator and not self._asked:
            self._asked = True
            s = self.settings
            enhanced = s.revision >= 2
            self.tcp.tx.push(MpaFrame(False, crc=s.crc, enhanced=enhanced, revision=s.revision, private=s.private, ird=s.ird,
                                      ord=s.ord, p2p=s.rtr is not None and enhanced,
                                      rtr=frozenset([s.rtr] if s.rtr and enhanced else ())).build())
        if self.state is QpState.CLOSING and not self.tcp.tx.fin_wanted and self.requester.active is None \
                and not self.requester.sq and not self.requester.answers:
            self.tcp.close()
        if self.tcp.rx.fin and not self._fin_seen:
            self._fin_seen = True
            self._finished()

    def _finished(self):
        """The peer has closed; there is no half-open RDMA stream."""
        clean = not self.tcp.rx.stream or self.deaf
        self.events.append(AsyncEvent("fin" if clean else "fin within an FPDU", self))
        self.requester.retire()
        if self.state in (QpState.RTS, QpState.CLOSING, QpState.START):
            self.state, self.deaf = QpState.ERROR, True
            self.requester.flush()
            self.responder.flush()
        if not self.tcp.tx.fin_wanted:
            self.tcp.close()

    def _mpa(self):
        """The other side's MPA frame; True once the start-up is done."""
        stream, key = self.tcp.rx.stream, REPLY_KEY if self.initiator else REQUEST_KEY
        size = int.from_bytes(stream[18:20], "big") if len(stream) >= 20 else 0
        if stream[:16] != key[:len(stream)] or size > PRIVATE_MAX:
            self._refuse("bad MPA frame")
            return False
        frame = MpaFrame.parse(bytes(stream))
        if frame is None:
            return False
        if not 1 <= frame.revision <= 2:
            self._refuse("bad MPA frame")
            return False
        del stream[:frame.length]
        self.private = frame.private
        self.crc = self.settings.crc or frame.crc
        return self._reply(frame) if self.initiator else self._answer(frame)

    def _refuse(self, kind):
        self.tcp.abort(self.tcp.now)
        self._dead(kind)

    def _reply(self, frame):
        """An initiator has its reply."""
        if frame.rejected or frame.markers:
            self._refuse("rejected")
            return False
        if frame.enhanced:
            self.ord = min(self.ord, frame.ird)
            if frame.ord > self.ird:
                self.fail(StreamError("insufficient_ird"))
                return False
        if self.settings.rtr and self.settings.revision >= 2:
            if self.settings.rtr not in frame.rtr:
                self.fail(StreamError("no_rtr"))
                return False
            self.rtr = self.settings.rtr
            self.requester.sq.appendleft(_Entry(None))
        self._begin()
        return True

    def _answer(self, frame):
        """A responder has its request."""
        s = self.settings
        rejected = s.reject or frame.markers or s.revision < frame.revision
        choice = next((name for name in ("write", "read") if name in frame.rtr), "write")
        if frame.enhanced:
            self.ord = min(self.ord, frame.ird)
        if not rejected:
            self._begin()
        self.tcp.tx.push(MpaFrame(True, crc=self.crc, rejected=rejected, enhanced=frame.enhanced,
                                  revision=frame.revision, private=s.private, ird=self.ird, ord=self.ord, p2p=frame.p2p,
                                  rtr=frozenset([choice] if frame.p2p else ())).build())
        if rejected:
            self.tcp.close()
            self.state, self.deaf = QpState.ERROR, True
            self.events.append(AsyncEvent("rejected", self))
            self.responder.flush()
            self.requester.flush()
        return not rejected

    def _begin(self):
        self.state = QpState.RTS
        self.events.append(AsyncEvent("established", self))
        if self.on_start:
            self.on_start(self)

    # Stream

    def _stream(self):
        """What has arrived in order."""
        if self.state is QpState.START and not (self.tcp.rx.stream and self._mpa()):
            return
        if self.deaf:
            self.tcp.rx.stream.clear()
            return
        stream = self.tcp.rx.stream
        found = split_fpdus(bytes(stream), self.settings.fpdu_max)
        del stream[:found.rest]
        for fpdu in found.fpdus:
            if self.deaf:
                return
            self.current = fpdu.ulpdu
            self.counts["fpdus"] += 1
            try:
                if self.crc and not fpdu.crc_good:
                    raise StreamError("crc")
                self.gate_open = True
                self.responder.ulpdu(fpdu.ulpdu)
            except StreamError as error:
                self.fail(error)
        if found.bad_length and not self.deaf:
            self.current = b""
            self.fail(StreamError("fpdu_length"))

    def _fill(self):
        """Frame what may go, ahead of TCP."""
        while self.state in (QpState.RTS, QpState.CLOSING) and self.tcp.tx.unsent < self.settings.ahead \
                and not self.tcp.tx.fin_wanted:
            try:
                made = self.requester.next_ulpdu()
            except StreamError as error:
                self.fail(error)
                return
            if made is None:
                return
            ulpdu, entry = made
            self._push(ulpdu)
            if entry is not None:
                entry.end = self.tcp.tx.end

    def _push(self, ulpdu):
        if self.faults.ulpdu:
            ulpdu = self.faults.ulpdu(ulpdu)
        fpdu = build_fpdu(ulpdu, self.crc)
        if self.faults.spend("bad_crc"):
            fpdu = fpdu[:-1] + bytes([fpdu[-1] ^ 1])
        if self.faults.fpdu:
            fpdu = self.faults.fpdu(fpdu)
        self.tcp.tx.push(fpdu)
        self.counts["fpdus_sent"] += 1

    # Ends

    def fail(self, error: StreamError):
        """The stream's first error: a Terminate behind what is framed, flush, FIN."""
        if self.state in (QpState.TERMINATE, QpState.ERROR):
            return
        flags, copied = quote(error.code, error.quoted or self.current)
        if error.name == "local_catastrophic":
            flags, copied = 0, b""
        self.events.append(AsyncEvent("terminate sent", self, error.code, error.name))
        if not self.tcp.tx.fin_wanted:
            self._push(ddp.terminate(error.code, flags=flags, copied=copied))
        self.state, self.deaf = QpState.TERMINATE, True
        if error.wr is not None:
            self.recv_cq.append(Completion(error.wr.wr_id, Opcode.RECV, error.status, 0, self))
            self.responder.wr = None
        self.requester.retire()
        self.requester.flush()
        self.responder.flush()
        self.tcp.close()

    def terminated(self, code, swapped, copied):
        """The peer's Terminate, which is never answered. siw's has its nibbles swapped: ``detail`` shows that reading."""
        self.events.append(AsyncEvent("terminate received", self, code, f"{swapped:#06x} as siw writes it", copied))
        self.requester.retire()
        protection = code >> 8 in (0x01, 0x11)
        self.requester.flush(Status.REM_ACCESS_ERR if protection else Status.REM_OP_ERR)
        self.responder.flush()
        self.state, self.deaf = QpState.ERROR, True
        self.tcp.close()
