/**
 * Where a model comes from: an address, `hf:owner/name[/file.gguf][@revision]`, a path (Node), a file or its bytes, an
 * answer of `fetch`; or the files of a Hugging Face folder, which are quantised to Q8_0 first, as those of a name
 * without a GGUF file are. `folder:` names, from `cache.list()`, are folders that were quantised before.
 */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array | Response | Iterable<File>;

/** How far loading is. */
export interface Progress {
  /**
   * `download`: bytes come from the network. `read`: from the device, as for a model that is kept there. `quantize`: a
   * folder becomes one file. `prepare`: all bytes are there, and the model is made ready.
   */
  phase: "download" | "read" | "quantize" | "prepare";
  /** Bytes that have arrived, of all files. */
  loaded: number;
  /** Bytes of all files; 0 while unknown. */
  total: number;
  /** How fast a download has been so far; null where nothing was downloaded yet. */
  bytesPerSecond: number | null;
}

/**
 * The module that runs: `simd128` everywhere, `relaxed` where the browser has relaxed vectors, `threads` where besides
 * the page is cross-origin isolated.
 */
export type Build = "simd128" | "relaxed" | "threads";

/** Vector instructions for products; builds other than `simd128` contain both kinds. */
export type Isa = "simd128" | "relaxed";

export interface LoadOptions {
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /** Whether a model from an address is kept on the device (browsers); yes if not given. */
  cache?: boolean;
  /** The file's SHA-256 in hexadecimal; another file is refused. */
  sha256?: string;
  /**
   * How many threads share the work; 1 to use no worker but the model's own, 0 to use none: the calling thread then
   * does the work, and is free only between two pieces of it, such as tokens. If not given, as many as help, if the
   * page is cross-origin isolated. If it is not, one thread runs, whatever is asked for: see `info()`.
   */
  threads?: number;
  /** Forces a build, for tests; the best one otherwise. */
  build?: Build;
  /** Forces the vector instructions of products, for tests; otherwise the faster ones that the build contains. */
  isa?: Isa;
  /** Where `hf:` names are looked up; `https://huggingface.co` if not given. */
  endpoint?: string;
  /** Sent with every request for the model. From another origin, its host must allow them. */
  headers?: Record<string, string>;
  /** A hub's access token, for private models. It is sent to the `endpoint` only. */
  token?: string;
  /** Fetches the model instead of the worker's own `fetch`; it runs where `load` was called. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** The compiled module of `build` (`simd128` if not given), where code must not be compiled from bytes. */
  wasm?: WebAssembly.Module;
  /**
   * Whether the browser is asked to keep models of 50 MB and more when storage is short; yes if not given. Firefox asks
   * the user.
   */
  persist?: boolean;
  /** How long a server may send nothing before the transfer is taken up again, in milliseconds; 30,000 if not given. */
  stallMs?: number;
  /**
   * The address of a folder with copies of this package's folders `dist` and `wasm`, for bundlers that do not follow
   * workers and modules by themselves (esbuild, Rollup).
   */
  assets?: string | URL;
}

/** How `quantize` stores matrices; norms and bias tables are always f32. */
export type FileType = "q8_0" | "f16" | "f32" | "q4_0" | "q4_k";

export interface QuantizeOptions {
  /** `q8_0` if not given. */
  type?: FileType;
  /** The new file's name; `model.gguf` if not given. */
  name?: string;
  /**
   * Called as the work goes on. The total is twice the size of the files: reading them is one half, quantising the
   * other.
   */
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /** As for `T5.load`. */
  assets?: string | URL;
}

/** Options of requests that have no others. */
export interface RequestOptions {
  /** Ends the request. */
  signal?: AbortSignal;
}

/** Options of `embed` and `encode`. */
export interface EncodeOptions extends RequestOptions {
  /** Limit of a text's tokens. */
  maxInputTokens?: number;
  /** Whether a longer text is cut off, its end mark kept, rather than refused. */
  truncate?: boolean;
}

/** The encoder's hidden states of a text. */
export interface TokenStates {
  ids: number[];
  /** `d_model`, the length of each token's state. */
  width: number;
  /** One state after the other. */
  states: Float32Array;
}

/** Options of a generation. Those left out are the model's own, else greedy search. */
export interface GenerateOptions {
  /**
   * A task of the model's (`info().generation.task_specific_params`): its prefix goes before the text, its settings
   * before the model's.
   */
  task?: string;
  /** Limit of new tokens; the model's, else 256. */
  maxNewTokens?: number;
  minNewTokens?: number;
  /** 1 is greedy search (or sampling). With beams the text comes whole, at the end. */
  beams?: number;
  /** Divides the beams into groups, each unlike those before it. */
  beamGroups?: number;
  /** Subtracted from a token's score for each beam of earlier groups that chose it in the same step. */
  diversityPenalty?: number;
  /** How many results: the best of beam search, or independent draws. */
  nBest?: number;
  lengthPenalty?: number;
  /** Hugging Face divides by n^p, T5's own by ((5 + n) / 6)^p. */
  lengthPenaltyKind?: "huggingFace" | "t5";
  /** With Hugging Face's length penalty: T5's has one end of its own, and refuses it beside beams. */
  earlyStopping?: boolean | "never";
  /** 0: no sampling. A filter of candidates alone (`topK` to `topH`) samples at 1. */
  temperature?: number;
  /** Samples among this many most likely tokens; 0: among all. */
  topK?: number;
  /** Samples among the most likely tokens that reach this probability together. */
  topP?: number;
  /** Samples among tokens at least this fraction as likely as the most likely one. */
  minP?: number;
  /** Samples among the most typical tokens that reach this probability together. */
  typicalP?: number;
  /** Samples among tokens of at least this probability. */
  epsilonCutoff?: number;
  /** The same with a bound that falls as the distribution widens. */
  etaCutoff?: number;
  /** Samples among the most likely tokens that hold this share of the entropy. */
  topH?: number;
  /**
   * The same seed gives the same text, in every browser and natively. A number up to 2^53 - 1, or a `bigint` of 64
   * bits.
   */
  seed?: number | bigint;
  /** Above 1: tokens generated already become less likely. */
  repetitionPenalty?: number;
  /** Above 1: tokens of the source become more likely. */
  encoderRepetitionPenalty?: number;
  /** No sequence of this many ids occurs twice. */
  noRepeatNgram?: number;
  /** No sequence of this many ids of the source occurs. */
  encoderNoRepeatNgram?: number;
  /** From so many new tokens on, the end becomes likelier by a factor with each: `[start, factor]`. */
  exponentialDecay?: [number, number];
  /**
   * Whether a text is read sentence by sentence: line breaks and spaces stay, and limits of ids hold for each sentence.
   * Word by word, with a space between the results, where the task spells words out. If not given, as the task says
   * whose prefix the text begins with. Without effect on ids.
   */
  splitSentences?: boolean;
  /** Limit of the tokens of a text, or of each sentence where it is read so. */
  maxInputTokens?: number;
  /** Whether a longer one is cut off, its end mark kept, rather than refused. */
  truncate?: boolean;
  /** For a list of texts: how many of them run side by side, 16 if not given. Results do not depend on it. */
  batch?: number;
  /** Text that the result begins with; of several sentences, the first one's result. */
  prefix?: string;
  prefixIds?: number[];
  /** The first id, unless there is a prefix. */
  forcedBos?: number;
  /** The id at the limit of new tokens: the first of these. */
  forcedEos?: number[];
  /** Ids never generated. */
  suppress?: number[];
  /** Ids not generated first. */
  beginSuppress?: number[];
  /** Sequences of ids never generated. */
  badWords?: number[][];
  /** Added to the logit of a sequence's last id when its other ids have just been generated. */
  sequenceBias?: [number[], number][];
  /** Beams: normalise log-probabilities again after the options above. */
  renormalize?: boolean;
  /** NaN counts as 0 and infinities as the largest numbers. */
  removeInvalid?: boolean;
  /** If given, only these ids (and `</s>`) are generated. */
  allowed?: number[];
  /** The text ends before the first of these. */
  stop?: string[];
  /** The result is one of these texts. A text is then read whole; no forced prefix goes with them. */
  choices?: string[];
  /**
   * Whether `Output.logprobs` and `Output.score` are wanted; yes if not given. Without them greedy search does not sum
   * over the vocabulary; the text is the same. Beams and sampling always have them.
   */
  logprobs?: boolean;
  /**
   * Whether greedy search tries tokens that follow the last ones in the source, several at once; the results are the
   * same. `on` helps where output repeats input, as in corrections; `auto`, if not given, does so where it loses
   * nothing, which is never in a browser today; `off` never does.
   */
  lookup?: "auto" | "on" | "off";
  /** For each token of greedy search and draws so many of the likeliest in its place, at most 100; by default none. */
  topLogprobs?: number;
  /** Ends the request between two pieces of its work, such as tokens. */
  signal?: AbortSignal;
}

/** One generated text. */
export interface Output {
  text: string;
  ids: number[];
  /** The log-probability of each id; empty where they were not wanted. */
  logprobs: number[];
  /** With `topLogprobs`: for each id the likeliest ones in its place, with their log-probabilities, best first. */
  alternatives?: [number, number][][];
  /** Their sum; of beams, over the length penalty, but with T5's where none has ended. Null where not wanted. */
  score: number | null;
  /** Why it ended; `blocked`: the options left no token; `memory`: there was not enough for more tokens. */
  finish: "eos" | "length" | "stop" | "blocked" | "memory";
}

/** Where a sentence stands in its text: `text.slice(begin, end)`. */
export interface Sentence {
  begin: number;
  end: number;
}

/** Log-probabilities of a target given a source. */
export interface Score {
  ids: number[];
  logprobs: number[];
  sum: number;
}

/** Which words of a source the words of a target come from. */
export interface Alignment {
  /** The source's words, without those of a task's prefix. */
  source: string[];
  target: string[];
  /** A row for each target word: its weight on each source word, 0 to 1. */
  weights: number[][];
}

export interface Info {
  file: string;
  fileBytes: number;
  /** Memory of the module in bytes; it never shrinks. */
  memoryBytes: number;
  build: Build;
  /** Why this build runs. */
  buildReason: string;
  /** The address of its module, for pages that keep it; empty if its code was given. */
  moduleUrl: string;
  /** Whether the model is kept on the device. */
  kept: boolean;
  /** Why it is kept, or why not. */
  keptReason: string;
  /** Vector instructions of products: `simd128` is faster on processors without an instruction for dot products. */
  isa: Isa;
  /** How many threads share the work. */
  threads: number;
  loadMs: number;
  /** As in Hugging Face's config.json. */
  config: Record<string, unknown>;
  generation: Record<string, unknown>;
  tokenizer: { vocabSize: number; padId: number; eosId: number; unkId: number } | null;
  /** What the file says of itself, by key: `general.name`, `general.license`, `general.attribution` and others. */
  about: Record<string, string>;
  notes: string[];
}
