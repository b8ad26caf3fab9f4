"""CRCs as matrices over GF(2).

A matrix is a list of rows; row *n* is an int whose set bits name the input bits that are added up in
output bit *n*. State is the CRC register before the final complement, reflected (bit 0 is the next
one out), data are bytes with the first one lowest, as on Ethernet (IEEE Std 802.3 §3.2.9).
"""

from amaranth.hdl import Cat, Value

__all__ = ["CRC32", "CRC32_RESIDUE", "CRC32C", "linear", "inverse", "data_matrix", "zero_matrix", "advance", "apply"]

CRC32 = 0xEDB88320       # Ethernet, reflected
CRC32_RESIDUE = 0xDEBB20E3               # state after a frame and its right FCS
CRC32C = 0x82F63B78      # Castagnoli, reflected


def advance(poly, state, data):
    """State after the bytes ``data``."""
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (poly if state & 1 else 0)
    return state


def linear(function, n_in, n_out=32):
    """Matrix of a linear ``function`` from int to int."""
    columns = [function(1 << n) for n in range(n_in)]
    return [sum((column >> row & 1) << n for n, column in enumerate(columns)) for row in range(n_out)]


def inverse(matrix):
    """Inverse of a square matrix (Gauss-Jordan)."""
    size = len(matrix)
    rows = [row | 1 << size + n for n, row in enumerate(matrix)]
    for n in range(size):
        pivot = next(m for m in range(n, size) if rows[m] >> n & 1)
        rows[n], rows[pivot] = rows[pivot], rows[n]
        rows = [row ^ rows[n] if m != n and row >> n & 1 else row for m, row in enumerate(rows)]
    return [row >> size for row in rows]


def data_matrix(poly, nbytes):
    """What ``nbytes`` data bytes add to the state. If there are at least 4, the old state can simply be added to the
    first 4: the new state is the product with ``data ^ state``."""
    return linear(lambda bits: advance(poly, 0, bits.to_bytes(nbytes, "little")), 8 * nbytes)


def zero_matrix(poly, nbytes):
    """What ``nbytes`` zero bytes do to the state. Their inverse takes them back."""
    return linear(lambda state: advance(poly, state, bytes(nbytes)), 32)


def apply(matrix, value):
    """The product, as one Amaranth value. ``value`` should be a signal: each bit is used many times."""
    value = Value.cast(value)
    return Cat(Cat(value[n] for n in range(len(value)) if row >> n & 1).xor() if row else 0 for row in matrix)
