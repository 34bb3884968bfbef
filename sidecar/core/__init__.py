"""The protocol without I/O: bytes and time in, bytes and effects out."""
