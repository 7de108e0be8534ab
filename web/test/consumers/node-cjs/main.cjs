// Node 20.19 and newer; before, `await import("pocket-t5")` does the same.
const { T5 } = require("pocket-t5");

T5.load().then(async (t5) => {
  const text = await t5.generate("translate English to German: Where is the station?").text();
  console.log(JSON.stringify({ text, info: await t5.info() }));
  t5.dispose();
});
