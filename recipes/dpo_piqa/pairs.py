"""From rows of PIQA (arXiv 1911.11641) to pairs of answers: which of two ways to do something works.

params.yaml names this function as the dataset's `type`; with `rl` it returns the texts of prompt, better and worse answer.
"""


def to_pair(row: dict) -> dict:
    """`{"goal": ..., "sol1": ..., "sol2": ..., "label": 0 or 1}`: the label says which of the two is right."""
    answers = [row["sol1"], row["sol2"]]
    right = int(row["label"])
    return {
        "prompt": f"<|im_start|>user\n{row['goal']}<|im_end|>\n<|im_start|>assistant\n",
        "chosen": f"{answers[right]}<|im_end|>",
        "rejected": f"{answers[1 - right]}<|im_end|>",
    }
