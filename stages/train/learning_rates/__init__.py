"""Learning-rate schedules: by formula from the step alone, or from what evaluations measure."""
