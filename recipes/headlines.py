"""How to bring your own format: a function from a row of your data to a row with `messages`.

params.yaml names it as a dataset's `type`. This one turns a row of OpenAI evals' `sarcasm` task,
`{"input": [{"role": "system", ...}, {"role": "user", "content": headline}], "ideal": "0" or "1"}`, into a short question.
"""

ANSWERS = {"0": "no", "1": "yes"}


def to_messages(row: dict) -> dict:
    headline = row["input"][-1]["content"]
    return {
        "messages": [
            {"role": "user", "content": f"Is this headline sarcastic? {headline}"},
            {"role": "assistant", "content": ANSWERS[row["ideal"]]},
        ]
    }
