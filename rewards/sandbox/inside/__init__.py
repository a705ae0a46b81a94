"""What runs inside a sandbox: a fork server and what its children do. Needs the standard library alone."""
