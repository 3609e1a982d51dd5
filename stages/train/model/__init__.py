"""The model that is trained: loaded, sized to the tokenizer, frozen in parts, in the numbers that were asked for."""
