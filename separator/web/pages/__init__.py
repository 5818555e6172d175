"""The pages of the app, one module each; `build` puts its page into the Gradio layout."""
