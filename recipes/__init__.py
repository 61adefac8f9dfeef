"""Whole jobs over several rooms: the demo, the paper's tables, ConVIRT trained end to end."""
