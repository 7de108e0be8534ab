import { T5 } from "pocket-t5";

const t5 = await T5.load();
let text = "";
for await (const piece of t5.generate("translate English to German: Where is the station?")) text += piece;
console.log(JSON.stringify({ text, info: await t5.info() }));
t5.dispose();
