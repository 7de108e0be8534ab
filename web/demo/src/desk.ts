// The desk: a text on one side, the answer on the other, for the task that is chosen.

import { AnswerText } from "./answer.js";
import { Answers, textOf, type Answer, type Piece } from "./answers.js";
import { listOthers, Wordings } from "./alternatives.js";
import { showCorrection } from "./correction.js";
import { explain, lost, wanted } from "./errors.js";
import { Field } from "./field.js";
import { fill } from "./filling.js";
import { Languages } from "./languages.js";
import { Lights } from "./lights.js";
import type { Loaded } from "./model.js";
import { button, element, make, say } from "./page.js";
import { keep, type Preferences } from "./preferences.js";
import { pronounce } from "./pronunciation.js";
import { forget, type Shared } from "./share.js";
import { Tabs } from "./tabs.js";
import { examples, EXPECTED, label, language, type Task, type View } from "./tasks.js";

/** How long somebody pauses before an answer is looked for, in milliseconds. */
const PAUSE = 120;
/** Before screen readers are told the answer. */
const QUIET = 1000;

const KEPT = "pocket-t5: texts";

const HINTS = matchMedia("(hover: none)").matches
  ? { linked: "Tap a word: where it comes from, and other wordings.", words: "Tap a word for other wordings." }
  : {
      linked: "Point at a word to see where it comes from. Press it for other wordings.",
      words: "Press a word for other wordings.",
    };

const PLACEHOLDERS: Record<View, [text: string, answer: string]> = {
  translate: ["Type or paste a text", "The translation"],
  pronounce: ["Type a word", "How it sounds"],
  correct: ["Type or paste English text", "The text without slips"],
  gaps: ["Type a text with gaps: two underscores or more", "The text with its gaps filled"],
  free: ["Type what the model was made for", "The answer"],
};

export class Desk {
  private readonly place = element("answer");
  private readonly more = element("more");
  private readonly others = element("alternatives");
  private readonly field: Field;
  private readonly lights: Lights;
  private readonly answer: AnswerText;
  private readonly wordings: Wordings;
  private readonly languages: Languages;
  private readonly tabs: Tabs;
  private readonly texts: Partial<Record<View, string>>;

  private model: Loaded | undefined;
  private tasks: Task[] = EXPECTED;
  private task: Task;
  /** Answers by task and care, for as long as the model is the same. */
  private memory = new Map<string, Answers>();
  private running: AbortController | undefined;
  private listing: AbortController | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private telling: ReturnType<typeof setTimeout> | undefined;
  private shown = "";
  private pieces: Piece[] = [];

  /** `answered` hears how many words were answered in how many milliseconds; `reload` loads a lost model again. */
  constructor(
    private readonly chosen: Preferences,
    private readonly answered: (words: number, ms: number) => void,
    private readonly reload: () => void,
  ) {
    this.texts = kept();
    this.field = new Field(() => this.typed());
    this.lights = new Lights(this.field, element("mirror"), this.place);
    this.answer = new AnswerText(this.place, this.lights, (piece, at, word, byKeyboard) => {
      const key = word.dataset.key ?? "";
      const from = this.lights.partners(key);
      void this.wordings.open(this.answers(), piece, at, word, from, this.task.to ?? "", byKeyboard);
      this.lights.hold(key);
    });
    this.wordings = new Wordings(
      (piece, text) => this.adopt(piece, text),
      () => this.lights.hold(undefined),
    );
    this.tabs = new Tabs((view) => this.choose(this.tasks.find((task) => task.view === view) ?? this.task));
    this.languages = new Languages(
      (task) => this.choose(task),
      (task) => {
        this.texts[task.view] = this.shown || this.field.text;
        this.choose(task);
      },
    );
    this.task = this.named(chosen.task) ?? EXPECTED[0]!;
    this.buttons();
    this.offer(EXPECTED);
  }

  /** The text, for whoever speaks it. */
  get source(): { text: string; lang: string } {
    return { text: this.field.text, lang: this.task.from ?? "en" };
  }

  /** The answer, for whoever speaks or copies it. */
  get target(): { text: string; lang: string } {
    // Sounds are no words: what is spoken is what they stand for.
    const spoken = this.task.view === "pronounce" ? this.field.text : this.shown;
    return { text: spoken, lang: this.task.to ?? this.task.from ?? "en" };
  }

  get copied(): string {
    return this.shown;
  }

  /** What a link holds. */
  get shared(): Shared {
    return { task: idOf(this.task), text: this.field.text };
  }

  /** Opens what a link holds. */
  open({ task, text }: Shared): void {
    const found = this.named(task) ?? this.task;
    this.texts[found.view] = text;
    this.choose(found);
  }

  /** Another model: its tasks, and nothing of what the one before answered. */
  use(model: Loaded): void {
    this.running?.abort();
    this.wordings.close();
    this.model = model;
    this.memory = new Map();
    this.offer(model.tasks);
    void this.run();
  }

  /** Answers anew, as after other settings. */
  again(): void {
    void this.run();
  }

  private named(id: string): Task | undefined {
    return this.tasks.find((task) => idOf(task) === id);
  }

  private offer(tasks: Task[]): void {
    this.tasks = tasks;
    this.tabs.offer([...new Set(tasks.map(({ view }) => view))], this.task.view);
    const same = this.named(idOf(this.task)) ?? tasks.find(({ view }) => view === this.task.view) ?? tasks[0];
    if (same) this.choose(same, false);
  }

  /** Chooses a task; its text is the one last written for its view. */
  private choose(task: Task, answer = true): void {
    const { view } = task;
    this.task = task;
    this.chosen.task = idOf(task);
    if (this.model?.builtIn) keep(this.chosen);
    this.tabs.show(view);
    document.body.dataset.view = view;

    const same = this.tasks.filter((task) => task.view === view);
    element("languages").hidden = view !== "translate";
    if (view === "translate") this.languages.show(same, task);
    element("prompts").hidden = view !== "free" || same.length < 2;
    if (view === "free") this.prompts(same, task);
    element("gap").hidden = view !== "gaps";
    element("take").hidden = view !== "correct";
    this.more.hidden = view !== "translate" && view !== "free";

    const { area } = this.field;
    const [text, answerText] = PLACEHOLDERS[view];
    this.field.placeholder = text;
    area.lang = task.from ?? "";
    element("source-label").textContent = task.from && view === "translate" ? `Text in ${language(task.from)}` : "Text";
    this.place.dataset.placeholder = answerText;
    this.place.lang = task.to ?? "";
    this.place.setAttribute("aria-label", view === "translate" ? `Translation, ${language(task.to)}` : label(view));
    this.examples();
    const written = this.texts[view] ?? "";
    // The caret stays where it is while a model arrives.
    if (this.field.text !== written) this.field.text = written;
    this.clear();
    if (answer) void this.run();
  }

  private prompts(tasks: Task[], chosen: Task): void {
    const select = element<HTMLSelectElement>("prompt");
    select.replaceChildren(...tasks.map((task) => make("option", { value: idOf(task) }, task.name ?? "As it is")));
    select.value = idOf(chosen);
    select.onchange = () => this.choose(this.named(select.value) ?? this.task);
  }

  private examples(): void {
    const place = element("examples");
    const buttons = examples(this.task).map((text) =>
      button(text, () => {
        this.field.text = text;
        this.field.area.focus({ preventScroll: true });
        this.typed(0);
      }, { lang: this.task.from ?? "" }),
    );
    place.replaceChildren(...buttons);
  }

  private typed(pause = PAUSE): void {
    forget();
    this.texts[this.task.view] = this.field.text;
    keepTexts(this.texts);
    this.wordings.close();
    this.lights.show(undefined);
    this.tools();
    clearTimeout(this.timer);
    // What a button writes is answered, or cleared away, before anybody can look.
    if (pause === 0) void this.run();
    else this.timer = setTimeout(() => void this.run(), pause);
  }

  /** What can be done with the text and the answer as they are. */
  private tools(): void {
    const empty = this.field.text.trim() === "";
    element("clear").hidden = this.field.text === "";
    element("examples").hidden = this.field.text !== "";
    document.body.classList.toggle("empty", empty);
    document.body.classList.toggle("answered", this.shown !== "");
  }

  private answers(): Answers {
    const { beams, limit } = this.chosen;
    const id = JSON.stringify([idOf(this.task), beams, limit]);
    const known = this.memory.get(id) ?? new Answers(this.model!.t5, this.task, { beams, limit });
    this.memory.set(id, known);
    return known;
  }

  private clear(): void {
    this.running?.abort();
    this.listing?.abort();
    clearTimeout(this.telling);
    this.wordings.close();
    this.answer.clear();
    this.lights.show(undefined);
    this.pieces = [];
    this.shown = "";
    this.fold();
    this.error();
    this.note("");
    element("hint").textContent = "";
    this.place.setAttribute("aria-busy", "false");
    this.tools();
  }

  /** Looks for the answer to the text as it is now. */
  private async run(): Promise<void> {
    clearTimeout(this.timer);
    clearTimeout(this.telling);
    this.running?.abort();
    this.listing?.abort();
    const { text } = this.field;
    if (text.trim() === "") return this.clear();
    this.tools();
    const { model } = this;
    if (!model) return;
    const abort = (this.running = new AbortController());
    const begin = performance.now();
    this.error();
    this.place.setAttribute("aria-busy", "true");
    try {
      const fresh = await this.respond(text, model, abort.signal);
      if (abort.signal.aborted) return;
      if (fresh) this.answered(words(this.shown), performance.now() - begin);
      this.tell();
      if (this.more.ariaExpanded === "true") void this.list();
    } catch (error) {
      if (!abort.signal.aborted && !wanted(error)) this.error(error);
    } finally {
      if (this.running === abort) {
        this.running = undefined;
        this.place.setAttribute("aria-busy", "false");
        this.tools();
      }
    }
  }

  /** Shows the answer as it grows. Whether anything of it was new. */
  private async respond(text: string, model: Loaded, signal: AbortSignal): Promise<boolean> {
    const { task, chosen: care } = this;
    const { t5, marks } = model;
    if (task.view === "pronounce") {
      this.shown = await pronounce(this.place, text, { t5, task, care, signal });
      this.note(this.shown ? "" : "There is no word in this text.");
      return true;
    }
    if (task.view === "gaps") {
      const end = model.info.tokenizer?.eosId ?? 1;
      const shown = (text: string): void => void (this.shown = text);
      const problem = await fill(this.place, text, { t5, marks, end, care, signal }, shown);
      if (problem) {
        this.shown = "";
        this.place.replaceChildren();
      }
      this.note(problem ?? "");
      return true;
    }
    let fresh = false;
    const show = (answer: Answer): void => {
      fresh ||= answer.pieces.some(({ done }) => !done);
      this.pieces = answer.pieces;
      this.shown = textOf(answer);
      if (task.view === "correct") this.changes(showCorrection(this.place, answer, this.field), answer);
      else this.answer.show(answer);
    };
    const answer = await this.answers().run(text, signal, show);
    if (task.view !== "correct") {
      this.lights.show(answer);
      const linked = answer.pieces.some(({ links }) => links);
      element("hint").textContent = this.shown === "" ? "" : linked ? HINTS.linked : HINTS.words;
    }
    const cut = answer.pieces.some(({ cut }) => cut);
    const empty = this.shown === "" ? "The model has no answer to this." : "";
    this.note(cut ? `Cut off after ${care.limit} parts of words. The settings have the limit.` : empty);
    return fresh;
  }

  private changes(count: number, { pieces }: Answer): void {
    if (!pieces.every(({ done }) => done)) return;
    const changed = `${count} change${count === 1 ? "" : "s"}. What was taken out is struck through.`;
    element("hint").textContent = count === 0 ? "Nothing to correct." : changed;
    element<HTMLButtonElement>("take").disabled = count === 0;
  }

  /** Tells screen readers the answer, once nobody types. */
  private tell(): void {
    const { shown, task } = this;
    const told = shown.length <= 300 ? shown : `${label(task.view)}: done`;
    this.telling = setTimeout(() => say(told, shown.length <= 300 ? this.place.lang || "en" : "en"), QUIET);
  }

  /** Another answer to a sentence, from now on. */
  private adopt(piece: Piece, text: string): void {
    this.answers().choose(piece, text);
    void this.run();
  }

  private async list(): Promise<void> {
    this.listing?.abort();
    const abort = (this.listing = new AbortController());
    try {
      const choose = (piece: Piece, text: string): void => this.adopt(piece, text);
      await listOthers(this.answers(), this.pieces, this.task.to ?? "", abort.signal, choose);
    } catch (error) {
      if (!abort.signal.aborted && !wanted(error)) this.error(error);
    }
  }

  private fold(): void {
    this.more.ariaExpanded = "false";
    this.others.hidden = true;
    this.others.replaceChildren();
  }

  private buttons(): void {
    this.more.addEventListener("click", () => {
      if (this.more.ariaExpanded === "true") {
        this.listing?.abort();
        return this.fold();
      }
      this.more.ariaExpanded = "true";
      void this.list();
    });
    element("clear").addEventListener("click", () => {
      this.field.text = "";
      this.field.area.focus();
      this.typed(0);
    });
    element("gap").addEventListener("click", () => this.field.insert("___"));
    element("take").addEventListener("click", () => {
      this.field.text = this.shown;
      this.field.area.focus({ preventScroll: true });
      this.typed(0);
    });
    this.field.area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void this.run();
    });
  }

  private note(text: string): void {
    element("note").textContent = text;
    element("note").hidden = text === "";
  }

  private error(error?: unknown): void {
    const place = element("error");
    place.hidden = error === undefined;
    place.textContent = error === undefined ? "" : explain(error);
    if (lost(error)) place.append(" ", button("Load it again", this.reload));
  }
}

/** A task's name; that of its view where it has none. */
const idOf = ({ name, view }: Task): string => name ?? view;

const words = (text: string): number => text.split(/\s+/).filter(Boolean).length;

/** Texts last as long as the tab: a reload keeps them, and nobody finds them later. */
function kept(): Partial<Record<View, string>> {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") as Partial<Record<View, string>>;
  } catch {
    return {};
  }
}

function keepTexts(texts: Partial<Record<View, string>>): void {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(texts));
  } catch {
    // Then they last as long as the page.
  }
}
