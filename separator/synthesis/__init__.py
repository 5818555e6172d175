"""Synthetic multitracks: a seeded composer, instruments, drums, a voice, effects and a mix bus."""

from __future__ import annotations

from separator.synthesis.oscillators import SAMPLE_RATE
from separator.synthesis.song import STEMS, Palette, render_song

__all__ = ["SAMPLE_RATE", "STEMS", "Palette", "render_song"]
