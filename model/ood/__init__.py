"""The out-of-distribution score. Needs the extra ``train``; served graphs contain it."""
