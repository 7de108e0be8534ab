// Answers sentence by sentence. What was answered before is remembered: while somebody types, only what changed is new.

import type { GenerateOptions, Output, T5 } from "pocket-t5";
import type { Task } from "./tasks.js";
import { linked, type Links } from "./words.js";

/** How much care an answer gets. */
export interface Care {
  /** Wordings that are weighed; 1 for the first that comes to mind. */
  beams: number;
  /** Most tokens of a sentence's answer. */
  limit: number;
}

/** A sentence of a text and its answer. */
export interface Piece {
  /** Where the sentence stands in its text. */
  begin: number;
  end: number;
  source: string;
  /** What stands before the answer: white space and whatever else is not for the model. */
  before: string;
  answer: string;
  /** Whether the answer is whole. */
  done: boolean;
  /** Whether it ended at the limit. */
  cut: boolean;
  /** Which words belong together, once that is known. */
  links?: Links | undefined;
}

/** A text's answer as far as it goes: the sentences, and what stands behind the last one. */
export interface Answer {
  pieces: Piece[];
  after: string;
}

interface Remembered {
  answer: string;
  cut: boolean;
  /** Null where words could not be told apart. */
  links?: Links | null;
}

/** Sentences that are kept in mind. */
const MOST = 2000;
/** Sentences that are answered at once: few, since an abort is heard only between groups. */
const GROUP = 4;
/** Other wordings of a word. */
const WORDINGS = 6;

export class Answers {
  private readonly memory = new Map<string, Remembered>();

  constructor(
    private readonly t5: T5,
    private readonly task: Task,
    private readonly care: Care,
  ) {}

  /** Answers a text; `show` hears of each step. */
  async run(text: string, signal: AbortSignal, show: (answer: Answer) => void): Promise<Answer> {
    const answer = await this.cut(text);
    signal.throwIfAborted();
    const tell = (): void => {
      if (!signal.aborted) show(answer);
    };
    tell();
    const waiting = answer.pieces.filter(({ done }) => !done);
    const [first, ...others] = waiting;
    if (first) await this.one(first, signal, tell);
    for (let at = 0; at < others.length; at += GROUP) {
      await this.several(others.slice(at, at + GROUP), signal);
      tell();
    }
    // What else a model writes does not stand word beside word.
    const words = this.task.view === "translate" ? answer.pieces : [];
    for (const piece of words) {
      if (piece.links || !piece.answer) continue;
      await this.link(piece, signal);
      if (waiting.length <= GROUP) tell();
    }
    if (waiting.length > GROUP) tell();
    return answer;
  }

  /** Other answers to a sentence, best first, without the one that is shown. */
  async others({ source, answer }: Piece, signal: AbortSignal): Promise<string[]> {
    const beams = Math.max(this.care.beams, WORDINGS);
    const outputs = await this.t5.generate(source, { ...this.options(), beams, nBest: beams, signal }).outputs;
    return [...new Set(outputs.map(({ text }) => text.trim()))].filter((text) => text !== answer && text !== "");
  }

  /**
   * Answers that go on differently from a place on, likeliest first, one after the other. Each begins, behind the
   * place, with a token that none before it has.
   */
  async *wordings({ source, answer }: Piece, place: number, signal: AbortSignal): AsyncGenerator<string> {
    const prefix = answer.slice(0, place).trimEnd();
    const seen = new Set([answer]);
    const used: number[] = [];
    for (let i = 0; i < 2 * WORDINGS && seen.size <= WORDINGS; i++) {
      const options = { ...this.options(), ...(prefix && { prefix }), beginSuppress: [...used], signal };
      const [best] = await this.t5.generate(source, { ...options, beams: Math.max(2, this.care.beams) }).outputs;
      const id = best?.ids[0];
      if (best === undefined || id === undefined) return;
      used.push(id);
      const text = best.text.trim();
      // The rest of a word that was meant to stay, or nothing more at all, is no other wording.
      const rest = text.slice(prefix.length);
      const another = /^\s*[\p{L}\p{N}]/u.test(rest) && (!prefix || /^\s/.test(rest));
      if (another && !seen.has(text)) yield text;
      seen.add(text);
    }
  }

  /** From now on this is the sentence's answer. */
  choose(piece: Piece, answer: string): void {
    this.remember(piece.source, { answer, cut: false });
  }

  private options(): GenerateOptions {
    const { beams, limit } = this.care;
    const { name } = this.task;
    return { ...(name && { task: name }), beams, maxNewTokens: limit, splitSentences: false, logprobs: false };
  }

  /** A text's sentences with what is remembered of them. */
  private async cut(text: string): Promise<Answer> {
    const pieces: Piece[] = [];
    let at = 0;
    // An instruction and what it is about belong together.
    const whole = [{ begin: text.search(/\S/), end: text.trimEnd().length }];
    for (const { begin, end } of this.task.view === "free" ? whole : await this.t5.sentences(text)) {
      const source = text.slice(begin, end);
      const known = this.memory.get(source);
      // Chinese and Japanese need no space between sentences; what they are translated to does.
      const before = text.slice(at, begin) || (pieces.length > 0 ? " " : "");
      const { answer = "", cut = false, links } = known ?? {};
      pieces.push({ begin, end, source, before, answer, cut, done: known !== undefined, links: links ?? undefined });
      at = end;
    }
    return { pieces, after: text.slice(at) };
  }

  private async one(piece: Piece, signal: AbortSignal, tell: () => void): Promise<void> {
    const generation = this.t5.generate(piece.source, { ...this.options(), signal });
    for await (const text of generation) {
      piece.answer += text;
      tell();
    }
    this.finish(piece, (await generation.outputs)[0]);
    tell();
  }

  private async several(pieces: Piece[], signal: AbortSignal): Promise<void> {
    const texts = pieces.map(({ source }) => source);
    const outputs = await this.t5.generate(texts, { ...this.options(), signal }).outputs;
    pieces.forEach((piece, i) => this.finish(piece, outputs[i]?.[0]));
  }

  private finish(piece: Piece, output: Output | undefined): void {
    piece.answer = output?.text.trim() ?? "";
    piece.cut = output?.finish === "length";
    piece.done = true;
    this.remember(piece.source, { answer: piece.answer, cut: piece.cut });
  }

  private async link(piece: Piece, signal: AbortSignal): Promise<void> {
    const known = this.memory.get(piece.source);
    if (known?.links === undefined) {
      const alignment = await this.t5.alignment(this.task.prefix + piece.source, piece.answer, { signal });
      const links = linked(piece.source, piece.answer, alignment) ?? null;
      this.remember(piece.source, { answer: piece.answer, cut: piece.cut, links });
      piece.links = links ?? undefined;
    }
  }

  private remember(source: string, what: Remembered): void {
    this.memory.delete(source);
    this.memory.set(source, what);
    const [oldest] = this.memory.keys();
    if (this.memory.size > MOST && oldest !== undefined) this.memory.delete(oldest);
  }
}

/** The text of an answer. */
export function textOf({ pieces, after }: Answer): string {
  return pieces.map(({ before, answer }) => before + answer).join("") + after;
}
