"""The plain frame path: what the card does not carry, between the wire and the host."""
