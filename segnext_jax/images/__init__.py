"""Bytes to arrays and back: photographs, masks, label files, pictures for people."""
