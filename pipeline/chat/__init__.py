"""`regrow chat`: talk to a model that the pipeline made, in the terminal or on a page, with the template it was trained with."""
