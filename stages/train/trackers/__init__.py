"""Where a run is reported. Nothing here changes what is trained, so none of it is part of the stage's identity."""
