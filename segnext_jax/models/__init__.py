"""The network: MSCAN encoder, Hamburger decoder, SegNeXt."""
