"""MPA: TCP's octets to ULPDUs. request -> walk -> reader (slots to dense words) -> cutter (FPDUs, CRC) -> hold -> DDP."""
