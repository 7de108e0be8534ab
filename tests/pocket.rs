//! The built-in model: the reference's answers from before quantisation.

use t5_runtime::checkpoint::Checkpoint;
use t5_runtime::kernels::{Isa, Kernels};
use t5_runtime::{Finish, GenerateOptions, Lookup, Model, ModelOptions, Output, Overrides};
use t5_tests::golden::{Golden, difference};
use t5_tests::paths;

fn golden() -> Golden {
    Golden::read(&paths::golden("pocket.jsonl"))
}

#[test]
fn the_tokenizer_is_the_reference_s() {
    let model = Model::pocket().unwrap();
    for case in &golden().cases {
        assert_eq!(model.tokenizer().unwrap().encode(case.text("text")), case.ids("input_ids"), "line {}", case.line);
    }
}

/// The bounds that the project promises for Q8_0.
#[test]
fn int8_stays_near_the_reference() {
    let model = Model::pocket().unwrap();
    let vocab = model.config().vocab_size;
    let mut session = model.session();
    let (mut tokens, mut agreed, mut moved) = (0, 0, 0.0);
    for case in &golden().cases {
        let (source, target) = (case.ids("input_ids"), case.ids("ids"));
        let logits = session.logits_ids(&source, &target).unwrap();
        for (row, &token) in logits.chunks_exact(vocab).zip(&target) {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).unwrap().0;
            agreed += usize::from(best == token as usize);
        }
        let found = session.score_ids(&source, &target).unwrap().logprobs;
        let expected = case.floats("logprobs");
        assert!(difference(&found, &expected) < 0.5, "line {}: {found:?}", case.line);
        moved += found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)).sum::<f64>();
        tokens += target.len();
    }
    println!("{agreed} of {tokens} tokens, mean log-probability moved by {:.5}", moved / tokens as f64);
    assert!(agreed * 100 >= tokens * 98, "{agreed} of {tokens} tokens agree");
    assert!((moved / tokens as f64).abs() < 0.01);
}

/// Words whose partner a person knows: the heads that the file names find most of them.
#[test]
fn words_are_aligned() {
    let model = Model::pocket().unwrap();
    let mut session = model.session();
    let (mut right, mut all) = (0, 0);
    let bare = |word: &str| word.trim_matches([',', '.']).to_owned();
    for line in std::fs::read_to_string(paths::golden("alignment.jsonl")).unwrap().lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let words = session.align(&text(&case["source"]), &text(&case["target"])).unwrap();
        assert!(words.source.iter().all(|word| word != "translate" && word != "English"));
        for link in case["links"].as_array().unwrap() {
            let target = words.target.iter().position(|word| bare(word) == text(&link[1])).unwrap();
            let found = bare(&words.source[words.strongest(target).unwrap()]);
            right += usize::from(found == text(&link[0]));
            all += 1;
        }
    }
    // Sentence by sentence, where there are as many.
    let source = "translate English to German: The cat sleeps. The dog barks.";
    let words = session.align(source, "Die Katze schläft. Der Hund bellt.").unwrap();
    assert_eq!(words.source, ["The", "cat", "sleeps.", "The", "dog", "barks."]);
    let found: Vec<usize> = (0..6).map(|target| words.strongest(target).unwrap()).collect();
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    assert!((0..3).all(|target| words.weights[target * 6 + 3..][..3] == [0.0; 3]));
    assert_eq!(session.align(source, "Die Katze schläft und der Hund bellt.").unwrap().target.len(), 7);
    println!("{right} of {all} words are aligned");
    assert!(right >= 57, "{right} of {all}");
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let golden = golden();
    let run = |isa: Isa| {
        let checkpoint = Checkpoint::pocket().unwrap();
        let model =
            Model::from_checkpoint(checkpoint, &ModelOptions { isa: Some(isa), ..ModelOptions::default() }).unwrap();
        let mut session = model.session();
        let mut found = Vec::new();
        for case in &golden.cases {
            for beams in [1, 4] {
                let options = GenerateOptions::default().beams(beams).max_new_tokens(40);
                let output = session.generate(case.text("text"), &options).unwrap().finish().remove(0);
                found.push((output.ids, output.logprobs.iter().map(|value| value.to_bits()).collect::<Vec<_>>()));
            }
        }
        found
    };
    let scalar = run(Isa::Scalar);
    for kernels in Kernels::available() {
        assert!(run(kernels.isa()) == scalar, "{}", kernels.isa().name());
    }
}

#[test]
fn looking_tokens_up_in_the_source_changes_nothing_but_the_number_of_passes() {
    let golden = golden();
    let mut session = Model::pocket().unwrap().session();
    let texts = golden.cases.iter().map(|case| case.text("text"));
    let copies = [
        "fix: The tall man and his brother walk to the old station every morning.",
        "fix: She have three cats and two dogs, and the cats and two dogs sleep in the house.",
        "translate English to German: one two one two one two one two one two one two one two",
    ];
    let (mut passes, mut tokens) = (0, 0);
    for text in texts.chain(copies) {
        let variants = [
            GenerateOptions::default(),
            GenerateOptions::default().logprobs(false),
            GenerateOptions::default().min_new_tokens(30).logprobs(false),
            GenerateOptions::default().repetition_penalty(1.3).no_repeat_ngram(3).min_new_tokens(9),
            GenerateOptions::default().prefix("The tall"),
            GenerateOptions::default().max_new_tokens(5).suppress(vec![3]),
        ];
        for options in variants {
            let limit = options.max_new_tokens.min(40);
            let options = options.max_new_tokens(limit);
            let mut run = |lookup: Lookup| {
                let options = options.clone().lookup(lookup);
                let mut generation = session.generate(text, &options).unwrap();
                while generation.step() {}
                let passes = generation.passes();
                let output = generation.finish().remove(0);
                let bits: Vec<u32> = output.logprobs.iter().map(|value| value.to_bits()).collect();
                (passes, (output.text, output.ids, bits, output.score.to_bits(), output.finish))
            };
            let (plain, with) = (run(Lookup::Off), run(Lookup::On));
            assert_eq!(with.1, plain.1, "{text}, {options:?}");
            assert_eq!(plain.0, plain.1.1.len());
            passes += with.0;
            tokens += plain.0;
        }
    }
    println!("{passes} passes for {tokens} tokens");
    assert!(passes < tokens, "{passes} passes for {tokens} tokens");
    // A sentence without a slip is all copied.
    let options = GenerateOptions::default().lookup(Lookup::On);
    let mut generation = session.generate(copies[0], &options).unwrap();
    while generation.step() {}
    let passes = generation.passes();
    let output = generation.finish().remove(0);
    assert_eq!(output.text, copies[0].trim_start_matches("fix: "));
    assert!(2 * passes < output.ids.len(), "{passes} passes for {} tokens", output.ids.len());
}

/// Tasks of single sentences: longer texts give what their sentences give one by one.
#[test]
fn texts_are_answered_sentence_by_sentence() {
    let model = Model::pocket().unwrap();
    let mut session = model.session();
    let text = |[first, second, third]: [&str; 3]| format!("{first}  {second}\n\n- {third}\n");
    let english = ["The cat sleeps.", "Where is the station?", "I have never seen such a beautiful house!"];
    let german = ["Die Katze schläft.", "Wo ist der Bahnhof?", "Ich habe noch nie so ein schönes Haus gesehen!"];
    let french = ["Le chat dort.", "Où se trouve la gare ?", "Je n'ai jamais vu une si belle maison !"];
    let slips = ["He go to teh station.", "I has two cats.", "Their is a problem with teh car."];
    let mended = ["He goes to the station.", "I have two cats.", "There is a problem with the car."];
    for (name, prefix, sentences, expected) in [
        ("translation_en_to_de", "translate English to German: ", english, german),
        ("translation_en_to_fr", "translate English to French: ", english, french),
        ("correction", "fix: ", slips, mended),
    ] {
        let typed = format!("{prefix}{}", text(sentences));
        for beams in [None, Some(4)] {
            let asked = Overrides { beams, ..Overrides::default() };
            let options = model.options(&asked).unwrap();
            let mut one = |sentence: &&str| {
                session.generate(&format!("{prefix}{sentence}"), &options).unwrap().finish().remove(0)
            };
            let alone: Vec<Output> = sentences.iter().map(&mut one).collect();
            let found = session.generate(&typed, &options).unwrap().finish().remove(0);
            assert_eq!(found.text, text([&alone[0].text, &alone[1].text, &alone[2].text]));
            assert_eq!(found.ids, alone.iter().flat_map(|output| output.ids.clone()).collect::<Vec<_>>());
            let logprobs: Vec<f32> = alone.iter().flat_map(|output| output.logprobs.clone()).collect();
            assert_eq!(found.logprobs, logprobs);
            assert_eq!(found.finish, Finish::EndOfSequence);
            if beams.is_none() {
                assert_eq!(found.text, text(expected));
            }
            // By the task's name instead of its prefix.
            let asked = Overrides { task: Some(name.to_owned()), ..asked };
            let options = model.options(&asked).unwrap();
            assert_eq!(session.generate(&text(sentences), &options).unwrap().finish()[0], found);
            // In one piece it is one answer, and another text.
            let whole = model.options(&Overrides { split_sentences: Some(false), ..asked }).unwrap();
            let whole = session.generate(&text(sentences), &whole).unwrap().finish().remove(0);
            println!("{name}, {beams:?} beams, in one piece: {:?}", whole.text);
            let ends = |output: &Output| output.ids.iter().filter(|&&id| id == model.config().eos_token_id).count();
            assert_eq!([ends(&whole), ends(&found)], [1, 3]);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_ne!(words(&whole.text), words(&found.text));
        }
    }
}

/// Words are pronounced one by one, each from the ids that the reference reads where they are typed letter by letter.
#[test]
fn words_are_spelled_out() {
    let model = Model::pocket().unwrap();
    let mut session = model.session();
    let options = model.options(&Overrides { beams: Some(1), ..Overrides::default() }).unwrap();
    let (mut words, mut phones) = (Vec::new(), Vec::new());
    for case in &golden().cases {
        let Some(letters) = case.text("text").strip_prefix("pronounce: ") else { continue };
        let word = letters.replace(' ', "");
        assert_eq!(letters.len(), 2 * word.len() - 1, "line {}", case.line);
        let expected = session.generate_ids(&case.ids("input_ids"), &options).unwrap().finish();
        for text in [format!("pronounce: {letters}"), format!("pronounce: {word}")] {
            assert_eq!(session.generate(&text, &options).unwrap().finish(), expected);
        }
        words.push(word.to_uppercase());
        phones.push(expected[0].text.clone());
    }
    assert!(words.len() > 1);
    let all = session.generate(&format!("pronounce: {}!", words.join(", ")), &options).unwrap().finish().remove(0);
    assert_eq!(all.text, phones.join(" "));
}
