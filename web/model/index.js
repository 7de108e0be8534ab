/** The model's address: a file in Node, what bundlers make of it elsewhere. */
export default new URL("./pocket-t5.gguf", import.meta.url);
