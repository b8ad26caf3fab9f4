"""Emplace: an iWARP RDMA network card in Amaranth."""
