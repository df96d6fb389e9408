"""V: what it is, how it is trained, and the latents that it makes of every frame."""
