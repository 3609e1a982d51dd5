"""What the stages share: options, artifacts, the runner. Imports no stage; only the CLI opens them, lazily."""
