"""Parts of both trainings: the stream of data, checkpoints, TensorFlow's devices, and the export to LiteRT."""
