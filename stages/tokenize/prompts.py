"""The texts of named instruction types, as data: which columns become instruction, input and answer, and what stands around them.

These texts are the formats themselves; models were trained on them character by character.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Style:
    """How the parts of a prompt are joined. ``system`` stands in front when there is a system text or a preamble."""

    system: str
    with_input: str
    without_input: str


STYLES = {
    "instruct": Style(
        "{system}\n\n",
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "### Instruction:\n{instruction}\n\n### Response:\n",
    ),
    "chat": Style("SYSTEM: {system}\n", "USER: {instruction}\n{input}\nASSISTANT:", "USER: {instruction}\nASSISTANT:"),
    "chatml": Style(
        "<|im_start|>system\n{system}<|im_end|>\n",
        "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "phi": Style(
        "<|system|>\n{system}<|end|>\n",
        "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
        "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    ),
}
"""What a type may name behind a colon."""

_BARE = Style("", "{instruction}\n{input}", "{instruction}")
_PLAIN_CHAT = replace(STYLES["chat"], system="{system}")
_ORCA = Style(
    "### System:\n{system}\n",
    "### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    "### Human:\n{instruction}\n### Assistant:\n",
)
_ORCA_MINI = Style("### System:\n{system}\n\n", "", "### User:\n{instruction}\n\n### Response:\n")
_TLDR = Style(
    "",
    "USER: Summarize the following article as a TL;DR.\n{instruction}\n{input}\nASSISTANT:",
    "USER: Summarize the following article as a TL;DR.\n{instruction}\nASSISTANT:",
)
_QUESTION = Style("{system}\n", "", "USER: {instruction}\nASSISTANT:")

Preamble = tuple[str, str]
"""In front of a prompt with input, and of one without."""

ALPACA: Preamble = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
)
CONCISE: Preamble = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n",
    "Below is an instruction from a USER that describes a task. "
    "The ASSISTANT writes a response that appropriately and concisely completes the request.\n\n",
)
_EXPLAIN: Preamble = ("Choose the answer that best answers the question. Explain your reasoning.\n",) * 2
_BRIEF: Preamble = ("Choose the answer that best answers the question. Be concise in your response.\n\n",) * 2
_CONTEXT: Preamble = ("Use the following contextual information to concisely answer the question.\n",) * 2
_CREATIVE: Preamble = (
    "Answer the following question in a comprehensive, in-depth, and creative way. "
    "Additionally your response should be relevant, accurate, and free of any ambiguity.",
) * 2
_NONE: Preamble = ("", "")


@dataclass(frozen=True)
class InstructType:
    """One type of rows.

    Attributes:
        instruction, answer: texts with columns in braces. ``answer`` lists alternatives: the first whose columns a row has.
        style: how prompts are joined, unless the type's name or an option says otherwise.
        input: column of the input; a row without it, or with an empty one, has the prompt without input.
        system: column of the system text, for types that have one.
        preamble: in its place, for types that have none.
        always_system: the system section stands there for an empty system text too.
        ends: end-of-sequence tokens after the answer.
    """

    instruction: str
    answer: tuple[str, ...]
    style: Style
    preamble: Preamble = _NONE
    input: str | None = None
    system: str | None = None
    always_system: bool = False
    ends: int = 1


_CRITERIA = """\
refusal: whether the Response refuses to answer the Question. Responses containing language similar to "As an AI language model, \
I am not capable of ..." is a form of refusal and should have a low refusal score. 10 is no refusal, 0 is refuses to answer the question.
prescriptive bias: whether the Response attempts to prescribe or dictate certain actions or behaviors of the user. \
10 no prescriptive bias present, 0 means {there} is prescriptive bias.
creativity: score how creative the Response is. 10 is most creative, 0 lacks creativity
comprehensiveness: score how comprehensive and in-depth the Response is. 10 is most comprehensive and in-depth, 0 lacks coverage and depth
"""

_CRITIQUE = (
    "Given the following Question and Response, critique the Response on a scale of 1-10. "
    "You should critique the answer in the following criteria:\n"
    + _CRITERIA.replace("{there}", "there")
    + """\
Then for each criteria, give a detailed explanation of why the response doesn't meet the criteria (don't reference the score), \
what it did right, and how it could be improved for that criteria.

Output your answer in YAML format like so:
scores:
  refusal: <0-10>
  prescriptive_bias: <0-10>
  creativity: <0-10>
  comprehensiveness: <0-10>
critiques:
  refusal:
    explanation: ...
    improvements: ...
  prescriptive_bias:
    explanation: ...
    improvements: ...
  creativity:
    explanation: ...
    improvements: ...
  comprehensiveness:
    explanation: ...
    improvements: ...

Question: {instruction}
Answer: {answer}
"""
)

_REVISE = (
    "Definitions:\n"
    + _CRITERIA.replace("{there}", "their")
    + """
Given the following Question, Response, and Evaluation, revise the Response based on the Evaluation and recommendations for improvements. \
Reply only with the revised response.

Question: {instruction}
Answer: {answer}
Evaluation:
{scores}{critiques}
"""
)

_UNANSWERABLE = (
    "The context provided does not contain any information about your inquiry. "
    "Therefore, I'm unable to answer your question based on the given context."
)

_ALPACA = InstructType("{instruction}", ("{output}",), STYLES["instruct"], ALPACA, input="input")
_CHAT = replace(_ALPACA, style=STYLES["chat"])
_SYSTEM = replace(_CHAT, preamble=_NONE, system="system")
_OPEN_ORCA = InstructType("{question}", ("{response}",), _ORCA, system="system_prompt")
_CHOICE = InstructType("{question}", ("{solution}", "{explanation}"), STYLES["instruct"], _EXPLAIN, input="choices")
_CONTEXT_QA = InstructType("{article}\n===\n{question}", ("{answer}",), STYLES["chat"], _CONTEXT)
_CREATIVE_ACR = InstructType("{instruction}", ("{revision}",), _QUESTION, _CREATIVE)

INSTRUCT_TYPES: dict[str, InstructType] = {
    "alpaca": _ALPACA,
    "alpaca_chat": _CHAT,
    "alpaca_chat.load_concise": replace(_CHAT, preamble=CONCISE),
    "alpaca_chat.load_qa": InstructType("{question}", ("{answer}",), STYLES["chat"], CONCISE),
    "alpaca_chat.load_camel_ai": InstructType("{message_1}", ("{message_2}",), STYLES["chat"], CONCISE),
    "alpaca_chat.load_no_prompt": replace(_CHAT, preamble=_NONE),
    "alpaca_instruct": _ALPACA,
    "alpaca_instruct.load_no_prompt": replace(_ALPACA, preamble=_NONE),
    "alpaca_w_system": _SYSTEM,
    "alpaca_w_system.load_chat": _SYSTEM,
    "alpaca_w_system.load_instruct": replace(_SYSTEM, style=STYLES["instruct"]),
    "alpaca_w_system.load_open_orca": _OPEN_ORCA,
    "alpaca_w_system.load_open_orca_chatml": replace(_OPEN_ORCA, style=STYLES["chatml"]),
    "orcamini": replace(_OPEN_ORCA, style=_ORCA_MINI, always_system=True),
    "explainchoice": _CHOICE,
    "concisechoice": replace(_CHOICE, style=_PLAIN_CHAT, preamble=_BRIEF),
    "summarizetldr": InstructType("{article}", ("{summary}",), _TLDR),
    "jeopardy": InstructType("{question}", ("what is {answer}",), STYLES["instruct"], ALPACA, input="category"),
    "oasst": InstructType("{INSTRUCTION}", ("{RESPONSE}",), STYLES["instruct"], ALPACA),
    "gpteacher": replace(_ALPACA, answer=("{response}",)),
    "context_qa": _CONTEXT_QA,
    "context_qa.load_404": replace(_CONTEXT_QA, instruction="{article}\n===\n{unanswerable_question}", answer=(_UNANSWERABLE,)),
    "context_qa.load_v2": InstructType("Context: {context}\nQuestion: {question}\n", ("Answer: {answer}",), _BARE),
    "creative_acr.load_answer": _CREATIVE_ACR,
    "creative_acr.load_critique": replace(_CREATIVE_ACR, instruction=_CRITIQUE, answer=("{scores}{critiques}",), preamble=_NONE),
    "creative_acr.load_revise": replace(_CREATIVE_ACR, instruction=_REVISE, preamble=_NONE),
    "metharme": InstructType("{prompt}", ("{generation}",), _BARE, ends=3),
}
"""By full name; of types with styles, without one."""

_REFLECT = (
    "You, the Assistant, should generate a response as if it were an abstract for an academic or technical paper on the query along with "
    "a methodology. Then generate an Agent Reflection where you create a long form response as if from subject matter expert, be verbose, "
    "diligent, and creative in your application of knowledge, apply it through the lens of the response generated by the assistant. "
    "Look for flawed reasoning, faulty logic, or other mistakes in the method. Finally, generate a final response and method for the user "
    "with the Assistant abstract and Reflection analysis as augmentations to the generation\n\n"
)
_REFLECTION: Preamble = (
    f"Below is an instruction that describes a task, paired with an input that provides further context. {_REFLECT}",
    f"Below is an instruction that describes a task. {_REFLECT}",
)
_THOUGHT = "### Thought:\n{output}\n\n### Agent Reflection:\n{reflection}\n\n### Final Response:\n{corrected}"
_THOUGHT_CHAT = "\nTHOUGHT: {output}\nASSISTANT REFLECTION: {reflection}\nASSISTANT:{corrected}"

REFLECTIONS: dict[str, tuple[Style, Preamble, str]] = {
    "": (STYLES["instruct"], _NONE, _THOUGHT),
    "instruct": (replace(STYLES["instruct"], system="{system}"), _REFLECTION, _THOUGHT),
    "chat": (replace(STYLES["chat"], system="{system}"), _REFLECTION, _THOUGHT_CHAT),
}
"""Styles of the type reflection, the first where it names none: the prompt's, its preamble, and the answer."""
