"""The spectral domain that all networks share: STFT, bands, masks, frames."""
