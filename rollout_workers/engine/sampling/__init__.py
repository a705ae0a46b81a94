"""What happens to a row after its pass: exit, token, end of the sample."""
