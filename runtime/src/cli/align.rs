//! `t5 align`.

use serde_json::json;
use t5_runtime::WordAlignment;

use super::args::PairArgs;
use super::input::answer_pairs;

pub fn run(args: &PairArgs) -> anyhow::Result<()> {
    answer_pairs(args, |session, source, target| {
        let words = session.align(source, target)?;
        Ok(if args.json { as_json(&words).to_string() } else { links(&words) })
    })
}

/// `SOURCE→TARGET` for each word of the target.
fn links(words: &WordAlignment) -> String {
    let link = |(target, word): (usize, &String)| {
        words.strongest(target).map(|source| format!("{}→{word}", words.source[source]))
    };
    let links: Vec<String> = words.target.iter().enumerate().filter_map(link).collect();
    links.join(" ")
}

fn as_json(words: &WordAlignment) -> serde_json::Value {
    let rows: Vec<&[f32]> = words.rows().collect();
    json!({"source": words.source, "target": words.target, "weights": rows})
}
