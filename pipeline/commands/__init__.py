"""What `regrow` can do, by subject. Thin: each command finds the project, calls one function, and prints."""
