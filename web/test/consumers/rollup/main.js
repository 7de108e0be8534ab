import { T5 } from "pocket-t5";

const t5 = await T5.load(undefined, { assets: "./pocket-t5/" });
const pieces = [];
for await (const piece of t5.generate("translate English to German: Where is the station?")) pieces.push(piece);
globalThis.result = { text: pieces.join(""), info: await t5.info() };
