"""The index at scale: synthetic studies, what a search of them costs, how that grows."""
