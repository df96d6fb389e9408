"""V: its model, its training, and the latents of all stored frames."""
