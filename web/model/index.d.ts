/** The model's address, for `T5.load`. */
declare const address: URL;
export default address;
