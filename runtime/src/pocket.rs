//! The model that comes with the program, a crate of its own: `runtime/model`, described in the card there.

use crate::checkpoint::Checkpoint;
use crate::storage::Bytes;
use crate::{Model, ModelOptions, Result};

/// How messages name it.
pub const NAME: &str = "the built-in model";

/// The file's bytes: GGUF, Q8_0.
pub fn bytes() -> &'static [u8] {
    pocket_t5_model::gguf()
}

impl Checkpoint {
    /// The built-in model's weights and vocabulary.
    pub fn pocket() -> Result<Checkpoint> {
        Checkpoint::from_gguf(NAME, Bytes::from_static(bytes()))
    }
}

impl Model {
    /// The built-in model: translation between English and German or French, pronunciation, corrections, filling
    /// of gaps. Its card, `runtime/model/README.md`, lists prefixes and quality.
    ///
    /// ```
    /// let model = t5_runtime::Model::pocket()?;
    /// let mut session = model.session();
    /// let request = "translate English to German: Where is the station?";
    /// let outputs = session.generate(request, &Default::default())?.finish();
    /// assert_eq!(outputs[0].text, "Wo ist der Bahnhof?");
    /// # Ok::<(), t5_runtime::Error>(())
    /// ```
    pub fn pocket() -> Result<Model> {
        Model::from_checkpoint(Checkpoint::pocket()?, &ModelOptions::default())
    }
}
