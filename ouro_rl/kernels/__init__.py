"""The operations of a layer on rows: which code computes them, and its gradients."""
