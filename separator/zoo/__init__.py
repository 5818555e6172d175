"""Models by name: find a card, get its weights, build its network.

```
find_card(name) -> Card -> weights_path(card) -> load_network(card)
search             cards   weights               load
                           bundled, cached or downloaded; always verified
```
"""
