import { T5 } from "pocket-t5";
import wasm from "pocket-t5/wasm/simd128/t5_wasm_bg.wasm";
import model from "pocket-t5-model/pocket-t5.gguf";

// Kept from one request to the next, as long as this instance lives.
let loading;

export default {
  async fetch(request) {
    const t5 = await (loading ??= T5.load(model, { wasm }));
    const text = new URL(request.url).searchParams.get("text");
    if (text !== null) return new Response(t5.generate(text).stream().pipeThrough(new TextEncoderStream()));
    const answer = await t5.generate("translate English to German: Where is the station?").text();
    return Response.json({ text: answer, info: await t5.info() });
  },
};
