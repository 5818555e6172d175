"""The look of the app: one light and one dark theme, with the fonts of the user's system only."""

from __future__ import annotations

from typing import Any

UI_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# The page's colours before any style sheet has arrived, those of static/app.css.
_FIRST_PAINT = {
    "body_background_fill": "#f4f2ee",
    "body_background_fill_dark": "#14161a",
    "body_text_color": "#23262b",
    "body_text_color_dark": "#ebe8e2",
}

# Gradio's names of what is coloured, and ours: static/app.css has their values, light and dark.
_COLORS = {
    "body_text_color_subdued": "ink-soft",
    "background_fill_primary": "panel",
    "background_fill_secondary": "page",
    "block_background_fill": "panel",
    "block_border_color": "line",
    "block_info_text_color": "ink-soft",
    "block_label_background_fill": "panel",
    "block_label_text_color": "ink-soft",
    "block_title_text_color": "ink",
    "border_color_accent": "accent",
    "border_color_primary": "line",
    "button_cancel_background_fill": "panel",
    "button_cancel_text_color": "ink",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_border_color": "accent",
    "button_primary_border_color_hover": "accent-strong",
    "button_primary_text_color": "on-accent",
    "button_secondary_background_fill": "panel",
    "button_secondary_background_fill_hover": "well",
    "button_secondary_border_color": "line-strong",
    "button_secondary_border_color_hover": "line-strong",
    "button_secondary_text_color": "ink",
    "checkbox_background_color": "field",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "line-strong",
    "checkbox_border_color_hover": "accent",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "panel",
    "checkbox_label_background_fill_hover": "well",
    "checkbox_label_background_fill_selected": "accent-faint",
    "checkbox_label_border_color": "line",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "color_accent": "accent",
    "color_accent_soft": "accent-faint",
    "error_background_fill": "panel",
    "error_text_color": "bad",
    "input_background_fill": "field",
    "input_background_fill_focus": "field",
    "input_border_color": "line-strong",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "ink-soft",
    "link_text_color": "accent-ink",
    "link_text_color_hover": "accent-ink",
    "link_text_color_visited": "accent-ink",
    "loader_color": "accent",
    "slider_color": "accent",
    "table_border_color": "line",
    "table_even_background_fill": "panel",
    "table_odd_background_fill": "panel",
    "table_row_focus": "accent-faint",
    "table_text_color": "ink",
}
_SHAPES = {
    "block_border_width": "1px",
    "block_label_border_width": "0px",
    "block_padding": "12px",
    "block_radius": "10px",
    "block_shadow": "none",
    "block_title_text_size": "13px",
    "block_title_text_weight": "600",
    "button_large_padding": "11px 18px",
    "button_large_radius": "8px",
    "button_large_text_size": "15px",
    "button_large_text_weight": "600",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "button_small_radius": "8px",
    "button_medium_radius": "8px",
    "button_transform_hover": "none",
    "checkbox_label_padding": "5px 8px",
    "checkbox_label_shadow": "none",
    "checkbox_shadow": "none",
    "container_radius": "10px",
    "form_gap_width": "0px",
    "input_border_width": "1px",
    "input_padding": "8px 10px",
    "input_radius": "8px",
    "input_shadow": "none",
    "input_shadow_focus": "none",
    "layout_gap": "14px",
    "shadow_drop": "none",
    "shadow_drop_lg": "0 4px 18px rgb(0 0 0 / 0.16)",
}


def make_theme() -> Any:
    """Build the theme for Gradio; no font is fetched from anywhere."""
    import gradio as gr

    theme = gr.themes.Base(font=list(UI_FONTS), font_mono=list(MONO_FONTS))
    known = vars(theme)
    colors = {name: f"var(--{ours})" for name, ours in _COLORS.items()}
    dark = {f"{name}_dark": value for name, value in colors.items() if f"{name}_dark" in known}
    return theme.set(**_FIRST_PAINT, **colors, **dark, **_SHAPES)
