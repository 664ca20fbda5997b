"""The out-of-distribution score."""
