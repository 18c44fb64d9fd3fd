"""What crosses a link, as bytes and as Structs. Written down in docs/protocol.md."""
