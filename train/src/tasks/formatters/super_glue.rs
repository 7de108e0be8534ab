//! SuperGLUE's tasks with forms of their own: MultiRC and ReCoRD.

use std::borrow::Cow;

use super::{
    fields::{Formatted, text, values},
    glue::glue,
};
use crate::{source::Record, tasks::example::TextExample};

/// MultiRC: a question, one of its answers, and whether it is right. HTML is taken out.
pub(super) fn multirc(record: &Record) -> Formatted<TextExample> {
    let labels = ["False".to_string(), "True".to_string()];
    let keys = ["question".to_string(), "answer".to_string(), "paragraph".to_string()];
    let mut example = glue(record, "multirc", &keys, &labels, "label", None)?;
    example.inputs = example.inputs.replace("<br>", " ").replace("<b>", "").replace("</b>", "");
    // The reference groups by the question's number alone.
    let index = text(record, "idx")?;
    let index: serde_json::Value =
        serde_json::from_str(&index).map_err(|e| format!("idx: expected an object, found {index:?}: {e}"))?;
    example.group = index.get("question").map_or_else(String::new, ToString::to_string);
    Ok(example)
}

/// ReCoRD: the entity that fills a gap. The target is the first answer, `<unk>` where a test set has none.
pub(super) fn record(record: &Record) -> Formatted<TextExample> {
    let passage = join_highlights(&text(record, "passage")?);
    let query = text(record, "query")?;
    let entities = values(record, "entities")?.join(", ");
    let references = record.values("answers").unwrap_or_default().to_vec();
    let inputs = format!("record query: {query} entities: {entities} passage: {passage}");
    let target = references.first().cloned().unwrap_or("<unk>".into());
    let group = record.text("idx").map_or_else(String::new, Cow::into_owned);
    Ok(TextExample { references, group, ..TextExample::new(inputs, target) })
}

/// ReCoRD's `@highlight` lines become sentences of the passage.
fn join_highlights(passage: &str) -> String {
    let mark = "\n@highlight\n";
    let mut out = String::with_capacity(passage.len());
    let mut parts = passage.split(mark);
    out.push_str(parts.next().unwrap_or(""));
    for part in parts {
        out.push_str(if out.ends_with(['.', '?', '!', '"', '\'']) { " " } else { ". " });
        out.push_str(part);
    }
    out
}
