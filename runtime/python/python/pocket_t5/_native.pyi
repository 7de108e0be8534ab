import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

__all__ = ["Alignment", "BatchStream", "Choice", "Model", "Output", "Score", "Stream", "__version__"]

__version__: str

class _Options(TypedDict, total=False):
    task: str | None
    max_new_tokens: int | None
    min_new_tokens: int | None
    beams: int | None
    beam_groups: int | None
    diversity_penalty: float | None
    length_penalty: float | None
    length_penalty_kind: Literal["t5", "hugging_face"] | None
    early_stopping: bool | Literal["never"] | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    top_h: float | None
    seed: int | None
    repetition_penalty: float | None
    encoder_repetition_penalty: float | None
    no_repeat_ngram: int | None
    encoder_no_repeat_ngram: int | None
    exponential_decay: tuple[int, float] | None
    source_prefix: str | None
    split_sentences: bool | None
    max_input_tokens: int | None
    truncate: bool | None
    prefix: str | None
    prefix_ids: Sequence[int] | None
    forced_bos: int | None
    forced_eos: Sequence[int] | None
    suppress: Sequence[int] | None
    begin_suppress: Sequence[int] | None
    allowed: Sequence[int] | None
    bad_words: Sequence[Sequence[int]] | None
    sequence_bias: Sequence[tuple[Sequence[int], float]] | None
    choices: Sequence[str] | None
    renormalize: bool | None
    remove_invalid: bool | None
    stop: Sequence[str] | None
    logprobs: bool | None
    top_logprobs: int | None
    lookup: Literal["auto", "on", "off"] | None

class _OutputsOptions(_Options, total=False):
    n_best: int | None

@final
class Output:
    @property
    def text(self) -> str: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> NDArray[np.float32]: ...
    @property
    def alternatives(self) -> list[list[tuple[int, float]]]: ...
    @property
    def score(self) -> float: ...
    @property
    def finish(self) -> Literal["eos", "length", "stop", "blocked", "cancelled", "memory"]: ...

@final
class Score:
    @property
    def ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> NDArray[np.float32]: ...
    @property
    def sum(self) -> float: ...

@final
class Choice:
    @property
    def index(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def logprob(self) -> float: ...
    @property
    def probability(self) -> float: ...

@final
class Alignment:
    @property
    def source(self) -> list[str]: ...
    @property
    def target(self) -> list[str]: ...
    @property
    def weights(self) -> NDArray[np.float32]: ...

@final
class Stream:
    @property
    def outputs(self) -> list[Output] | None: ...
    def __iter__(self) -> Stream: ...
    def __next__(self) -> str: ...
    def close(self) -> None: ...

@final
class BatchStream:
    @property
    def outputs(self) -> list[list[Output]] | None: ...
    def __iter__(self) -> BatchStream: ...
    def __next__(self) -> tuple[int, str]: ...
    def close(self) -> None: ...

# A str is a sequence of texts for Python, and one text here: hence the overloads that overlap.
@final
class Model:
    def __new__(
        cls,
        model: str | os.PathLike[str] | bytes | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
        packed: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        copy: bool = False,
        progress: bool | Callable[[str, int, int], object] | None = None,
    ) -> Model: ...
    @property
    def file(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @overload
    def generate(self, text: str, *, stream: Literal[False] = False, **options: Unpack[_Options]) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def generate(self, text: str, *, stream: Literal[True], **options: Unpack[_Options]) -> Stream: ...  # type: ignore[overload-overlap]
    @overload
    def generate(
        self, text: Sequence[str], *, stream: Literal[False] = False, **options: Unpack[_Options]
    ) -> list[str]: ...
    @overload
    def generate(self, text: Sequence[str], *, stream: Literal[True], **options: Unpack[_Options]) -> BatchStream: ...
    @overload
    def outputs(self, text: str, **options: Unpack[_OutputsOptions]) -> list[Output]: ...  # type: ignore[overload-overlap]
    @overload
    def outputs(self, text: Sequence[str], **options: Unpack[_OutputsOptions]) -> list[list[Output]]: ...
    def score(self, source: str, target: str) -> Score: ...
    def choose(self, text: str, choices: Sequence[str]) -> list[Choice]: ...
    def align(self, source: str, target: str) -> Alignment: ...
    @overload
    def embed(  # type: ignore[overload-overlap]
        self,
        text: str,
        *,
        pooling: Literal["mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean", "none"]
        | None = None,
        normalize: bool = False,
        pad_to: int | None = None,
        attend_to_padding: bool = False,
        layer: int | None = None,
        prompt: str | None = None,
        prefix: str | None = None,
    ) -> NDArray[np.float32]: ...
    @overload
    def embed(
        self,
        text: Sequence[str],
        *,
        pooling: Literal["mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean"] | None = None,
        normalize: bool = False,
        pad_to: int | None = None,
        attend_to_padding: bool = False,
        layer: int | None = None,
        prompt: str | None = None,
        prefix: str | None = None,
    ) -> NDArray[np.float32]: ...
    @overload
    def embed(
        self,
        text: Sequence[str],
        *,
        pooling: Literal["none"],
        normalize: bool = False,
        pad_to: int | None = None,
        attend_to_padding: bool = False,
        layer: int | None = None,
        prompt: str | None = None,
        prefix: str | None = None,
    ) -> list[NDArray[np.float32]]: ...
    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, ids: Sequence[int], skip_special: bool = True) -> str: ...
