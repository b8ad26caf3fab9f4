"""What the core needs to know of PCI Express configuration space."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

__all__ = ["Cfg"]

#: Driven by the hard core (in simulation, by the endpoint model). Sizes are encoded as in Device Control
#: (PCIe Base Specification 7.5.3.4): 128 << n bytes.
Cfg = wiring.Signature({
    "id":          Out(16),      # bus 15:8, device 7:3, function 2:0
    "bus_master":  Out(1),       # the card may send requests
    "max_payload": Out(3),       # Max_Payload_Size
    "max_read":    Out(3),       # Max_Read_Request_Size
    "ext_tag":     Out(1),       # 8-bit tags allowed; the read engine needs no more than 5 bits
    "msix_enable": Out(1),
    "msix_mask":   Out(1),       # function mask
})
