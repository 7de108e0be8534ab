// Texts spoken by the browser's own voices.

import { picture, say } from "./page.js";

const NONE = "This device has no voice for this language";

/** What is spoken: a text and its language. */
export type Spoken = () => { text: string; lang: string };

/** Makes a button speak, and fall silent. It is not shown where the browser has no voices. */
export function speaks(button: HTMLButtonElement, what: string, spoken: Spoken): void {
  const voices = (globalThis as { speechSynthesis?: SpeechSynthesis }).speechSynthesis;
  if (!voices) {
    button.hidden = true;
    return;
  }
  // Some browsers look for their voices when they are first asked.
  voices.getVoices();
  const idle = (): void => picture(button, "speak", `Listen to ${what}`);
  idle();
  let mine: SpeechSynthesisUtterance | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  button.addEventListener("click", () => {
    const speaking = mine !== undefined;
    voices.cancel();
    mine = undefined;
    clearTimeout(timer);
    idle();
    const { text, lang } = spoken();
    if (speaking || !text.trim()) return;
    const fits = (voice: SpeechSynthesisVoice): boolean => voice.lang.toLowerCase().startsWith(lang.toLowerCase());
    // Other voices, the browser's own choice among them, may send the text to a server.
    const voice = voices.getVoices().find((voice) => voice.localService && fits(voice));
    if (!voice) {
      picture(button, "clear", NONE);
      timer = setTimeout(idle, 2500);
      return say(NONE);
    }
    const utterance = (mine = new SpeechSynthesisUtterance(text));
    utterance.lang = lang;
    utterance.voice = voice;
    utterance.onend = utterance.onerror = () => {
      if (mine !== utterance) return;
      mine = undefined;
      idle();
    };
    picture(button, "quiet", "Stop speaking");
    voices.speak(utterance);
  });
}
