#!/usr/bin/env python3
"""CTranslate2 behind FastAPI and uvicorn, as services of T5 models are usually written: what `t5 serve` is compared to.

    python3 -m venv /tmp/ct2
    /tmp/ct2/bin/pip install ctranslate2 fastapi uvicorn 'transformers<5' sentencepiece torch gguf
    /tmp/ct2/bin/python tests/peers/serve_peer.py runtime/model/pocket-t5.gguf --port 8000 --threads 2
    POCKET_T5_LOAD_ADDRESS=127.0.0.1:8000 cargo test --profile unchecked -p t5-runtime --features serve \
        --test serve_load -- --ignored --nocapture

The model is the built-in one, dequantised, or a Hugging Face folder; it is converted to int8 in `--work`. Requests that
are there together are translated together, up to `--batch` of them: CTranslate2 cannot let others join a batch that
runs. Texts are cut into sentences as the built-in model's tasks want it, so that both do the same work.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import re

import ctranslate2
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from transformers import AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/serve_peer"))
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=16)
arguments = parser.parse_args()


def folder_of(file):
    """A Hugging Face folder of a GGUF file with tied ReLU weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder = arguments.work / file.stem
    if folder.exists():
        return folder
    read = T5ForConditionalGeneration.from_pretrained(file.parent, gguf_file=file.name)
    # The library takes the file's plain layers for the second halves of gated ones.
    weights = {name.replace("wi_1", "wi"): value for name, value in read.state_dict().items() if "wi_0" not in name}
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        weights[name + ".weight"] = weights["shared.weight"]
    config = {**read.config.to_dict(), "feed_forward_proj": "relu", "is_gated_act": False, "tie_word_embeddings": True}
    model = T5ForConditionalGeneration(T5Config(**config))
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


folder = folder_of(arguments.model) if arguments.model.suffix == ".gguf" else arguments.model
converted = arguments.work / (folder.name + "-int8")
if not converted.exists():
    converter = ctranslate2.converters.TransformersConverter(str(folder))
    converter.convert(str(converted), quantization="int8")
tokenizer = AutoTokenizer.from_pretrained(folder)
translator = ctranslate2.Translator(str(converted), compute_type="int8", intra_threads=arguments.threads)
waiting: asyncio.Queue = asyncio.Queue()

SENTENCE = re.compile(r"(?<=[.!?])\s+")
SPLIT = ("translate English to German: ", "translate English to French: ", "fix: ")


def sentences(text):
    """Each sentence of a text with its task's prefix."""
    prefix = next((prefix for prefix in SPLIT if text.startswith(prefix)), None)
    if prefix is None:
        return [text]
    return [prefix + one for one in SENTENCE.split(text[len(prefix):])]


def translate(texts, most):
    parts = [sentences(text) for text in texts]
    sources = [tokenizer.convert_ids_to_tokens(tokenizer.encode(one)) for some in parts for one in some]
    results = translator.translate_batch(sources, beam_size=1, max_decoding_length=most, max_batch_size=64)
    tokens = iter([result.hypotheses[0] for result in results])
    answers = []
    for some in parts:
        own = [next(tokens) for _ in some]
        decode = lambda one: tokenizer.decode(tokenizer.convert_tokens_to_ids(one), skip_special_tokens=True)
        answers.append((" ".join(decode(one) for one in own), sum(len(one) + 1 for one in own)))
    return answers


async def work():
    """Answers what is there, together."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await waiting.get()]
        while len(batch) < arguments.batch and not waiting.empty():
            batch.append(waiting.get_nowait())
        # Whoever has hung up is not waited for.
        batch = [one for one in batch if not one[2].cancelled()]
        if not batch:
            continue
        answers = await loop.run_in_executor(None, translate, [one[0] for one in batch], batch[0][1])
        for (_, _, future), answer in zip(batch, answers):
            if not future.cancelled():
                future.set_result(answer)


@contextlib.asynccontextmanager
async def lifespan(_):
    task = asyncio.create_task(work())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/v1/completions")
async def completions(request: Request):
    try:
        body = json.loads(await request.body())
        prompt, most, stream = body["prompt"], int(body.get("max_tokens", 128)), bool(body.get("stream", False))
    except (ValueError, KeyError, TypeError) as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    future = asyncio.get_running_loop().create_future()
    await waiting.put((prompt, most, future))
    text, tokens = await future
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    answer = {"id": "cmpl", "object": "text_completion", "created": 0, "model": "peer", "choices": [choice]}
    if stream:
        lines = [f"data: {json.dumps(answer)}\n\n", "data: [DONE]\n\n"]
        return StreamingResponse(iter(lines), media_type="text/event-stream")
    answer["usage"] = {"completion_tokens": tokens}
    return JSONResponse(answer)


uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
