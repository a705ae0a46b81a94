"""Static-shape passes and their CUDA graphs."""
