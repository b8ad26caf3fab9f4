"""Records of ``emplace.abi`` as bytes, and back: little-endian, the first field lowest."""

from amaranth.lib import data

__all__ = ["pack", "unpack"]


def _put(shape, value):
    if isinstance(shape, data.StructLayout):
        unknown = set(value) - {name for name, _ in shape}
        if unknown:
            raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
        return sum(_field(name, field, value[name]) for name, field in shape if name in value)
    if isinstance(shape, data.ArrayLayout):
        return sum(_field(index, field, value[index]) for index, field in shape)
    return int(value)


def _field(name, field, value):
    bits = _put(field.shape, value)
    if not 0 <= bits < 1 << field.width:
        raise ValueError(f"{name}: {bits:#x} does not fit {field.width} bits")
    return bits << field.offset


def pack(layout, values) -> bytes:
    """Bytes of a record; fields that ``values`` leaves out are 0. ValueError for what does not fit."""
    return _put(layout, values).to_bytes(layout.size // 8, "little")


def _get(shape, bits):
    if isinstance(shape, data.StructLayout):
        return {name: _get(field.shape, bits >> field.offset & (1 << field.width) - 1) for name, field in shape}
    if isinstance(shape, data.ArrayLayout):
        items = [_get(field.shape, bits >> field.offset & (1 << field.width) - 1) for _, field in shape]
        return bytes(items) if shape.elem_shape == 8 else items
    return bits


def unpack(layout, record: bytes) -> dict:
    """Fields of a record; arrays of bytes as bytes."""
    return _get(layout, int.from_bytes(record, "little"))
