"""The web app: drop a song, play with its stems.

```
pages/ (Gradio) ──> Service ──> Queue ──> ModelPool ──> Song on disk
                                                           │
static/ (the player, plain JavaScript)  <──  routes  <─────┘
```
The logic knows nothing of Gradio; the pages know nothing of audio.
"""
