"""What to do when memory is too small for a recipe."""

from __future__ import annotations

from separator.training.recipe import Recipe


def what_to_change(recipe: Recipe, device: str) -> str:
    """Return an error that says which option to change, and to what."""
    return (
        f"Out of memory on {device} with data.batch={recipe.data.batch}, "
        f"data.segment={recipe.data.segment:g} and "
        f"checkpointing={str(recipe.checkpointing).lower()}. Try --set {_advice(recipe, device)}."
    )


def _advice(recipe: Recipe, device: str) -> str:
    """Choose what costs least.

    The batch goes first, for gradients can be accumulated to the same sum; then checkpointing,
    which costs time; then precision; and last the segment, which changes what is learned.
    """
    batch, segment = recipe.data.batch, recipe.data.segment
    if batch > 1:
        accumulate = recipe.accumulate * -(-batch // (batch // 2))
        return f"data.batch={batch // 2} --set accumulate={accumulate}, about the same gradients"
    if not recipe.checkpointing:
        return "checkpointing=true: the same numbers, a third slower"
    if recipe.precision == "float32" and not device.startswith("mps"):
        return "precision=bfloat16"
    return f"data.segment={max(round(segment * 0.7, 1), 0.1):g}"
