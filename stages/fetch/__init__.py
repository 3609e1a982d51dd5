"""fetch: brings everything the recipe names onto this disk, so that no later stage reaches the network.

Reads nothing. Writes:

``raw``
    ``<slot>/<number>.jsonl``: rows of every dataset file, one a line, slots ``train-00``, ``train-01``, … and ``test-00``, ….
    JSON Lines are copied byte for byte, other formats converted. The manifest's ``sources`` lists the files in order: name (slot),
    split, path (as params.yaml has it), file (name at the source), rows_file, numbers, revision. ``numbers`` is a file of
    little-endian int64, for each line the row's position at the source; null: it is the line's own.
``tokenizer``
    What training and inference use: tokenizer.json, tokenizer_config.json, chat_template.jinja.
``base``
    The model as safetensors with its configs: copied as it is, or converted once from a GGUF file.
``benchmark``
    What the models are judged on besides the held-out rows, or nothing: rows of `bench_dataset` in ``bench/``, as those of raw, and
    the files of `eval.lm_eval.include_path` in ``lm-eval/``.
``others``
    Adapters and models that `merge.others` names, in folders ``00``, ``01``, …, or nothing.
"""

from __future__ import annotations

from pipeline.options.views import FetchOptions
from pipeline.stage import Job, Metrics, Stage


def run(job: Job[FetchOptions]) -> Metrics:
    """Fetch the rows, then the tokenizer, then the weights: the slowest comes when all else is known to be right."""
    from stages.fetch.base import write_base
    from stages.fetch.benchmark import write_benchmark
    from stages.fetch.config import locate_config
    from stages.fetch.locate import Locator
    from stages.fetch.model_files import locate_model, locate_tokenizer
    from stages.fetch.others import write_others
    from stages.fetch.rows import write_rows
    from stages.fetch.tokenizer import write_tokenizer

    options = job.options
    locator = Locator(job.sources, job.scratch, job.progress, retries=options.fetch.retries, token=options.hf_use_auth_token)
    with job.progress.task("fetch", unit="artifacts", total=len(job.outputs)) as task:
        raw_bytes = write_rows(job.options, locator, job.outputs["raw"])
        task.advance()
        write_benchmark(job.options, locator, job.outputs["benchmark"])
        task.advance()
        model, config = locate_model(job.options, locator), locate_config(job.options, locator)
        tokenizer = write_tokenizer(
            job.options, locate_tokenizer(job.options, locator) or model, config or model, job.outputs["tokenizer"], job.progress.say
        )
        task.advance()
        pad = None if tokenizer.pad_token_id == tokenizer.eos_token_id else tokenizer.pad_token_id
        base_bytes = write_base(job.options, model, config, pad, job.outputs["base"])
        task.advance()
        write_others(job.options, locator, job.outputs["others"])
        task.advance()
    sources = job.outputs["raw"].content["sources"]
    return {"files": len(sources), "bytes": raw_bytes, "vocab_size": len(tokenizer), "base_bytes": base_bytes}


STAGE = Stage("fetch", FetchOptions, reads=(), writes=("raw", "tokenizer", "base", "benchmark", "others"), run=run)
