//! Classifiers and answerers against the transformers library: golden/heads, over the weights of families/unigram.

use serde_json::{Value, json};
use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::head::HeadTask;
use t5_runtime::tensor::DType;
use t5_runtime::{GenerateOptions, Model, ModelOptions};
use t5_tests::beside::{HEADS, head};
use t5_tests::convert::converted;
use t5_tests::{Golden, Report, families, paths};

fn model(checkpoint: Checkpoint) -> Model {
    Model::from_checkpoint(checkpoint, &ModelOptions::default()).unwrap()
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let sum: f32 = row.iter().map(|value| value.exp()).sum();
    row.iter().map(|value| value.exp() / sum).collect()
}

/// What the library's pipelines make of logits.
fn scores(name: &str, logits: &[Vec<f32>]) -> Vec<f32> {
    match name {
        "regression" => logits.concat(),
        "several" => logits.concat().into_iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        _ => logits.iter().flat_map(|row| softmax(row)).collect(),
    }
}

fn check(name: &str, model: &Model, tolerance: f32, report: &mut Report) {
    let golden = Golden::read(&paths::golden("heads").join(name).join("golden.jsonl"));
    let mut session = model.session();
    for case in &golden.cases {
        let place = format!("{name}, line {}", case.line);
        let logits: Vec<Vec<f32>> =
            case.get("logits").as_array().unwrap().iter().map(t5_tests::golden::floats).collect();
        if name != "question" {
            let found = session.classify(case.text("text")).unwrap();
            report.equal(&place, &found.input_ids, &case.ids("ids"));
            report.close("scores", &place, &found.scores, &scores(name, &logits), tolerance);
            continue;
        }
        let found = session.answer(case.text("question"), case.text("context"), 15).unwrap();
        report.equal(&place, &found.input_ids, &case.ids("ids"));
        // The best span of the context, every one tried.
        let first = found.input_ids.iter().position(|&id| id == 1).unwrap() + 1;
        let context = &logits[first..logits.len() - 1];
        let column = |i: usize| softmax(&context.iter().map(|row| row[i]).collect::<Vec<_>>());
        let (starts, ends) = (column(0), column(1));
        let spans =
            (0..context.len()).flat_map(|start| (start..context.len().min(start + 15)).map(move |end| (start, end)));
        let score = |&(start, end): &(usize, usize)| starts[start] * ends[end];
        let best = spans.max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
        report.close("answer", &place, &[found.score], &[score(&best)], tolerance);
        if tolerance < 1e-3 {
            report.equal(&place, &found.span, &(first + best.0..first + best.1 + 1));
            let text = model.tokenizer().unwrap().decode(&found.input_ids[found.span.clone()], true);
            report.equal(&place, found.text.as_str(), text.trim());
        }
    }
}

#[test]
fn heads_say_what_the_transformers_library_says() {
    let mut report = Report::default();
    for name in HEADS {
        let folder = head(name);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.notes.is_empty(), "{name}: {:?}", checkpoint.notes);
        let file = converted(folder.path(), DType::F32);
        assert_eq!(file.head, checkpoint.head);
        check(name, &model(checkpoint), 1e-4, &mut report);
        check(name, &model(file), 1e-4, &mut report);
    }
    report.finish("heads");
}

/// A head that reads the decoder's states goes with the decoder.
#[test]
fn an_encoder_alone_can_classify_tokens_only() {
    for name in HEADS {
        let folder = head(name);
        let mut checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.keep_encoder_only();
        let expected = (name == "tokens").then_some(HeadTask::Tokens);
        assert_eq!(checkpoint.head.map(|head| head.task), expected, "{name}");
    }
}

/// Random weights and peaked attention make the most of what int8 rounds: scores differ by 0.0324 at most, measured,
/// and the same on every instruction set. The best answer stays the best.
#[test]
fn heads_in_eight_bits() {
    let mut report = Report::default();
    for name in HEADS.iter().filter(|name| **name != "regression") {
        check(name, &model(converted(head(name).path(), DType::Q8_0)), 0.035, &mut report);
    }
    report.finish("heads in int8");
}

#[test]
fn labels_are_those_of_the_file() {
    for (name, task, labels) in [
        ("sequence", HeadTask::Sequence, &["negative", "neutral", "positive"][..]),
        ("tokens", HeadTask::Tokens, &["O", "B-PER", "I-PER", "B-LOC"]),
        ("question", HeadTask::Question, &["LABEL_0", "LABEL_1"]),
    ] {
        let folder = head(name);
        let model = Model::open(folder.path()).unwrap();
        let found = model.head().unwrap();
        assert_eq!((found.task, &found.labels.iter().map(String::as_str).collect::<Vec<_>>()[..]), (task, labels));
        assert_eq!(model.config().is_encoder_only(), task == HeadTask::Tokens);
    }
}

#[test]
fn a_model_does_what_it_was_made_for() {
    let folders = HEADS.map(head);
    let open = |name: &str| Model::open(folders[HEADS.iter().position(|n| *n == name).unwrap()].path()).unwrap();
    let sequence = open("sequence");
    let error = sequence.session().generate("a", &GenerateOptions::default()).err().unwrap().to_string();
    assert!(error.contains("expected a model that generates, found one for sequence-classification"), "{error}");
    let error = sequence.session().score("a", "b").unwrap_err().to_string();
    assert!(error.contains("expected a model that generates"), "{error}");
    let error = sequence.session().answer("a", "b", 15).unwrap_err().to_string();
    assert!(error.contains("expected a model for question-answering, found sequence-classification"), "{error}");
    let error = sequence.session().classify_ids(&[5, 6]).unwrap_err().to_string();
    assert_eq!(error, "source: expected the end token 1 among the ids, found none");
    let question = open("question");
    let error = question.session().classify("a").unwrap_err().to_string();
    assert!(error.contains("expected a model for sequence-classification or token-classification"), "{error}");
    assert!(question.session().answer("a", "", 15).unwrap_err().to_string().starts_with("context: "));
    assert!(question.session().answer("a", "b", 0).unwrap_err().to_string().contains("at least 1, found 0"));
    let plain = Model::open(families::folder("unigram")).unwrap();
    let error = plain.session().classify("a").unwrap_err().to_string();
    assert!(error.contains("found one that generates or encodes"), "{error}");
}

#[test]
fn damaged_heads_are_named() {
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let folder = head(name);
        let path = folder.path().join("config.json");
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        Checkpoint::open(folder.path())
    };
    for (name, key, value, expected) in [
        ("sequence", "id2label", json!({"0": "a", "1": "b"}), "expected a label for each of 3 values, found 2"),
        (
            "sequence",
            "id2label",
            json!({"0": "a", "2": "b"}),
            "id2label: expected an object with a label for each number",
        ),
        ("sequence", "id2label", json!([]), "id2label: expected an object with a label for each number"),
        ("sequence", "problem_type", json!("guess"), "problem_type: expected single_label_classification"),
        ("tokens", "architectures", json!(["T5ForQuestionAnswering"]), "tensor"),
        (
            "question",
            "architectures",
            json!(["T5ForSequenceClassification"]),
            "tensor classification_head.dense.weight",
        ),
    ] {
        let error = changed(name, &|json| json[key] = value.clone()).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "expected {expected}, found {error}");
    }
    // A class that nobody knows is named, and what it leaves over is, too.
    let checkpoint = changed("question", &|json| json["architectures"] = json!(["T5ForGuessing"])).unwrap();
    let notes = checkpoint.notes.join("\n");
    assert!(notes.contains("architectures: T5ForGuessing is not known"), "{notes}");
    assert!(notes.contains("unknown tensors are not used: qa_outputs.bias, qa_outputs.weight"), "{notes}");
    assert!(checkpoint.not_obeyed.iter().any(|note| note.contains("T5ForGuessing")));
}
