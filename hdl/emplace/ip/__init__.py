"""From frames to segments of installed connections: `align` shows a frame as words of its IPv4 packet; `header`,
`checksum`, `options`, `lookup` and `payload` look at them side by side; `judge` decides; `layer` wires."""
