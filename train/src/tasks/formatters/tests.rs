use super::*;
use crate::source::Value;

fn record(fields: &[(&str, &str)]) -> Record {
    Record::new(1, fields.iter().map(|(k, v)| (k.to_string(), Value::Text(v.to_string()))).collect())
}

fn with_list(mut fields: Vec<(&str, &str)>, name: &str, list: &[&str]) -> Record {
    let mut all: Vec<_> = fields.drain(..).map(|(k, v)| (k.to_string(), Value::Text(v.to_string()))).collect();
    all.push((name.to_string(), Value::List(list.iter().map(|s| s.to_string()).collect())));
    Record::new(1, all)
}

fn glue_task(benchmark: &str, keys: &[&str], labels: &[&str]) -> Examples {
    let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
    Examples::Glue {
        benchmark: benchmark.into(),
        keys: owned(keys),
        labels: owned(labels),
        label: "label".into(),
        pattern: None,
    }
}

fn pair(examples: &Examples, record: &Record) -> (String, String) {
    let example = examples.evaluation(record).unwrap().remove(0);
    (example.inputs, example.targets)
}

#[test]
fn templates() {
    let task = Examples::Template { input: "translate English to German: {en}".into(), target: "{{{de}}}".into() };
    let record = record(&[("en", "That is good."), ("de", "Das ist gut.")]);
    assert_eq!(pair(&task, &record), ("translate English to German: That is good.".into(), "{Das ist gut.}".into()));
    let bad = Examples::Template { input: "{fr}".into(), target: "{de}".into() };
    assert_eq!(bad.training(&record).unwrap_err(), r#"expected a field "fr", found ["en", "de"]"#);
    for broken in ["{", "a {b", "a } b"] {
        assert!(Template::parse(broken).is_err(), "{broken}");
    }
}

#[test]
fn a_list_as_target_is_several_examples_or_references() {
    let task = Examples::Template { input: "pronounce: {word}".into(), target: "{pronunciations}".into() };
    let record = with_list(vec![("word", "a")], "pronunciations", &["AH0", "EY1"]);
    let training = task.training(&record).unwrap();
    assert_eq!(training.iter().map(|e| e.targets.as_str()).collect::<Vec<_>>(), ["AH0", "EY1"]);
    let evaluation = task.evaluation(&record).unwrap();
    assert_eq!(evaluation.len(), 1);
    assert_eq!(evaluation[0].references, ["AH0", "EY1"]);
}

#[test]
fn glue_and_superglue_examples_of_the_paper() {
    let cola = glue_task("cola", &["sentence"], &["unacceptable", "acceptable"]);
    assert_eq!(
        pair(&cola, &record(&[("sentence", "John made Bill master of himself."), ("label", "1")])),
        ("cola sentence: John made Bill master of himself.".into(), "acceptable".into())
    );
    let rte = glue_task("rte", &["sentence1", "sentence2"], &["entailment", "not_entailment"]);
    let (inputs, targets) =
        pair(&rte, &record(&[("sentence1", "A."), ("sentence2", "B."), ("label", "not_entailment")]));
    assert_eq!((inputs.as_str(), targets.as_str()), ("rte sentence1: A. sentence2: B.", "not_entailment"));
    let copa = glue_task("copa", &["choice1", "choice2", "premise", "question"], &["choice1", "choice2"]);
    let fields = [
        ("premise", "Political violence broke out in the nation."),
        ("choice1", "Many citizens relocated to the capitol."),
        ("choice2", "Many citizens took refuge in other territories."),
        ("question", "effect"),
        ("label", "1"),
    ];
    assert_eq!(
        pair(&copa, &record(&fields)),
        (
            "copa choice1: Many citizens relocated to the capitol. choice2: Many citizens took refuge in other \
             territories. premise: Political violence broke out in the nation. question: effect"
                .into(),
            "choice2".into()
        )
    );
    // A test set's label.
    assert_eq!(pair(&cola, &record(&[("sentence", "x"), ("label", "-1")])).1, "<unk>");
    assert_eq!(pair(&cola, &record(&[("sentence", "x")])).1, "<unk>");
    let error = cola.training(&record(&[("sentence", "x"), ("label", "2")])).unwrap_err();
    assert_eq!(error, "label: expected a class of 0 to 1, found 2");
    let error = rte.training(&record(&[("sentence1", ""), ("sentence2", ""), ("label", "yes")])).unwrap_err();
    assert!(error.contains("expected one of"), "{error}");
}

#[test]
fn a_pattern_divides_a_text_into_keys() {
    let Examples::Glue { benchmark, keys, labels, label, .. } =
        glue_task("wic", &["sentence1", "sentence2", "word"], &["False", "True"])
    else {
        unreachable!()
    };
    let pattern = Some("Word: {word}. Sentence 1: {sentence1} Sentence 2: {sentence2}".to_string());
    let wic = Examples::Glue { benchmark, keys, labels, label, pattern };
    let fields = [
        (
            "text",
            "Word: institution. Sentence 1: The institution of slavery . Sentence 2: The institution of marriage .",
        ),
        ("label", "1"),
    ];
    assert_eq!(
        pair(&wic, &record(&fields)),
        (
            "wic sentence1: The institution of slavery . sentence2: The institution of marriage . word: institution"
                .into(),
            "True".into()
        )
    );
    assert!(wic.training(&record(&[("text", "no pattern"), ("label", "1")])).is_err());
}

#[test]
fn stsb_rounds_half_to_even_in_steps_of_a_fifth() {
    let stsb = Examples::Stsb { label: "label".into() };
    let rows = [
        ("2.8", "2.8"),
        ("1.66", "1.6"),
        ("0.5", "0.4"),
        ("1.5", "1.6"),
        ("2.5", "2.4"),
        ("3.5", "3.6"),
        ("4.5", "4.4"),
        ("2.57", "2.6"),
        ("3.25", "3.2"),
        ("5.000", "5.0"),
        ("0", "0.0"),
    ];
    for (label, expected) in rows {
        let fields = [("sentence1", "Big news."), ("sentence2", "No idea."), ("label", label)];
        let (inputs, targets) = pair(&stsb, &record(&fields));
        assert_eq!(inputs, "stsb sentence1: Big news. sentence2: No idea.");
        assert_eq!(targets, expected, "{label}");
    }
    assert_eq!(postprocess_stsb(" 2.6"), 2.6);
    assert_eq!(postprocess_stsb("about 2"), -1.0);
}

#[test]
fn squad_pads_punctuation() {
    let fields = vec![("question", "x"), ("context", r#""This  is a string with "punctuation (1845-1986) "."#)];
    let record = with_list(fields, "answers", &["x"]);
    assert_eq!(
        pair(&Examples::Squad, &record).0,
        r#"question: x context: " This is a string with " punctuation ( 1845 - 1986 ) " . "#
    );
    let record = with_list(
        vec![("question", "A question?"), ("context", "Some context. The answer.")],
        "answers",
        &["The answer.", "answer", "answer"],
    );
    let example = Examples::Squad.evaluation(&record).unwrap().remove(0);
    assert_eq!(example.inputs, "question: A question ? context: Some context . The answer . ");
    assert_eq!(example.targets, "The answer . ");
    assert_eq!(example.references, ["The answer . ", "answer"]);
    let span = Examples::SquadSpan.evaluation(&record).unwrap().remove(0);
    // Words: Some context _ _ The answer _ _ _ (the marks and what pads them are empty words).
    assert_eq!(span.targets, "start: 4 end: 8");
    let trivia = Examples::SquadTrivia.evaluation(&record).unwrap().remove(0);
    assert_eq!(trivia.inputs, "squad trivia question: A question ? ");
}

#[test]
fn multirc_takes_out_html() {
    let fields = [
        (
            "paragraph",
            "<b>Sent 1: </b>Once upon a time, there was a squirrel named Joey.<br><b>Sent 2: </b>Joey loved to go.",
        ),
        ("question", "Why?"),
        ("answer", "There was only pie to eat"),
        ("label", "1"),
        ("idx", r#"{"paragraph": 0, "question": 7, "answer": 2}"#),
    ];
    let example = Examples::Multirc.training(&record(&fields)).unwrap().remove(0);
    assert_eq!(
        example.inputs,
        "multirc question: Why? answer: There was only pie to eat paragraph: Sent 1: Once upon a time, there was a \
         squirrel named Joey. Sent 2: Joey loved to go."
    );
    assert_eq!((example.targets.as_str(), example.group.as_str()), ("True", "7"));
}

#[test]
fn record_has_an_example_for_each_answer() {
    let mut fields = vec![
        (
            "passage".to_string(),
            Value::Text("This is the passage\n@highlight\nAnother sentence.\n@highlight\nThird sentence.".into()),
        ),
        ("query".to_string(), Value::Text("It was @placeholder.".into())),
        ("entities".to_string(), Value::List(vec!["A".into(), "B".into(), "C".into()])),
        ("answers".to_string(), Value::List(vec!["A".into(), "C".into()])),
    ];
    let examples = Examples::Record.training(&Record::new(1, fields.clone())).unwrap();
    assert_eq!(
        examples[0].inputs,
        "record query: It was @placeholder. entities: A, B, C passage: This is the passage. Another sentence. Third \
         sentence."
    );
    assert_eq!(examples.iter().map(|e| e.targets.as_str()).collect::<Vec<_>>(), ["A", "C"]);
    fields[3].1 = Value::List(vec![]);
    assert_eq!(Examples::Record.training(&Record::new(1, fields)).unwrap()[0].targets, "<unk>");
}

#[test]
fn only_the_white_space_of_re2_collapses() {
    let context = |text: &str| {
        let record = with_list(vec![("question", "q"), ("context", text)], "answers", &["x"]);
        pair(&Examples::Squad, &record).0.strip_prefix("question: q context: ").unwrap().to_string()
    };
    for kept in ["a\u{a0}b", "a\u{b}b", "a\u{85}b", "a\u{2003}\u{2003}b", "a\u{2028}b", "a\u{3000}b", "a\u{1c}b"] {
        assert_eq!(context(kept), kept);
    }
    assert_eq!(context("a\t\n\u{c}\r b"), "a b");
}

#[test]
fn spans_are_counted_and_read_back_alike() {
    let span = |context: &str, answer: &str| {
        let record = with_list(vec![("question", "q"), ("context", context)], "answers", &[answer]);
        Examples::SquadSpan.evaluation(&record).unwrap().pop()
    };
    // The last place is tried as any other.
    let example = span("The answer is 42", "42").unwrap();
    assert_eq!(example.targets, "start: 3 end: 3");
    assert_eq!(span("The answer is 42", "43"), None);
    for (context, answer) in [
        ("Some context. The answer.", "The answer"),
        ("It has 5-10 (or so) cafés, he said.", "5-10 (or so"),
        ("It has cafés, he said.", "cafés"),
    ] {
        let example = span(context, answer).unwrap();
        assert_eq!(words_of_span(&example.context, &example.targets).trim(), example.references[0].trim(), "{context}");
    }
}

#[test]
fn trivia_qa_has_an_example_for_each_context_and_alias() {
    let list = |items: &[&str]| Value::List(items.iter().map(|s| s.to_string()).collect());
    let record = Record::new(
        1,
        vec![
            ("question".into(), Value::Text("Who wrote  it?".into())),
            ("contexts".into(), list(&["Mr. Blair (George ORWELL) did.", "Nobody knows.", "Eric Blair"])),
            ("answers".into(), list(&["george orwell", "blair", "x y"])),
        ],
    );
    let texts: Vec<_> =
        Examples::TriviaQa.training(&record).unwrap().into_iter().map(|e| (e.inputs, e.targets)).collect();
    let first = "question: Who wrote it ? context: Mr . Blair ( George ORWELL ) did . ";
    let third = "question: Who wrote it ? context: Eric Blair";
    let expected = [(first, "george orwell"), (first, "blair"), (third, "blair")];
    assert_eq!(texts, expected.map(|(inputs, target)| (inputs.to_string(), target.to_string())));
    // Judged once for each context, by every alias.
    let examples = Examples::TriviaQa.evaluation(&record).unwrap();
    let inputs: Vec<&str> = examples.iter().map(|e| e.inputs.as_str()).collect();
    assert_eq!(inputs, [first, third]);
    assert!(examples.iter().all(|e| e.references == ["george orwell", "blair", "x y"]));
}

#[test]
fn test_sets_without_labels_make_examples() {
    let stsb = Examples::Stsb { label: "score".into() };
    let fields = [("sentence1", "A."), ("sentence2", "B.")];
    assert_eq!(pair(&stsb, &record(&fields)), ("stsb sentence1: A. sentence2: B.".into(), "-1.0".into()));
    let fields = vec![("passage", "P."), ("query", "It was @placeholder.")];
    let without_answers = with_list(fields, "entities", &["A", "B"]);
    for examples in [Examples::Record.training(&without_answers), Examples::Record.evaluation(&without_answers)] {
        let examples = examples.unwrap();
        assert_eq!(examples.len(), 1);
        assert_eq!(examples[0].inputs, "record query: It was @placeholder. entities: A, B passage: P.");
        assert_eq!(examples[0].targets, "<unk>");
    }
}

/// Every benchmark's text in the form of the published checkpoints, letter by letter.
#[test]
fn texts_of_every_class_task() {
    /// Task, fields of a record, class names, the text with fields in brackets, the class named second.
    type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static str, &'static str);
    let rows: &[Row] = &[
        ("sst2", &["sentence"], &["negative", "positive"], "sst2 sentence: <sentence>", "positive"),
        (
            "mrpc",
            &["sentence1", "sentence2"],
            &["not_equivalent", "equivalent"],
            "mrpc sentence1: <sentence1> sentence2: <sentence2>",
            "equivalent",
        ),
        (
            "qqp",
            &["question1", "question2"],
            &["not_duplicate", "duplicate"],
            "qqp question1: <question1> question2: <question2>",
            "duplicate",
        ),
        (
            "mnli",
            &["hypothesis", "premise"],
            &["entailment", "neutral", "contradiction"],
            "mnli hypothesis: <hypothesis> premise: <premise>",
            "neutral",
        ),
        (
            "qnli",
            &["question", "sentence"],
            &["entailment", "not_entailment"],
            "qnli question: <question> sentence: <sentence>",
            "not_entailment",
        ),
        (
            "boolq",
            &["passage", "question"],
            &["False", "True"],
            "boolq passage: <passage> question: <question>",
            "True",
        ),
        (
            "cb",
            &["hypothesis", "premise"],
            &["entailment", "contradiction", "neutral"],
            "cb hypothesis: <hypothesis> premise: <premise>",
            "contradiction",
        ),
        // SuperGLUE's, whose keys are not those of GLUE's task of this name; AX-b and AX-g are cast as it.
        (
            "rte",
            &["hypothesis", "premise"],
            &["entailment", "not_entailment"],
            "rte hypothesis: <hypothesis> premise: <premise>",
            "not_entailment",
        ),
        (
            "wic",
            &["sentence1", "sentence2", "word"],
            &["False", "True"],
            "wic sentence1: <sentence1> sentence2: <sentence2> word: <word>",
            "True",
        ),
    ];
    for (benchmark, keys, labels, inputs, target) in rows {
        let values: Vec<String> = keys.iter().map(|key| format!("<{key}>")).collect();
        let mut fields: Vec<(&str, &str)> = keys.iter().copied().zip(values.iter().map(String::as_str)).collect();
        fields.push(("label", "1"));
        let found = pair(&glue_task(benchmark, keys, labels), &record(&fields));
        assert_eq!((found.0.as_str(), found.1.as_str()), (*inputs, *target));
    }
}

#[test]
fn summaries_and_translations_of_the_paper() {
    let template = |input: &str, target: &str| Examples::Template { input: input.into(), target: target.into() };
    let summary = record(&[("article", "An article."), ("highlights", "A summary.")]);
    assert_eq!(
        pair(&template("summarize: {article}", "{highlights}"), &summary),
        ("summarize: An article.".into(), "A summary.".into())
    );
    let sentence = record(&[("en", "That is good."), ("fr", "C'est bon."), ("ro", "E bine.")]);
    for (language, code, target) in [("French", "fr", "C'est bon."), ("Romanian", "ro", "E bine.")] {
        let task = template(&format!("translate English to {language}: {{en}}"), &format!("{{{code}}}"));
        let inputs = format!("translate English to {language}: That is good.");
        assert_eq!(pair(&task, &sentence), (inputs, target.to_string()));
    }
}

/// Every local benchmark file makes examples of known labels.
#[test]
fn benchmark_files() {
    use crate::{
        objectives::Sentinels,
        tasks::{Limits, Task, TaskConfig, TooLong},
        vocabulary::Vocabulary,
    };
    let vocabulary = Vocabulary::bytes(384).unwrap();
    assert_eq!(vocabulary.sentinels(), Sentinels { first: 258, count: vocabulary.sentinels().count });
    let limits = Limits { inputs_length: 4096, targets_length: 128, too_long: TooLong::Truncate };
    let registry: toml::Table = include_str!("../../../configs/benchmarks.toml").parse().unwrap();
    let tasks: Vec<TaskConfig> = registry["data"]["tasks"].clone().try_into().unwrap();
    // Registry name, training examples, evaluation examples, one target of the evaluation's first example.
    let expected = [
        ("data/glue.tar.xz", "cola", 8551, "acceptable"),
        ("data/glue.tar.xz", "sst2", 67349, "positive"),
        ("data/glue.tar.xz", "mrpc", 3667, "equivalent"),
        ("data/glue.tar.xz", "stsb", 5749, "5.0"),
        ("data/glue.tar.xz", "qnli", 0, "entailment"),
        ("data/glue.tar.xz", "rte", 2490, "not_entailment"),
        ("data/glue.tar.xz", "wnli", 0, "The hair"),
        ("data/superglue.tar.xz", "cb", 218, "contradiction"),
        ("data/superglue.tar.xz", "copa", 368, "choice2"),
        ("data/superglue.tar.xz", "wic", 4647, ""),
        ("data/xquad.tar.xz", "squad", 0, "308"),
        ("data/scitldr.tar.xz", "scitldr", 1992, ""),
    ];
    let mut folders = std::collections::HashMap::new();
    for (archive, name, count, target) in expected {
        let Some(folder) = folders.entry(archive).or_insert_with(|| crate::testing::unpacked(archive)).as_ref() else {
            continue;
        };
        let config = tasks.iter().find(|task| task.name == name).unwrap_or_else(|| panic!("no task {name}"));
        let task = Task::load(config, folder.path(), &vocabulary, limits, 1).unwrap_or_else(|e| panic!("{e}"));
        println!("{name}: {:?}\n  {:?}", task.report, task.dev[0]);
        assert_eq!(task.len(), count, "{name}");
        assert!(!task.dev.is_empty() && task.dev[0].targets.starts_with(target), "{name}: {:?}", task.dev[0]);
        let labels = config.examples.labels();
        if !labels.is_empty() {
            assert!(task.dev.iter().all(|example| labels.contains(&example.targets)), "{name}");
        }
    }
}
