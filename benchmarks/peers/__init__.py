"""What people run otherwise, each a program of its own that needs nothing of mapd."""
