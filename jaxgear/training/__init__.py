"""Steps, the loop that compiles them, and what a run leaves on disk."""
