"""A layer's operations on rows: the kernels that compute them, and their gradients."""
