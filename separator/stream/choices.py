"""What a run can be asked for, by name; light, so that `--help` can list it at once."""

from __future__ import annotations

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda", "mps")
AUGMENTATIONS = ("swap", "polarity")
