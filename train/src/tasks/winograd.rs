//! The Winograd family: DPR, WSC and WNLI as "which noun does the marked pronoun mean".
use super::TextExample;

pub fn dpr(sentence: &str, pronoun: &str, candidates: &[String], label: &str) -> Result<TextExample, String> {
    let _ = (sentence, pronoun, candidates, label);
    todo!()
}
pub fn wsc(_text: &str, _span1: &str, _span2: &str, _index: usize) -> Result<TextExample, String> {
    todo!()
}
/// todo
pub fn wnli_to_wsc(_premise: &str, _hypothesis: &str) -> Option<(String, String)> {
    todo!()
}
/// todo
pub fn wsc_score(_prediction: &str, _referent: &str) -> i32 {
    todo!()
}
