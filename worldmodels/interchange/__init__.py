"""Artifacts out of a store and into one: files, ONNX, Keras, data sets, model cards."""
