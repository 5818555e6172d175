"""Train networks: recipes, data, losses, the loop, export; songs composed for it."""
