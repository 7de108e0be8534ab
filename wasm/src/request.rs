//! Requests and results as JSON, with the names of the JavaScript package.

use serde_json::{Value, json};
use t5_runtime::{Alignment, EarlyStopping, GenerateOptions, LengthPenalty, Lookup, Model, Output, Score};

use crate::error::Failure;

fn wrong(option: &str, expected: &str, found: &Value) -> Failure {
    Failure::new("bad-option", format!("{option}: expected {expected}, found {found}"))
}

fn count(option: &str, value: &Value) -> Result<usize, Failure> {
    // JavaScript's whole numbers; `as_u64` alone would refuse 1e3.
    let number = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(n));
    let number = number.ok_or_else(|| wrong(option, "a whole number of 0 or more", value))?;
    usize::try_from(number as u64).map_err(|_| wrong(option, "a number below 4294967296", value))
}

fn float(option: &str, value: &Value) -> Result<f32, Failure> {
    value.as_f64().map(|x| x as f32).ok_or_else(|| wrong(option, "a number", value))
}

fn choice(option: &str, value: &Value) -> Result<bool, Failure> {
    value.as_bool().ok_or_else(|| wrong(option, "true or false", value))
}

fn text(option: &str, value: &Value) -> Result<String, Failure> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(option, "a text", value))
}

fn list<'v>(option: &str, value: &'v Value) -> Result<&'v [Value], Failure> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(option, "a list", value))
}

fn ids(option: &str, value: &Value) -> Result<Vec<u32>, Failure> {
    let id =
        |value: &Value| u32::try_from(count(option, value)?).map_err(|_| wrong(option, "ids below 4294967296", value));
    list(option, value)?.iter().map(id).collect()
}

/// The checkpoint's own options with those of a request in their place.
///
/// # Errors
/// `bad-option` for an option that does not exist, or has a value of another type.
pub fn options(model: &Model, json: &str) -> Result<GenerateOptions, Failure> {
    let request: Value = serde_json::from_str(json).map_err(|error| Failure::new("bad-option", error.to_string()))?;
    let request = request.as_object().ok_or_else(|| wrong("options", "an object", &request))?;
    let mut options = GenerateOptions::from_defaults(model.generation_defaults());
    if request.get("temperature").and_then(Value::as_f64).is_some_and(|t| t > 0.0) {
        // The checkpoint's beams do not stand in the way of sampling.
        options.beams = 1;
    }
    let mut t5_penalty = matches!(options.length_penalty, LengthPenalty::T5 { .. });
    if let Some(kind) = request.get("lengthPenaltyKind") {
        t5_penalty = match kind.as_str() {
            Some("t5") => true,
            Some("huggingFace") => false,
            _ => return Err(wrong("lengthPenaltyKind", "\"t5\" or \"huggingFace\"", kind)),
        };
        if !request.contains_key("lengthPenalty") {
            options.length_penalty = match (t5_penalty, options.length_penalty) {
                (true, LengthPenalty::HuggingFace { .. }) => LengthPenalty::T5 { alpha: 0.6 },
                (false, LengthPenalty::T5 { .. }) => LengthPenalty::HuggingFace { exponent: 1.0 },
                (_, same) => same,
            };
        }
    }
    for (name, value) in request {
        match name.as_str() {
            "maxNewTokens" => options.max_new_tokens = Some(count(name, value)?),
            "minNewTokens" => options.min_new_tokens = count(name, value)?,
            "beams" => options.beams = count(name, value)?,
            "nBest" => options.n_best = count(name, value)?,
            "lengthPenaltyKind" => {}
            "lengthPenalty" => {
                let factor = float(name, value)?;
                options.length_penalty = match t5_penalty {
                    true => LengthPenalty::T5 { alpha: factor },
                    false => LengthPenalty::HuggingFace { exponent: factor },
                };
            }
            "earlyStopping" => {
                options.early_stopping = match value {
                    Value::Bool(true) => EarlyStopping::Yes,
                    Value::Bool(false) => EarlyStopping::No,
                    Value::String(never) if never == "never" => EarlyStopping::Never,
                    _ => return Err(wrong(name, "true, false or \"never\"", value)),
                }
            }
            "temperature" => options.temperature = float(name, value)?,
            "topK" => options.top_k = count(name, value)?,
            "topP" => options.top_p = float(name, value)?,
            "minP" => options.min_p = float(name, value)?,
            "seed" => options.seed = count(name, value)? as u64,
            "repetitionPenalty" => options.repetition_penalty = float(name, value)?,
            "noRepeatNgram" => options.no_repeat_ngram = count(name, value)?,
            "prefix" => options.prefix = text(name, value)?,
            "prefixIds" => options.prefix_ids = ids(name, value)?,
            "suppress" => options.suppress = ids(name, value)?,
            "allowed" => options.allowed = Some(ids(name, value)?),
            "stop" => {
                options.stop = list(name, value)?.iter().map(|stop| text(name, stop)).collect::<Result<_, _>>()?
            }
            "logprobs" => options.logprobs = choice(name, value)?,
            "lookup" => {
                options.lookup = match value.as_str() {
                    Some("auto") => Lookup::Auto,
                    Some("on") => Lookup::On,
                    Some("off") => Lookup::Off,
                    _ => return Err(wrong(name, "\"auto\", \"on\" or \"off\"", value)),
                }
            }
            _ => return Err(Failure::new("bad-option", format!("{name}: there is no option of this name"))),
        }
    }
    Ok(options)
}

/// The n-best list, best first. JSON has null for the score of one without log-probabilities, which is NaN.
pub fn outputs(outputs: &[Output]) -> String {
    let list: Value = outputs
        .iter()
        .map(|output| {
            json!({
                "text": output.text,
                "ids": output.ids,
                "logprobs": output.logprobs,
                "score": output.score,
                "finish": output.finish.name(),
            })
        })
        .collect();
    list.to_string()
}

pub fn score(score: &Score) -> String {
    json!({ "ids": score.ids, "logprobs": score.logprobs, "sum": score.sum }).to_string()
}

/// Weights as rows, one for each target token.
pub fn alignment(model: &Model, alignment: &Alignment) -> String {
    let weights: Vec<&[f32]> = alignment.weights.chunks_exact(alignment.source_ids.len().max(1)).collect();
    json!({
        "sourceIds": alignment.source_ids,
        "targetIds": alignment.target_ids,
        "sourcePieces": pieces(model, &alignment.source_ids),
        "targetPieces": pieces(model, &alignment.target_ids),
        "weights": weights,
    })
    .to_string()
}

/// The pieces of ids, with `▁` for a space; null for ids without one.
fn pieces(model: &Model, ids: &[u32]) -> Value {
    let tokenizer = model.tokenizer().ok();
    ids.iter().map(|&id| tokenizer.and_then(|tokenizer| tokenizer.piece(id)).map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Model {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/t5-1.0");
        Model::open(golden).unwrap()
    }

    #[test]
    fn every_option_arrives() {
        let request = r#"{"maxNewTokens":1e1,"minNewTokens":2,"nBest":3,"temperature":0.5,"topK":4,"topP":0.75,
            "minP":0.25,"seed":9007199,"repetitionPenalty":1.5,"noRepeatNgram":6,"prefix":"a","prefixIds":[7,8],
            "suppress":[9],"allowed":[10],"stop":["b"],"earlyStopping":"never","lengthPenalty":0.5,
            "lengthPenaltyKind":"t5","beams":1,"logprobs":false,"lookup":"on"}"#;
        let options = options(&tiny(), request).unwrap();
        assert_eq!(options.max_new_tokens, Some(10));
        assert_eq!((options.min_new_tokens, options.n_best, options.beams), (2, 3, 1));
        assert_eq!((options.temperature, options.top_k, options.top_p, options.min_p), (0.5, 4, 0.75, 0.25));
        assert_eq!((options.seed, options.repetition_penalty, options.no_repeat_ngram), (9_007_199, 1.5, 6));
        assert_eq!((options.prefix.as_str(), options.prefix_ids.as_slice()), ("a", &[7, 8][..]));
        assert_eq!((options.suppress.as_slice(), options.allowed.as_deref()), (&[9][..], Some(&[10][..])));
        assert_eq!((options.stop.as_slice(), options.early_stopping), (&["b".to_owned()][..], EarlyStopping::Never));
        assert_eq!(options.length_penalty, LengthPenalty::T5 { alpha: 0.5 });
        assert_eq!((options.logprobs, options.lookup), (false, Lookup::On));
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        let model = tiny();
        for (request, message) in [
            (r#"{"beam":2}"#, "beam: there is no option of this name"),
            (r#"{"beams":-1}"#, "beams: expected a whole number of 0 or more, found -1"),
            (r#"{"beams":1.5}"#, "beams: expected a whole number of 0 or more, found 1.5"),
            (r#"{"topP":"x"}"#, "topP: expected a number, found \"x\""),
            (r#"{"stop":"x"}"#, "stop: expected a list, found \"x\""),
            (r#"{"prefix":1}"#, "prefix: expected a text, found 1"),
            (r#"{"earlyStopping":"yes"}"#, "earlyStopping: expected true, false or \"never\", found \"yes\""),
            (r#"{"lengthPenaltyKind":"x"}"#, "lengthPenaltyKind: expected \"t5\" or \"huggingFace\", found \"x\""),
            (r#"{"logprobs":0}"#, "logprobs: expected true or false, found 0"),
            (r#"{"lookup":"yes"}"#, "lookup: expected \"auto\", \"on\" or \"off\", found \"yes\""),
            ("[]", "options: expected an object, found []"),
        ] {
            let failure = options(&model, request).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), ("bad-option", message));
        }
    }
}
