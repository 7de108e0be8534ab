//! How alike texts are: the cosine of the means of their encoder states.
//! `cargo run --release -p t5-runtime --example embed -- "A red house" "A small red building" "He sang"`

use t5_runtime::Model;

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn main() -> t5_runtime::Result<()> {
    let mut texts: Vec<String> = std::env::args().skip(1).collect();
    if texts.is_empty() {
        texts = ["A red house", "A small red building", "He sang"].map(str::to_owned).into();
    }
    let model = Model::pocket()?;
    let mut session = model.session();
    let embeddings = texts.iter().map(|text| session.embed(text)).collect::<t5_runtime::Result<Vec<_>>>()?;
    for (text, embedding) in texts.iter().zip(&embeddings).skip(1) {
        println!("{:.3}  {:?} and {:?}", cosine(&embeddings[0], embedding), texts[0], text);
    }
    Ok(())
}
