//! One text in, one text out, in the built-in model:
//! `cargo run --release -p t5-runtime --example translate -- "Where is the station?"`

use t5_runtime::{GenerateOptions, Model};

fn main() -> t5_runtime::Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| "Where is the station?".to_owned());
    let model = Model::pocket()?;
    // Beam search; the default is greedy search, which is faster.
    let options = GenerateOptions::default().beams(4);
    let mut session = model.session();
    let outputs = session.generate(&format!("translate English to German: {text}"), &options)?.finish();
    println!("{}", outputs[0].text);
    Ok(())
}
