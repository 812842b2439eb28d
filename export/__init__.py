"""Export: a brain as ONNX graphs with carried state, quantized, measured, and run by a few lines of numpy."""
