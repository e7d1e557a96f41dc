"""The fault bench: real app processes, real kills, a server that fails in every way, and an oracle that counts."""
