"""PCI Express around a card that speaks raw TLPs: cocotbext-pcie's root complex at the other end.

From the card outwards: :class:`StreamTlpPort` (whole TLPs over its two packet streams),
:class:`TlpStreamEndpoint` (the hard core: configuration space here, all else to and from the card, each TLP checked
against the rules that a root complex relies on), :class:`TlpDevice`, and
:class:`~emplace_sim.pcie_completer.ReadCompleter` in place of the root complex' own answers.
``bypass_link`` takes the simulated link out of the path; it makes everything four times as fast.
"""

import random
from collections import deque

import cocotb
from cocotb.triggers import Event, First, RisingEdge
from cocotb.utils import get_sim_steps
from cocotbext.pcie.core import Device, Endpoint
from cocotbext.pcie.core.caps import MsixCapability
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType

__all__ = ["StreamTlpPort", "TlpStreamEndpoint", "TlpDevice", "bypass_link", "lazy_dllps", "MEM_READ", "MEM_WRITE"]

MEM_READ = {TlpType.MEM_READ, TlpType.MEM_READ_64}
MEM_WRITE = {TlpType.MEM_WRITE, TlpType.MEM_WRITE_64}
CPL = {TlpType.CPL, TlpType.CPL_DATA, TlpType.CPL_LOCKED, TlpType.CPL_LOCKED_DATA}


#: Bytes per word by width of the payload port: {err, last, empty, data}.
_NBYTES = {8 * nbytes + nbytes.bit_length() + 1: nbytes for nbytes in (8, 16)}


def _split(packet, err, nbytes):
    """``packet`` as integers for the payload port."""
    words = [int.from_bytes(packet[n:n + nbytes], "little") for n in range(0, len(packet), nbytes)]
    empty = 8 * nbytes
    last = empty + nbytes.bit_length() - 1
    words[-1] |= -len(packet) % nbytes << empty | 1 << last | int(err) << last + 1
    return words



class StreamTlpPort:
    """Whole TLPs over the DUT's two packet streams, both in one coroutine, asleep while both are idle.

    Words have 8 or 16 bytes, as the ports have. ``stall`` is the probability of refusing a word from the DUT in a
    cycle, ``gap`` that of a pause before a word to it. ``depth`` packets from the DUT wait here, then ``ready`` falls.
    """

    def __init__(self, dut, *, tx="tx_tlp", rx="rx_tlp", depth=4, stall=0.0, gap=0.0, seed=0):
        self.depth = depth
        self.outbox = deque()            # (packet, err, done): host to card
        self.inbox = deque()             # (packet, err): card to host, not yet fetched
        self._wake, self._arrived = Event(), Event()
        self.clk = dut.clk
        self.tx = [getattr(dut, f"{tx}__{name}") for name in ("payload", "valid", "ready")]
        self.rx = [getattr(dut, f"{rx}__{name}") for name in ("payload", "valid", "ready")]
        self.nbytes = _NBYTES[len(self.tx[0])]
        self.stall, self.gap = stall, gap
        self.random = random.Random(seed).random
        self.beats = 0
        cocotb.start_soon(self._run())

    def send(self, packet, *, err=False, done=None):
        """Queue ``packet``; ``done()`` is called when the DUT has taken all of it."""
        self.outbox.append((packet, err, done))
        self._wake.set()

    async def recv(self):
        """The next (packet, err) from the DUT. Until it is fetched it fills ``depth``."""
        while not self.inbox:
            self._arrived.clear()
            await self._arrived.wait()
        item = self.inbox.popleft()
        self._wake.set()
        return item

    def _deliver(self, packet, err):
        self.inbox.append((packet, err))
        self._arrived.set()

    async def _run(self):
        tx_payload, tx_valid, tx_ready = self.tx
        rx_payload, rx_valid, rx_ready = self.rx
        nbytes = self.nbytes
        at_empty = 8 * nbytes
        at_last, data_mask = at_empty + nbytes.bit_length() - 1, (1 << at_empty) - 1
        tx_ready.value = rx_valid.value = rx_payload.value = 0
        # Reading through the GPI handle skips building a LogicArray: wide vectors come as a string.
        get_payload = tx_payload._handle.get_signal_val_binstr
        get_valid = tx_valid._handle.get_signal_val_binstr
        get_ready = rx_ready._handle.get_signal_val_binstr
        edge, risen = RisingEdge(self.clk), RisingEdge(tx_valid)
        words, done = deque(), None      # rest of the packet on its way to the DUT
        packet = bytearray()             # start of the packet on its way from it
        ready = valid = shown = 0        # what we drive; ``valid`` becomes ``shown`` below
        await edge
        while True:
            # At the edge every signal still has the value the DUT's registers sample.
            idle = True
            if get_valid() == "1":
                idle = False
                if ready:
                    self.beats += 1
                    word = int(get_payload(), 2)
                    packet += (word & data_mask).to_bytes(nbytes, "little")
                    if word >> at_last & 1:
                        empty = word >> at_empty & nbytes - 1
                        self._deliver(bytes(packet[:len(packet) - empty]), bool(word >> at_last + 1 & 1))
                        packet = bytearray()
            if valid and get_ready() == "1":
                self.beats += 1
                words.popleft()
                valid = 0
                if not words and done:
                    done()
            if not valid:
                if not words and self.outbox:
                    data, err, done = self.outbox.popleft()
                    words.extend(_split(data, err, nbytes))
                if words and not (self.gap and self.random() < self.gap):
                    rx_payload.value = words[0]
                    valid = 1
                if valid != shown:
                    rx_valid.value = shown = valid
            want = len(self.inbox) < self.depth and not (self.stall and self.random() < self.stall)
            if want != ready:
                tx_ready.value = ready = int(want)
            if idle and not words and not packet:
                self._wake.clear()
                if not self.stall and len(self.inbox) < self.depth and not ready:
                    tx_ready.value = ready = 1
                await First(risen, self._wake.wait())
            await edge


class TlpStreamEndpoint(Endpoint):
    """Configuration space in Python, memory requests and completions to the DUT as bytes.

    ``bars`` maps an index to (size, 64-bit?). ``msix`` is (vectors, BAR, table offset, PBA
    offset); the table itself is the DUT's, as with most hard IP: the host writes it through the
    BAR, and this class keeps the enable and mask bits alone. What the DUT may need of
    configuration space is driven on its ``cfg__*`` ports, those it has. ``cpl_buffer`` is what a
    hard IP has room for: reads may not be outstanding for more bytes, as completion credits are
    infinite and nothing else would stop the host. ``drop_unexpected``: completions for no
    outstanding read stay away from the DUT, as with some hard IP.
    """

    def __init__(self, dut, port, *, bars, msix=None, max_payload=512, ext_tag=True, vendor=0x1234, device=0x5244,
                 class_code=0x020000, strict=True, cpl_buffer=None, drop_unexpected=False):
        super().__init__()
        self.dut, self.port, self.strict, self.cpl_buffer = dut, port, strict, cpl_buffer
        self.drop_unexpected = drop_unexpected
        self.vendor_id, self.device_id, self.class_code = vendor, device, class_code
        self.pcie_cap.max_payload_size_supported = (max_payload // 128).bit_length() - 1
        self.pcie_cap.extended_tag_supported = ext_tag
        for index, (size, wide) in bars.items():
            self.configure_bar(index, size, ext=wide, prefetch=wide)
        self.msix_cap = None
        if msix:
            vectors, bar, table, pba = msix
            self.msix_cap = cap = MsixCapability()
            cap.msix_table_size = vectors - 1
            cap.msix_table_bar_indicator_register = cap.msix_pba_bar_indicator_register = bar
            cap.msix_table_offset, cap.msix_pba_offset = table, pba
            self.register_capability(cap)
        self.outstanding = {}            # tag -> bytes still owed to the DUT's read
        self.owed = {}                   # (requester, tag) -> bytes the DUT owes the host
        self.tx_count = self.rx_count = 0
        self.unexpected = 0              # completions for no outstanding read
        self._drive_cfg()
        cocotb.start_soon(self._from_dut())

    # configuration

    def _drive_cfg(self):
        cap, msix = self.pcie_cap, self.msix_cap
        values = {
            "id": int(self.pcie_id),
            "bus_master": self.bus_master_enable,
            "max_payload": cap.max_payload_size,
            "max_read": cap.max_read_request_size,
            "ext_tag": cap.extended_tag_field_enable,
            "msix_enable": bool(msix and msix.msix_enable),
            "msix_mask": bool(msix and msix.msix_function_mask),
        }
        for name, value in values.items():
            handle = getattr(self.dut, f"cfg__{name}", None)
            if handle is not None:
                handle.value = int(value)

    @property
    def max_payload(self):
        return 128 << self.pcie_cap.max_payload_size

    @property
    def max_read(self):
        return 128 << self.pcie_cap.max_read_request_size

    # host to card

    async def handle_tlp(self, tlp):
        kind = tlp.fmt_type
        if kind in CPL:
            left = self.outstanding.get(tlp.tag)
            if left is None:
                self.unexpected += 1
                self.log.warning("Completion for no outstanding read, tag %d", tlp.tag)
                if self.drop_unexpected:
                    tlp.release_fc()
                    return
            else:
                got = tlp.length * 4 - (tlp.lower_address & 3) if tlp.status == CplStatus.SC else left
                if got >= tlp.byte_count or tlp.status != CplStatus.SC:
                    del self.outstanding[tlp.tag]
                else:
                    self.outstanding[tlp.tag] = left - got
        elif kind in MEM_READ:
            if not self.memory_space_enable:
                tlp.release_fc()
                await self.send(Tlp.create_ur_completion_for_tlp(tlp, self.pcie_id))
                return
            self.owed[int(tlp.requester_id), tlp.tag] = max(tlp.get_be_byte_count(), 1)
        elif kind in MEM_WRITE:
            if not self.memory_space_enable:
                tlp.release_fc()
                return
        else:
            await super().handle_tlp(tlp)
            self._drive_cfg()
            return
        self.rx_count += 1
        # Credits go back when the DUT has taken the TLP: its back-pressure reaches the link.
        self.port.send(bytes(tlp.pack()), done=tlp.release_fc)

    # card to host

    async def _from_dut(self):
        while True:
            packet, err = await self.port.recv()
            self.tx_count += 1
            if err:                      # err nullifies the packet, as a link would
                continue
            tlp = Tlp.unpack(packet)
            if self.strict:
                self.check_dut_tlp(tlp, packet)
            if tlp.fmt_type in MEM_READ:
                self.outstanding[tlp.tag] = max(tlp.get_be_byte_count(), 1)
            await self.send(tlp)

    def check_dut_tlp(self, tlp, packet):
        """Assert that a TLP from the DUT keeps the rules. An error here fails the test."""
        what = repr(tlp)
        kind = tlp.fmt_type
        payload = len(tlp.data)
        assert len(packet) % 4 == 0, f"not a whole number of DWORDs: {what}"
        assert payload == (tlp.length * 4 if tlp.has_data() else 0), f"length: {what}"
        assert payload <= self.max_payload, f"over Max_Payload_Size {self.max_payload}: {what}"
        assert not tlp.td, f"digest not supported: {what}"
        if kind in MEM_READ | MEM_WRITE:
            assert self.bus_master_enable, f"bus mastering is off: {what}"
            assert tlp.requester_id == self.pcie_id, f"requester ID: {what}"
            assert tlp.address % 4096 + tlp.length * 4 <= 4096, f"crosses 4 KiB: {what}"
            wide = tlp.get_header_size() == 16
            assert wide == (tlp.address >= 1 << 32), f"3DW/4DW header against the address: {what}"
            contiguous_first = {0, 1, 2, 4, 8, 3, 6, 12, 7, 14, 15} if tlp.length == 1 else {8, 12, 14, 15}
            assert tlp.first_be in contiguous_first, f"first byte enables: {what}"
            assert tlp.last_be in ({0} if tlp.length == 1 else {1, 3, 7, 15}), f"last byte enables: {what}"
        if kind in MEM_READ:
            assert tlp.length * 4 <= self.max_read, f"over Max_Read_Request_Size {self.max_read}: {what}"
            assert tlp.tag < (256 if self.pcie_cap.extended_tag_field_enable else 32), f"tag: {what}"
            assert tlp.tag not in self.outstanding, f"tag in use: {what}"
            owed = sum(self.outstanding.values()) + tlp.length * 4
            assert self.cpl_buffer is None or owed <= self.cpl_buffer, f"{owed} bytes outstanding: {what}"
        if kind in CPL:
            key = int(tlp.requester_id), tlp.tag
            assert key in self.owed, f"completion for nothing: {what}"
            assert tlp.completer_id == self.pcie_id, f"completer ID: {what}"
            if tlp.status == CplStatus.SC:
                assert tlp.byte_count == self.owed[key], f"byte count, want {self.owed[key]}: {what}"
                self.owed[key] -= payload - (tlp.lower_address & 3)
            if tlp.status != CplStatus.SC or self.owed[key] <= 0:
                del self.owed[key]

    def forget(self, tag):
        """Give up on a read whose completion was dropped on purpose, so its tag may be reused."""
        self.outstanding.pop(tag, None)


class TlpDevice(Device):
    """A Device with one TlpStreamEndpoint; ``speed`` and ``width`` make the link take time."""

    def __init__(self, endpoint, *, speed=None, width=None):
        super().__init__(endpoint)
        self.endpoint = endpoint
        self.upstream_port.max_link_speed = speed
        self.upstream_port.max_link_width = width


def lazy_dllps(*ports, ns=500):
    """Acknowledge and return credits at most every ``ns`` on these SimPorts, not after each TLP.

    Without a speed the link takes no time and its timers are 0, for two DLLPs per TLP.
    """
    for port in ports:
        port.max_latency_timer_steps = get_sim_steps(ns, "ns")


def bypass_link(rc, device):
    """Hand TLPs straight between ``rc`` and ``device`` (call it after enumeration).

    Saves the switch queues, the link and its DLLPs, which cost more than all the rest. Transfers then
    take no time and know no credits, in order all the same; configuration requests keep the long way
    down. Bandwidth and credit exhaustion can only be tested without this.
    """
    downstream_send = rc.send

    async def send(tlp):
        for function in device.functions:
            if tlp.fmt_type not in CFG and function.match_tlp(tlp):
                return await function.upstream_recv(tlp)
        await downstream_send(tlp)

    CFG = {TlpType.CFG_READ_0, TlpType.CFG_WRITE_0, TlpType.CFG_READ_1, TlpType.CFG_WRITE_1}
    rc.send = send
    for function in device.functions:
        function.upstream_tx_handler = rc.handle_tlp
