"""From the text of a params.yaml to values that are checked, or to the list of what is wrong with them."""
