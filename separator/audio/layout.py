"""Speaker layouts: which channels of a file belong together.

A layout is a tuple of speaker names in the order of the channels, in FFmpeg's spelling, e.g.
`("FL", "FR", "FC", "LFE", "SL", "SR")`. WAVE files with a channel mask, flac, opus and AAC use the
same order.
"""

from __future__ import annotations

Layout = tuple[str, ...]

_DEFAULTS: dict[int, Layout] = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

_PARTNERS = {
    "FL": "FR",
    "BL": "BR",
    "SL": "SR",
    "FLC": "FRC",
    "TFL": "TFR",
    "TBL": "TBR",
    "TSL": "TSR",
    "BFL": "BFR",
    "WL": "WR",
    "DL": "DR",
    "SDL": "SDR",
    "SSL": "SSR",
}

# fmt: off
WAVE_ORDER = (  # the bits of a channel mask
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC",
    "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR",
)
# fmt: on


def default_layout(channels: int) -> Layout | None:
    """Return the layout that flac and WAVE assume for 1 to 8 channels, `None` for more."""
    return _DEFAULTS.get(channels)


def channel_pairs(channels: int, layout: Layout | None = None) -> list[tuple[int, ...]]:
    """Return how channels are separated: left/right pairs as stereo, the others as mono.

    A file that doesn't say where its speakers stand is assumed to follow the usual order of flac
    and WAVE (for 5.1: FL FR FC LFE and two surrounds). Beyond eight channels, neighbours are pairs.

    >>> channel_pairs(6)
    [(0, 1), (2,), (3,), (4, 5)]
    >>> channel_pairs(3, ("FL", "FC", "FR"))
    [(0, 2), (1,)]
    """
    names = layout if layout and len(layout) == channels else default_layout(channels)
    if names is None:
        return [tuple(range(i, min(i + 2, channels))) for i in range(0, channels, 2)]
    partners = {i: names.index(_PARTNERS[n]) for i, n in enumerate(names) if _partnered(n, names)}
    taken = set(partners.values())
    return [(i, partners[i]) if i in partners else (i,) for i in range(channels) if i not in taken]


def _partnered(name: str, names: Layout) -> bool:
    return _PARTNERS.get(name) in names
