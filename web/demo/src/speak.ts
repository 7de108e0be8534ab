// Texts spoken by the browser's own voices.

import { picture } from "./page.js";

/** What is spoken: a text and its language. */
export type Spoken = () => { text: string; lang: string };

/** Makes a button speak, and fall silent. It is not shown where the browser has no voices. */
export function speaks(button: HTMLButtonElement, what: string, spoken: Spoken): void {
  const voices = (globalThis as { speechSynthesis?: SpeechSynthesis }).speechSynthesis;
  if (!voices) {
    button.hidden = true;
    return;
  }
  const idle = (): void => picture(button, "speak", `Listen to ${what}`);
  idle();
  let mine: SpeechSynthesisUtterance | undefined;
  button.addEventListener("click", () => {
    const speaking = mine !== undefined;
    voices.cancel();
    mine = undefined;
    idle();
    const { text, lang } = spoken();
    if (speaking || !text.trim()) return;
    const utterance = (mine = new SpeechSynthesisUtterance(text));
    utterance.lang = lang;
    // A voice of this device stays on this device.
    const fitting = voices.getVoices().filter((voice) => voice.lang.toLowerCase().startsWith(lang.toLowerCase()));
    utterance.voice = fitting.find(({ localService }) => localService) ?? fitting[0] ?? null;
    utterance.onend = utterance.onerror = () => {
      if (mine !== utterance) return;
      mine = undefined;
      idle();
    };
    picture(button, "quiet", "Stop speaking");
    voices.speak(utterance);
  });
}
