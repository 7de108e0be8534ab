// onnxruntime-web on the graphs of tests/peers: the encoder with cross-attention's keys and values, and one step.

/** A page with the engine; `round` loads it from the browser's cache and measures once. */
export async function onnxRuntime(browser, url, { source, count }) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${url}/empty.html`);
  const version = await page.evaluate(
    async ([source, count]) => {
      const ort = await import("/onnxruntime-web/ort.wasm.min.mjs");
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = "/onnxruntime-web/";
      const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
      const cache = await caches.open("graphs");
      await cache.addAll(["/onnx/encoder.onnx", "/onnx/step.onnx"]);
      const open = async (name) => {
        const bytes = await (await cache.match(`/onnx/${name}.onnx`)).arrayBuffer();
        return ort.InferenceSession.create(bytes, options);
      };
      const [first, end] = await (await fetch("/onnx/ids.json")).json();
      const ids = new ort.Tensor("int64", BigInt64Array.from(source, BigInt), [1, source.length]);
      let encoder;
      let step;

      /** Greedy decoding; without `end` the end of text is not looked at, which costs nothing. */
      const decode = async (cross, end) => {
        const past = step.inputNames.filter((name) => name.startsWith("past"));
        const feeds = { ...cross, token: new ort.Tensor("int64", BigInt64Array.of(BigInt(first)), [1, 1]) };
        const [, heads, , width] = cross.cross0.dims;
        for (const name of past) feeds[name] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
        const found = [];
        for (let i = 0; i < count; i++) {
          const out = await step.run(feeds);
          let next = Number(out.next.data[0]);
          if (end !== undefined) {
            out.logits.data[end] = -Infinity;
            next = out.logits.data.reduce((best, value, id, all) => (value > all[best] ? id : best), 0);
          }
          found.push(next);
          feeds.token = new ort.Tensor("int64", BigInt64Array.of(BigInt(next)), [1, 1]);
          past.forEach((name) => (feeds[name] = out[name.replace("past", "grown")]));
        }
        return found;
      };
      globalThis.round = async () => {
        await encoder?.release();
        await step?.release();
        let begin = performance.now();
        [encoder, step] = [await open("encoder"), await open("step")];
        const loadMs = performance.now() - begin;
        // Uncounted, and with the end of text suppressed: the answer that is compared.
        const answer = await decode(await encoder.run({ ids }), end);
        begin = performance.now();
        const cross = await encoder.run({ ids });
        const encoded = performance.now();
        await decode(cross);
        return { encoder: encoded - begin, token: (performance.now() - encoded) / count, loadMs, ids: answer };
      };
      return ort.env.versions.web ?? ort.env.versions.common;
    },
    [source, count],
  );
  return { name: `onnxruntime-web ${version} int8`, size: "", round: () => page.evaluate(() => globalThis.round()) };
}
