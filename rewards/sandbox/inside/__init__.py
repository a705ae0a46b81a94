"""The code that runs inside a sandbox: the fork server and its children. Needs only the standard library."""
