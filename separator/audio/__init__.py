"""Decoding, encoding and resampling of audio, as streams of float32 blocks (channels, time)."""
