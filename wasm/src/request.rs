//! Requests and results as JSON, with the names of the JavaScript package.

use serde_json::{Value, json};
use t5_runtime::{Output, Overrides, Score, WordAlignment};

use crate::error::Failure;

fn wrong(option: &str, expected: &str, found: &Value) -> Failure {
    Failure::new("bad-option", format!("{option}: expected {expected}, found {found}"))
}

/// The value as the runtime names it, of an option whose JavaScript value is another.
fn translated(name: &str, value: &Value) -> Result<Option<Value>, Failure> {
    match name {
        "lengthPenaltyKind" => match value.as_str() {
            Some("t5") => Ok(None),
            Some("huggingFace") => Ok(Some("hugging_face".into())),
            _ => Err(wrong(name, "\"t5\" or \"huggingFace\"", value)),
        },
        // From 2^53 on, JavaScript's numbers stand for several; a `BigInt` crosses as digits in a text.
        "seed" if value.as_u64().is_some_and(|seed| seed >= 1 << 53) => {
            Err(wrong(name, "a whole number of 0 or more", value))
        }
        _ => Ok(None),
    }
}

/// An option's name as the runtime has it: `topK` is `top_k`. What is written that way already is no name here.
fn in_rust(option: &str) -> Option<String> {
    let mut name = String::new();
    for letter in option.chars() {
        match letter {
            '_' => return None,
            'A'..='Z' => name.extend(['_', letter.to_ascii_lowercase()]),
            _ => name.push(letter),
        }
    }
    Some(name)
}

/// What a task says of its texts: who asks names the task.
const A_TASKS: &str = "source_prefix";

/// What a request asks for.
///
/// # Errors
/// `bad-option` for an option that does not exist, or has a value of another type.
pub fn overrides(json: &str) -> Result<Overrides, Failure> {
    let request: Value =
        serde_json::from_slice(json.as_bytes()).map_err(|error| Failure::new("bad-option", error.to_string()))?;
    let request = request.as_object().ok_or_else(|| wrong("options", "an object", &request))?;
    let mut overrides = Overrides::default();
    for (name, value) in request {
        let translated = translated(name, value)?;
        let option = in_rust(name).filter(|option| option != A_TASKS);
        let known = option.map(|option| overrides.set(&option, translated.as_ref().unwrap_or(value))).transpose()?;
        if known != Some(true) {
            return Err(Failure::new("bad-option", format!("{name}: there is no option of this name")));
        }
    }
    Ok(overrides)
}

/// The n-best list, best first. JSON has null for the score of one without log-probabilities, which is NaN.
pub fn outputs(outputs: &[Output]) -> String {
    let list: Value = outputs
        .iter()
        .map(|output| {
            let mut json = json!({
                "text": output.text,
                "ids": output.ids,
                "logprobs": output.logprobs,
                "score": output.score,
                "finish": output.finish.name(),
            });
            if !output.alternatives.is_empty() {
                json["alternatives"] = json!(output.alternatives);
            }
            json
        })
        .collect();
    list.to_string()
}

pub fn score(score: &Score) -> String {
    json!({ "ids": score.ids, "logprobs": score.logprobs, "sum": score.sum }).to_string()
}

/// Weights as rows, one for each target word.
pub fn alignment(words: &WordAlignment) -> String {
    let weights: Vec<&[f32]> = words.rows().collect();
    json!({"source": words.source, "target": words.target, "weights": weights}).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use t5_runtime::checkpoint::Checkpoint;
    use t5_runtime::storage::Bytes;
    use t5_runtime::{EarlyStopping, LengthPenaltyKind, Lookup, Model, ModelOptions};

    use super::*;

    /// Requests with the text that every face must give: tests/requests.jsonl, which the command reads, too.
    #[test]
    fn requests_give_the_texts_of_the_table() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let table = std::fs::read_to_string(tests.join("requests.jsonl")).unwrap();
        assert!(table.lines().count() > 20);
        for line in table.lines() {
            let request: Value = serde_json::from_str(line).unwrap();
            let mut files = std::collections::HashMap::new();
            for file in ["config.json", "model.safetensors", "tokenizer.json"] {
                let bytes = std::fs::read(tests.join("golden/families/unigram").join(file)).unwrap();
                files.insert(file.to_owned(), Bytes::from_vec(bytes));
            }
            let mut config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
            config.as_object_mut().unwrap().extend(request["config"].as_object().unwrap().clone());
            files.insert("config.json".to_owned(), Bytes::from_vec(config.to_string().into_bytes()));
            if let Some(generation) = request.get("generation") {
                let text = generation.to_string().into_bytes();
                files.insert("generation_config.json".to_owned(), Bytes::from_vec(text));
            }
            let checkpoint = Checkpoint::from_files("folder", &files).unwrap();
            let model = Model::from_checkpoint(checkpoint, &ModelOptions::default()).unwrap();
            let options = model.options(&overrides(&request["javascript"].to_string()).unwrap()).unwrap();
            let source = options.source(&model, request["text"].as_str().unwrap()).unwrap();
            let outputs = model.session().into_generation(source, &options).unwrap().finish();
            assert_eq!(outputs[0].text, request["output"].as_str().unwrap(), "{line}");
        }
    }

    #[test]
    fn every_option_arrives() {
        let request = r#"{"task":"t","maxNewTokens":1e1,"minNewTokens":2,"nBest":3,"temperature":0.5,
            "topK":4,"topP":0.75,"minP":0.25,"typicalP":0.5,"epsilonCutoff":0.125,"etaCutoff":0.0625,"topH":0.375,
            "seed":9007199254740991,"repetitionPenalty":1.5,"encoderRepetitionPenalty":1.25,
            "noRepeatNgram":6,"encoderNoRepeatNgram":5,
            "exponentialDecay":[7,1.125],"prefix":"a","prefixIds":[7,8],"forcedBos":11,"forcedEos":[12],"suppress":[9],
            "beginSuppress":[13],"allowed":[10],"badWords":[[14,15],[16]],"sequenceBias":[[[17],-2.5]],
            "renormalize":true,"removeInvalid":true,"stop":["b"],"choices":["c"],
            "earlyStopping":"never","lengthPenalty":0.5,"lengthPenaltyKind":"t5","beams":1,"beamGroups":1,
            "diversityPenalty":0.75,"logprobs":false,"topLogprobs":3,"lookup":"on","splitSentences":true,"maxInputTokens":512,
            "truncate":true}"#;
        let expected = Overrides {
            task: Some("t".to_owned()),
            max_new_tokens: Some(10),
            min_new_tokens: Some(2),
            beams: Some(1),
            beam_groups: Some(1),
            diversity_penalty: Some(0.75),
            length_penalty: Some(0.5),
            length_penalty_kind: Some(LengthPenaltyKind::T5),
            early_stopping: Some(EarlyStopping::Never),
            n_best: Some(3),
            temperature: Some(0.5),
            top_k: Some(4),
            top_p: Some(0.75),
            min_p: Some(0.25),
            typical_p: Some(0.5),
            epsilon_cutoff: Some(0.125),
            eta_cutoff: Some(0.0625),
            top_h: Some(0.375),
            seed: Some((1 << 53) - 1),
            repetition_penalty: Some(1.5),
            encoder_repetition_penalty: Some(1.25),
            no_repeat_ngram: Some(6),
            encoder_no_repeat_ngram: Some(5),
            exponential_decay: Some((7, 1.125)),
            // A task's, not a request's.
            source_prefix: None,
            split_sentences: Some(true),
            max_input_tokens: Some(512),
            truncate: Some(true),
            prefix: Some("a".to_owned()),
            prefix_ids: Some(vec![7, 8]),
            forced_bos: Some(11),
            forced_eos: Some(vec![12]),
            suppress: Some(vec![9]),
            begin_suppress: Some(vec![13]),
            allowed: Some(vec![10]),
            bad_words: Some(vec![vec![14, 15], vec![16]]),
            sequence_bias: Some(vec![(vec![17], -2.5)]),
            renormalize: Some(true),
            remove_invalid: Some(true),
            stop: Some(vec!["b".to_owned()]),
            choices: Some(vec!["c".to_owned()]),
            logprobs: Some(false),
            top_logprobs: Some(3),
            lookup: Some(Lookup::On),
        };
        assert_eq!(overrides(request).unwrap(), expected);
    }

    /// As the command's, and as those of JavaScript's two kinds of whole numbers.
    #[test]
    fn seeds_have_64_bits() {
        for (seed, expected) in [
            ("4294967296", 1 << 32),
            ("9007199254740991", (1 << 53) - 1),
            ("\"9007199254740993\"", (1 << 53) + 1),
            ("\"18446744073709551615\"", u64::MAX),
        ] {
            assert_eq!(overrides(&format!("{{\"seed\":{seed}}}")).unwrap().seed, Some(expected));
        }
        for seed in ["-1", "1.5", "9007199254740992", "\"18446744073709551616\"", "\"-1\"", "\"\"", "\"+1\""] {
            let failure = overrides(&format!("{{\"seed\":{seed}}}")).unwrap_err();
            assert_eq!(failure.message, format!("seed: expected a whole number of 0 or more, found {seed}"));
        }
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        for (request, message) in [
            (r#"{"beam":2}"#, "beam: there is no option of this name"),
            (r#"{"top_k":2}"#, "top_k: there is no option of this name"),
            (r#"{"sourcePrefix":"x"}"#, "sourcePrefix: there is no option of this name"),
            (r#"{"beams":-1}"#, "beams: expected a whole number of 0 or more, found -1"),
            (r#"{"beams":1.5}"#, "beams: expected a whole number of 0 or more, found 1.5"),
            (r#"{"topP":"x"}"#, "topP: expected a number, found \"x\""),
            (r#"{"stop":"x"}"#, "stop: expected a list, found \"x\""),
            (r#"{"prefix":1}"#, "prefix: expected a text, found 1"),
            (r#"{"earlyStopping":"yes"}"#, "earlyStopping: expected true, false or \"never\", found \"yes\""),
            (r#"{"lengthPenaltyKind":"x"}"#, "lengthPenaltyKind: expected \"t5\" or \"huggingFace\", found \"x\""),
            (r#"{"logprobs":0}"#, "logprobs: expected true or false, found 0"),
            (r#"{"splitSentences":"yes"}"#, "splitSentences: expected true or false, found \"yes\""),
            (r#"{"lookup":"yes"}"#, "lookup: expected \"auto\", \"on\" or \"off\", found \"yes\""),
            (r#"{"sequenceBias":[[1,2,3]]}"#, "sequenceBias: expected a list of two, found [1,2,3]"),
            (r#"{"badWords":[1]}"#, "badWords: expected a list, found 1"),
            ("[]", "options: expected an object, found []"),
        ] {
            let failure = overrides(request).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), ("bad-option", message));
        }
    }
}
