// From ARPAbet, as the CMU dictionary writes pronunciations, to the phonetic alphabet.

/** One sound in both alphabets. */
export interface Sound {
  arpabet: string;
  ipa: string;
}

const VOWELS: Record<string, string> = {
  AA: "ɑ", AE: "æ", AH: "ʌ", AO: "ɔ", AW: "aʊ", AY: "aɪ", EH: "ɛ", ER: "ɝ",
  EY: "eɪ", IH: "ɪ", IY: "i", OW: "oʊ", OY: "ɔɪ", UH: "ʊ", UW: "u",
};
/** Vowels that are others without stress. */
const REDUCED: Record<string, string> = { AH: "ə", ER: "ɚ" };
const CONSONANTS: Record<string, string> = {
  B: "b", CH: "tʃ", D: "d", DH: "ð", F: "f", G: "ɡ", HH: "h", JH: "dʒ", K: "k", L: "l", M: "m", N: "n",
  NG: "ŋ", P: "p", R: "ɹ", S: "s", SH: "ʃ", T: "t", TH: "θ", V: "v", W: "w", Y: "j", Z: "z", ZH: "ʒ",
};
/** Groups of consonants that an English syllable may begin with. */
const ONSETS = new Set(
  ("B L,B R,D R,D W,F L,F R,G L,G R,G W,HH Y,K L,K R,K W,P L,P R,S K,S L,S M,S N,S P,S T,S W,SH R,T R,T W,TH R,TH W," +
    "B Y,F Y,K Y,M Y,P Y,V Y,S K R,S K W,S P L,S P R,S T R,S K Y,S P Y").split(","),
);

interface Phone {
  name: string;
  stress: string | undefined;
  ipa: string;
}

function read(symbol: string): Phone | undefined {
  const match = /^([A-Z]+)([012])?$/.exec(symbol);
  const name = match?.[1] ?? "";
  const stress = match?.[2];
  const vowel = stress === "0" ? (REDUCED[name] ?? VOWELS[name]) : VOWELS[name];
  const ipa = vowel ?? CONSONANTS[name];
  return ipa === undefined ? undefined : { name, stress: vowel === undefined ? undefined : (stress ?? "0"), ipa };
}

/**
 * The sounds of a word such as `P AA1 K AH0 T`. Stress marks stand before the syllable: as many consonants as English
 * syllables may begin with go to the vowel behind them. A word of one syllable has none. Undefined if a symbol is none
 * of ARPAbet's.
 */
export function sounds(arpabet: string): Sound[] | undefined {
  const symbols = arpabet.trim().split(/\s+/);
  const phones: Phone[] = [];
  for (const symbol of symbols) {
    const phone = read(symbol);
    if (!phone) return undefined;
    phones.push(phone);
  }
  const vowels = phones.flatMap(({ stress }, i) => (stress === undefined ? [] : [i]));
  const marks = new Map<number, string>();
  vowels.forEach((vowel, n) => {
    const mark = { "1": "ˈ", "2": "ˌ" }[phones[vowel]?.stress ?? ""];
    if (!mark || vowels.length < 2) return;
    let first = vowel;
    const least = n === 0 ? 0 : (vowels[n - 1] ?? 0) + 1;
    const onset = (from: number): string => phones.slice(from, vowel).map(({ name }) => name).join(" ");
    const fits = (from: number): boolean =>
      n === 0 || (vowel - from === 1 ? onset(from) !== "NG" : ONSETS.has(onset(from)));
    while (first > least && fits(first - 1)) first--;
    marks.set(first, mark);
  });
  return phones.map(({ ipa }, i) => ({ arpabet: symbols[i] ?? "", ipa: (marks.get(i) ?? "") + ipa }));
}
