// The default model's prefixes, with texts to try.

export interface Task {
  name: string;
  prefix: string;
  examples: string[];
  /** The text is a word or a sentence in this language, for the browser's own checks. */
  language: string;
}

export const TASKS: Task[] = [
  {
    name: "English to German",
    prefix: "translate English to German: ",
    examples: ["Where is the station?", "I have never seen such a beautiful house.", "She reads a book every week."],
    language: "en",
  },
  {
    name: "English to French",
    prefix: "translate English to French: ",
    examples: ["Where is the station?", "We are going to the beach tomorrow.", "My brother lives in a small town."],
    language: "en",
  },
  {
    name: "Pronounce a word",
    prefix: "pronounce: ",
    examples: ["thorough", "pocket", "transformer"],
    language: "en",
  },
  {
    name: "Fix a sentence",
    prefix: "fix: ",
    examples: ["he go to school evry day", "I has two cat.", "Their is a problem with teh car."],
    language: "en",
  },
  {
    name: "Fill gaps, or free text",
    prefix: "",
    examples: ["The <extra_id_0> walks in <extra_id_1> park."],
    language: "en",
  },
];
