//! Prints a text as it is generated, from any model, until it ends or a second is over:
//! `cargo run --release -p t5-runtime --example stream -- MODEL "summarize: …"`

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use t5_runtime::{GenerateOptions, Model, default_threads};

fn main() -> t5_runtime::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = match arguments.next() {
        Some(path) => Model::open(path)?,
        None => Model::pocket()?,
    };
    let text = arguments.next().unwrap_or_else(|| "translate English to French: The book is on the table.".to_owned());
    let cancel = Arc::new(AtomicBool::new(false));
    let options = GenerateOptions::default().cancel(cancel.clone());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        cancel.store(true, Ordering::Relaxed);
    });
    let mut session = model.session();
    session.set_threads(default_threads());
    let mut generation = session.generate(&text, &options)?;
    let mut output = std::io::stdout();
    while let Some(piece) = generation.next_piece() {
        // Where the pipe or the terminal is gone, there is nobody to go on for.
        if write!(output, "{piece}").and_then(|()| output.flush()).is_err() {
            return Ok(());
        }
    }
    let outputs = generation.finish();
    println!("\n{} tokens, ended by {}", outputs[0].ids.len(), outputs[0].finish.name());
    Ok(())
}
