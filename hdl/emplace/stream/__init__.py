"""Packet streams: the word, queues, realignment, arbitration, clock crossing."""
