//! `t5 serve` over real sockets: what each protocol answers, what is refused and how, and what becomes of requests
//! whose clients go away or that a signal meets.

#[path = "common/command.rs"]
mod command;
#[path = "common/http.rs"]
mod http;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use command::t5;
use http::{Answer, PATIENCE, Reply, Request, Server, connect, wait};
use serde_json::{Value, json};
use t5_runtime::{Model, Pooling};

const GERMAN: &str = "translate English to German: Where is the station?";
const TEXT: &str = "translate English to German: Good morning! Where is the station?  I am looking for my brother.";

/// What the command prints.
fn command(arguments: &[&str]) -> String {
    let output = t5(arguments, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn generated(text: &str, flags: &[&str]) -> Value {
    let printed = command(&[&["generate", text, "--json"], flags].concat());
    serde_json::from_str(&printed).unwrap()
}

fn completion(server: &Server, body: Value) -> Value {
    server.ask("/v1/completions", &body)
}

/// A body with more fields.
fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Chunks of a stream, without its last line.
fn chunks(answer: &Answer) -> Vec<Value> {
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// A request that takes long.
fn long(tokens: usize) -> Value {
    json!({"prompt": GERMAN, "max_new_tokens": tokens, "min_new_tokens": tokens, "stream": true})
}

#[test]
fn texts_are_those_of_the_command() {
    let server = Server::start(&[]);
    for (text, flags, fields) in [
        (GERMAN, &[][..], json!({})),
        (TEXT, &[], json!({})),
        (TEXT, &["--split-sentences", "no"], json!({"split_sentences": false})),
        ("Where is the station?", &["--task", "translation_en_to_fr"], json!({"task": "translation_en_to_fr"})),
        (GERMAN, &["--beams", "4"], json!({"beams": 4})),
        (
            GERMAN,
            &["--beams", "4", "--penalty", "hf", "--early-stopping", "never"],
            json!({"beams": 4, "length_penalty_kind": "hugging_face", "early_stopping": "never"}),
        ),
        (
            TEXT,
            &["--temperature", "0.9", "--top-p", "0.8", "--seed", "7"],
            json!({"temperature": 0.9, "top_p": 0.8, "seed": 7}),
        ),
        (GERMAN, &["--max-new-tokens", "3"], json!({"max_tokens": 3})),
        (TEXT, &["--stop", "Bahnhof"], json!({"stop": "Bahnhof"})),
        (
            "pronounce: station",
            &["--repetition-penalty", "1.4", "--no-repeat-ngram", "2"],
            json!({"repetition_penalty": 1.4, "no_repeat_ngram": 2}),
        ),
        (GERMAN, &["--prefix", "Sag"], json!({"prefix": "Sag"})),
    ] {
        let expected = generated(text, flags);
        let found = completion(&server, with(json!({"prompt": text, "logprobs": 0}), fields.clone()));
        let choice = &found["choices"][0];
        assert_eq!(choice["text"], expected["text"], "{text} {fields}");
        assert_eq!(choice["logprobs"]["token_logprobs"], expected["logprobs"], "{text} {fields}");
        assert_eq!(choice["finish_reason"], if expected["finish"] == "length" { "length" } else { "stop" });
        let (input, new) = (&expected["input_ids"], &expected["ids"]);
        let (input, new) = (input.as_array().unwrap().len(), new.as_array().unwrap().len());
        let usage = json!({"prompt_tokens": input, "completion_tokens": new, "total_tokens": input + new});
        assert_eq!(found["usage"], usage);
        // The same by the other protocols.
        let body = json!({"inputs": text, "parameters": fields});
        if fields.get("max_tokens").is_none() && fields.get("stop").is_none_or(Value::is_array) {
            assert_eq!(server.ask("/generate", &body)["generated_text"], expected["text"]);
            let tensor = json!([{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]);
            let body = json!({"inputs": tensor, "parameters": fields});
            let found = server.ask("/v2/models/pocket-t5/infer", &body);
            assert_eq!(found["outputs"][0]["data"], json!([expected["text"]]));
        }
        // And the same in pieces.
        let streamed = with(json!({"prompt": text, "logprobs": 0, "stream": true}), fields.clone());
        let chunks = chunks(&server.post("/v1/completions", &streamed));
        let all = |pick: &dyn Fn(&Value) -> Vec<Value>| chunks.iter().flat_map(pick).collect::<Vec<_>>();
        let texts = all(&|chunk| vec![chunk["choices"][0]["text"].clone()]);
        let text: String = texts.iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!(expected["text"], text.as_str(), "{fields}");
        let list = |chunk: &Value| chunk["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
        assert_eq!(json!(all(&list)), expected["logprobs"], "{fields}");
        let (last, before) = chunks.split_last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], choice["finish_reason"]);
        assert!(before.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
        let is_one_piece = fields.get("beams").is_some() || fields.get("max_tokens").is_some();
        assert!(is_one_piece || chunks.len() > 3, "{} chunks: {fields}", chunks.len());
    }
}

#[test]
fn completions_have_the_form_of_openai() {
    let server = Server::start(&[]);
    // Several prompts, several choices of each.
    let prompts = json!([GERMAN, "translate English to French: Good morning!"]);
    let found = completion(&server, json!({"model": "pocket-t5", "prompt": prompts, "n": 2, "beams": 3, "user": "me"}));
    assert_eq!((&found["object"], &found["model"]), (&json!("text_completion"), &json!("pocket-t5")));
    assert!(found["id"].as_str().unwrap().starts_with("cmpl-") && found["created"].as_u64().unwrap() > 1_700_000_000);
    let choices = found["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (place, prompt) in prompts.as_array().unwrap().iter().enumerate() {
        let expected = generated(prompt.as_str().unwrap(), &["--beams", "3", "--n-best", "2"]);
        for k in 0..2 {
            assert_eq!(choices[2 * place + k]["text"], expected["n_best"][k]["text"]);
        }
    }
    assert!(choices.iter().all(|choice| choice["logprobs"].is_null()));
    // Draws, the best of several.
    let drawn = json!({"prompt": GERMAN, "temperature": 1.0, "seed": 5, "best_of": 4, "n": 2, "stream": true});
    let found = chunks(&server.post("/v1/completions", &drawn));
    let expected = generated(GERMAN, &["--temperature", "1", "--seed", "5", "--n-best", "4"]);
    assert_eq!(found.len(), 2);
    for (k, chunk) in found.iter().enumerate() {
        assert_eq!(chunk["choices"][0]["index"], k);
        assert_eq!(chunk["choices"][0]["text"], expected["n_best"][k]["text"]);
    }
    // Without a seed they differ, sooner or later.
    let draw = || completion(&server, json!({"prompt": GERMAN, "temperature": 3.0, "max_tokens": 12}));
    let first = draw()["choices"][0]["text"].clone();
    assert!((0..20).any(|_| draw()["choices"][0]["text"] != first));
    // Ids for texts.
    let expected = generated(GERMAN, &[]);
    let ids = &expected["input_ids"];
    for prompt in [ids.clone(), json!([ids, ids])] {
        let found = completion(&server, json!({"prompt": prompt}));
        for choice in found["choices"].as_array().unwrap() {
            assert_eq!(choice["text"], expected["text"]);
        }
    }
    // Alternatives.
    let found = completion(&server, json!({"prompt": GERMAN, "logprobs": 3}));
    let logprobs = &found["choices"][0]["logprobs"];
    let (tokens, top) = (logprobs["tokens"].as_array().unwrap(), logprobs["top_logprobs"].as_array().unwrap());
    assert_eq!((tokens.len(), top.len()), (expected["ids"].as_array().unwrap().len(), tokens.len()));
    assert_eq!(tokens.last().unwrap(), "</s>");
    let text: String = tokens[..tokens.len() - 1].iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(expected["text"], text.as_str());
    let mut offset = 0;
    for (place, token) in tokens.iter().enumerate() {
        let token = token.as_str().unwrap();
        assert_eq!(top[place].as_object().unwrap().len(), 3);
        assert_eq!(top[place][token], logprobs["token_logprobs"][place]);
        assert_eq!(logprobs["text_offset"][place], offset);
        offset += token.chars().count();
    }
    // A bias forbids, and what a stream has used.
    let id = &expected["ids"][0];
    let biased = json!({"prompt": GERMAN, "logit_bias": {id.to_string(): -100}});
    assert_ne!(completion(&server, biased)["choices"][0]["text"], expected["text"]);
    let streamed = json!({"prompt": GERMAN, "stream": true, "stream_options": {"include_usage": true}});
    let found = chunks(&server.post("/v1/completions", &streamed));
    let last = found.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(tokens.len())));
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "pocket-t5");
}

#[test]
fn embeddings_are_those_of_the_command() {
    let server = Server::start(&["--name", "small"]);
    let long = "The old house is on the hill. ".repeat(40);
    let texts = [GERMAN, "a", &long];
    let printed = command(&[&["embed", "--json"], &texts[..]].concat());
    let expected: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = server.ask("/v1/embeddings", &json!({"input": texts, "model": "small", "dimensions": 256}));
    assert_eq!((&found["object"], &found["model"]), (&json!("list"), &json!("small")));
    let tokens: usize = expected.iter().map(|one| one["input_ids"].as_array().unwrap().len()).sum();
    assert_eq!(found["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    for (index, expected) in expected.iter().enumerate() {
        let one = &found["data"][index];
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(one["embedding"], expected["embedding"]);
    }
    // As bytes, and of ids.
    let body = json!({"input": expected[0]["input_ids"], "encoding_format": "base64"});
    let found = server.ask("/v1/embeddings", &body);
    let text = found["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let values: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(json!(values), expected[0]["embedding"]);
    let printed = command(&["embed", GERMAN, "--json", "--pooling", "max", "--normalize"]);
    let expected: Value = serde_json::from_str(&printed).unwrap();
    let body = json!({"input": GERMAN, "pooling": "max", "normalize": true});
    assert_eq!(server.ask("/v1/embeddings", &body)["data"][0]["embedding"], expected["embedding"]);
    // By the names of the command, and by those of sentence-transformers, as elsewhere.
    let pooled = |name: &str| server.ask("/v1/embeddings", &json!({"input": GERMAN, "pooling": name}))["data"].clone();
    assert_eq!((pooled("first"), pooled("last")), (pooled("cls"), pooled("lasttoken")));
    let mut all: Vec<String> = Pooling::VECTORS.iter().map(|pooling| pooled(pooling.name()).to_string()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), Pooling::VECTORS.len());
    // Requests that are encoded together get what is theirs.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..6 {
                    let text = format!("The house number {thread} and the day {turn}.");
                    let both = server.ask("/v1/embeddings", &json!({"input": [text, "a"]}));
                    let alone = server.ask("/v1/embeddings", &json!({"input": text}));
                    assert_eq!(both["data"][0], alone["data"][0]);
                }
            });
        }
    });
}

#[test]
fn text_generation_inference_is_answered_in_its_form() {
    let server = Server::start(&[]);
    let expected = generated(GERMAN, &[]);
    let body = json!({"inputs": GERMAN, "parameters": {"details": true, "top_n_tokens": 2, "watermark": false}});
    let found = server.ask("/generate", &body);
    let details = &found["details"];
    let ids: Vec<u64> = expected["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    assert_eq!(details["finish_reason"], "eos_token");
    assert_eq!((&details["generated_tokens"], &details["seed"]), (&json!(ids.len()), &Value::Null));
    let tokens = details["tokens"].as_array().unwrap();
    assert_eq!(tokens.iter().map(|token| token["id"].as_u64().unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(tokens.iter().map(|token| token["logprob"].clone()).collect::<Value>(), expected["logprobs"]);
    assert_eq!(tokens.last().unwrap()["special"], true);
    assert_eq!(details["top_tokens"][0][0]["id"], ids[0]);
    assert_eq!(details["top_tokens"].as_array().unwrap().len(), ids.len());
    // A stream: an event for each token, the last one with all of the text.
    for (parameters, flags) in [
        (json!({}), &[][..]),
        (json!({"max_new_tokens": 4}), &["--max-new-tokens", "4"]),
        (json!({"stop": [" ist"]}), &["--stop", " ist"]),
        (json!({"beams": 2}), &["--beams", "2"]),
        (json!({"temperature": 0.7, "seed": 3}), &["--temperature", "0.7", "--seed", "3"]),
    ] {
        for text in [GERMAN, TEXT] {
            let expected = generated(text, flags);
            let answer = server.post("/generate_stream", &json!({"inputs": text, "parameters": parameters}));
            let events: Vec<Value> = answer.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect();
            assert_eq!(events.len(), expected["ids"].as_array().unwrap().len(), "{parameters}");
            let (last, before) = events.split_last().unwrap();
            assert_eq!(last["generated_text"], expected["text"], "{parameters}");
            assert!(before.iter().all(|event| event["generated_text"].is_null() && event["details"].is_null()));
            let ids: Value = events.iter().map(|event| event["token"]["id"].clone()).collect();
            let logprobs: Value = events.iter().map(|event| event["token"]["logprob"].clone()).collect();
            assert_eq!((&ids, &logprobs), (&expected["ids"], &expected["logprobs"]));
            let text: String = events.iter().map(|event| event["token"]["text"].as_str().unwrap()).collect();
            assert_eq!(expected["text"], text.as_str(), "{parameters}");
            let reason = match expected["finish"].as_str().unwrap() {
                "length" => "length",
                "stop" => "stop_sequence",
                _ => "eos_token",
            };
            assert_eq!(last["details"]["finish_reason"], reason);
            assert_eq!(last["details"]["generated_tokens"], events.len());
        }
    }
    // Draws, with the seed that was drawn for them.
    let body = json!({"inputs": GERMAN, "parameters": {"do_sample": true, "best_of": 2, "details": true}});
    let found = server.ask("/generate", &body);
    let seed = found["details"]["seed"].to_string();
    let expected = generated(GERMAN, &["--temperature", "1", "--n-best", "2", "--seed", &seed]);
    assert_eq!(found["generated_text"], expected["n_best"][0]["text"]);
    assert_eq!(found["details"]["best_of_sequences"][0]["generated_text"], expected["n_best"][1]["text"]);
    assert_eq!(server.get("/info").json()["model_id"], "pocket-t5");
}

#[test]
fn whether_to_draw_is_for_do_sample_and_then_for_the_checkpoint() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/unigram");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(fixture.join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    for (settings, cases) in [
        // Fields, and the flags beside a seed that give the same; without any nothing is drawn.
        (
            json!({"do_sample": true, "temperature": 0.6}),
            [
                (json!({}), Some(&[][..])),
                (json!({"do_sample": false}), None),
                (json!({"do_sample": true}), Some(&[])),
                (json!({"do_sample": true, "temperature": 0.9}), Some(&["--temperature", "0.9"])),
                (json!({"do_sample": false, "temperature": 0.9}), Some(&["--temperature", "0.9"])),
                (json!({"do_sample": false, "top_k": 9}), Some(&["--top-k", "9"])),
            ],
        ),
        (
            json!({"temperature": 0.6}),
            [
                (json!({}), None),
                (json!({"do_sample": false}), None),
                (json!({"do_sample": true}), Some(&["--temperature", "0.6"])),
                (json!({"do_sample": true, "top_k": 9}), Some(&["--top-k", "9"])),
                (json!({"do_sample": false, "temperature": 0.9}), Some(&["--temperature", "0.9"])),
                (json!({"do_sample": null, "temperature": 0.9}), Some(&["--temperature", "0.9"])),
            ],
        ),
    ] {
        std::fs::write(folder.path().join("generation_config.json"), settings.to_string()).unwrap();
        let server = Server::start(&["--model", path]);
        for (fields, flags) in cases {
            let parameters = with(json!({"details": true, "max_new_tokens": 12}), fields.clone());
            let found = server.ask("/generate", &json!({"inputs": "The house", "parameters": parameters}));
            let details = &found["details"];
            assert_eq!(details["seed"].is_u64(), flags.is_some(), "{settings} {fields}");
            let seed = details["seed"].to_string();
            let drawn = flags.map(|flags| [flags, &["--seed", &seed]].concat());
            let flags = drawn.unwrap_or_else(|| vec!["--temperature", "0"]);
            let flags = [&["--model", path, "--max-new-tokens", "12"], &flags[..]].concat();
            let ids: Value = details["tokens"].as_array().unwrap().iter().map(|token| token["id"].clone()).collect();
            assert_eq!(ids, generated("The house", &flags)["ids"], "{settings} {fields}");
        }
        let body = json!({"inputs": "The house", "parameters": {"do_sample": true, "temperature": 0}});
        refused(&server.post("/generate", &body), 422, &["parameters.do_sample", "a temperature above 0", "found 0"]);
        let body = json!({"inputs": "The house", "parameters": {"do_sample": true, "beams": 4}});
        refused(&server.post("/generate", &body), 422, &["parameters.do_sample", "false or no beams"]);
    }
}

#[test]
fn the_open_inference_protocol_is_answered_in_its_form() {
    let server = Server::start(&["--name", "m"]);
    for (path, field) in [("/v2/health/live", "live"), ("/v2/health/ready", "ready"), ("/v2/models/m/ready", "ready")] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()), (200, json!({field: true})));
    }
    assert_eq!(server.get("/v2").json()["name"], "t5");
    let model = server.get("/v2/models/m").json();
    assert_eq!((&model["name"], &model["inputs"][0]["datatype"]), (&json!("m"), &json!("BYTES")));
    assert_eq!(model["outputs"][2], json!({"name": "embedding", "datatype": "FP32", "shape": [-1, 256]}));
    let texts = [GERMAN, "translate English to French: Good morning!"];
    let tensor =
        |shape: Value, data: Value| json!([{"name": "text", "datatype": "BYTES", "shape": shape, "data": data}]);
    let found = server.ask(
        "/v2/models/m/infer",
        &json!({
            "id": "17", "inputs": tensor(json!([2, 1]), json!([[texts[0]], [texts[1]]])),
            "parameters": {"beams": 2, "n_best": 2}, "outputs": [{"name": "score"}, {"name": "text"}],
        }),
    );
    let expected: Vec<Value> = texts.map(|text| generated(text, &["--beams", "2", "--n-best", "2"])).into();
    let all = |field: &str| -> Value {
        let best = expected.iter().flat_map(|one| one["n_best"].as_array().unwrap());
        best.map(|one| one[field].clone()).collect()
    };
    assert_eq!((&found["model_name"], &found["id"]), (&json!("m"), &json!("17")));
    let score = json!({"name": "score", "datatype": "FP32", "shape": [2, 1, 2], "data": all("score")});
    let text = json!({"name": "text", "datatype": "BYTES", "shape": [2, 1, 2], "data": all("text")});
    assert_eq!(found["outputs"], json!([score, text]));
    let body = json!({"inputs": tensor(json!([2]), json!(texts)), "outputs": [{"name": "embedding"}]});
    let found = server.ask("/v2/models/m/infer", &body);
    let vectors = server.ask("/v1/embeddings", &json!({"input": texts}));
    let vectors =
        vectors["data"].as_array().unwrap().iter().flat_map(|one| one["embedding"].as_array().unwrap().clone());
    assert_eq!(found["outputs"][0]["shape"], json!([2, 256]));
    assert_eq!(found["outputs"][0]["data"], vectors.collect::<Value>());
}

#[test]
fn scores_are_those_of_the_command() {
    let server = Server::start(&[]);
    let pairs = [(GERMAN, "Wo ist der Bahnhof?"), (GERMAN, "Der Hund."), ("pronounce: station", "S T EY1 SH AH0 N")];
    let input: String = pairs.map(|(source, target)| format!("{source}\t{target}\n")).concat();
    let output = t5(&["score", "--input", "-", "--json"], input.as_bytes());
    let expected: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (sources, targets) = (pairs.map(|pair| pair.0), pairs.map(|pair| pair.1));
    let found = server.ask("/score", &json!({"source": sources, "target": targets}));
    assert_eq!(found, json!({"model": "pocket-t5", "scores": expected}));
    let one = server.ask("/score", &json!({"source": sources[0], "target": targets[0], "model": "pocket-t5"}));
    assert_eq!(one["scores"], json!([expected[0]]));
}

/// Status, and the sentence, which must have these parts.
#[track_caller]
fn refused(answer: &Answer, status: u16, parts: &[&str]) {
    let json = answer.json();
    let message = match &json["error"] {
        Value::Object(error) => {
            assert_eq!(error["code"], status);
            error["message"].as_str().unwrap()
        }
        message => message.as_str().unwrap(),
    };
    assert_eq!(answer.status, status, "{message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{message}: expected {parts:?}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn what_is_wrong_is_said_in_the_form_of_the_protocol() {
    let server = Server::start(&["--parallel", "4", "--queue", "8"]);
    let completion = |body: Value| server.post("/v1/completions", &with(json!({"prompt": GERMAN}), body));
    for (body, parts) in [
        (json!({"prompt": null}), &["prompt", "a string", "found none"][..]),
        (json!({"prompt": 3}), &["prompt", "found 3"]),
        (json!({"prompt": []}), &["prompt", "1 to 8 texts", "found 0"]),
        (json!({"prompt": vec!["a"; 9]}), &["prompt", "found 9"]),
        (json!({"prompt": [9_000_000]}), &["prompt", "ids below 8192", "9000000"]),
        (json!({"prompt": [[]]}), &["prompt", "at least one token"]),
        (json!({"temperature": "hot"}), &["temperature", "a number", "\"hot\""]),
        (json!({"temperature": -1}), &["temperature", "0 or more"]),
        (json!({"max_tokens": 0}), &["max_tokens", "found 0"]),
        (json!({"max_tokens": 5, "max_new_tokens": 5}), &["max_new_tokens", "once"]),
        (json!({"n": 2}), &["n: ", "beams (1)"]),
        (json!({"n": 0}), &["n: ", "at least 1"]),
        (json!({"n": 0, "best_of": 2, "temperature": 1}), &["n: ", "at least 1"]),
        (json!({"n": 1, "best_of": 200, "temperature": 1}), &["best_of: ", "found 200"]),
        (json!({"n_best": 200, "temperature": 1}), &["n_best: ", "found 200"]),
        (json!({"max_new_tokens": 0}), &["max_new_tokens: ", "found 0"]),
        (json!({"n": 3, "best_of": 2}), &["best_of", "at least n (3)"]),
        (json!({"beams": 5}), &["beams", "at most 4"]),
        (json!({"beams": 2, "logprobs": 1}), &["logprobs", "beam"]),
        (json!({"beams": 2, "stop": "a"}), &["stop", "beam"]),
        (json!({"stop": [1]}), &["stop", "a string or a list of strings"]),
        (json!({"stop": ""}), &["stop", "not empty"]),
        (json!({"logprobs": true}), &["logprobs", "a whole number"]),
        (json!({"echo": true}), &["echo", "found true"]),
        (json!({"suffix": "x"}), &["suffix", "\"x\""]),
        (json!({"presence_penalty": 0.5}), &["presence_penalty", "repetition_penalty"]),
        (json!({"logit_bias": {"x": 1}}), &["logit_bias", "token ids"]),
        (json!({"logit_bias": {"99999": 1}}), &["logit_bias: ", "ids below 8192"]),
        (json!({"sequence_bias": [[[99_999], 1]]}), &["sequence_bias: ", "ids below 8192"]),
        (json!({"beams": 4, "early_stopping": true}), &["early_stopping: ", "Hugging Face"]),
        (json!({"stream_options": {"include_usage": true}}), &["stream_options", "stream"]),
        (json!({"stream": true, "stream_options": {"x": 1}}), &["stream_options.x"]),
        (json!({"task": "cooking"}), &["task", "translation_en_to_de", "cooking"]),
        (json!({"messages": []}), &["messages", "no field"]),
        (json!({"truncate": true}), &["truncate", "limit"]),
        (json!({"choices": ["a", "a"]}), &["choices", "different"]),
    ] {
        let answer = completion(body.clone());
        refused(&answer, 400, parts);
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        // A stream that cannot begin has the status, too.
        if body.get("stream").is_none() && body.get("stream_options").is_none() {
            refused(&completion(with(body, json!({"stream": true}))), 400, parts);
        }
    }
    refused(&completion(json!({"model": "gpt-4"})), 404, &["model", "pocket-t5", "gpt-4"]);
    // Other protocols say it in other words.
    for (path, body, status, parts) in [
        ("/generate", json!({}), 422, &["inputs", "found none"][..]),
        ("/generate", json!({"inputs": GERMAN, "parameters": {"truncate": 5}}), 422, &["parameters.truncate"]),
        ("/generate", json!({"inputs": GERMAN, "parameters": {"warp": 5}}), 422, &["parameters.warp", "no field"]),
        ("/generate", json!({"inputs": GERMAN, "stream": true}), 422, &["stream", "/generate_stream"]),
        ("/generate", json!({"inputs": GERMAN, "parameters": []}), 422, &["parameters", "an object"]),
        ("/generate_stream", json!({"inputs": GERMAN, "parameters": {"best_of": 2}}), 422, &["best_of"]),
        ("/generate", json!({"inputs": GERMAN, "parameters": {"best_of": 2}}), 422, &["best_of: ", "beams (1)"]),
        ("/generate", json!({"inputs": GERMAN, "parameters": {"n_best": 2}}), 422, &["n_best: ", "beams (1)"]),
        ("/v1/embeddings", json!({"input": "a", "dimensions": 3}), 400, &["dimensions", "256"]),
        ("/v1/embeddings", json!({"input": [99_999]}), 400, &["input", "ids below 8192"]),
        ("/v1/embeddings", json!({"input": "a", "pooling": "none"}), 400, &["pooling", "first", "weightedmean"]),
        ("/v1/embeddings", json!({"input": "a", "prompt": "query"}), 400, &["prompt"]),
        ("/score", json!({"source": "a"}), 400, &["target", "found none"]),
        ("/score", json!({"source": "a", "target": ["a", "b"]}), 400, &["target", "(1)", "found 2"]),
        ("/v2/models/other/infer", json!({}), 404, &["model", "pocket-t5", "other"]),
        ("/v2/models/pocket-t5/infer", json!({}), 400, &["inputs", "one tensor", "found 0"]),
        (
            "/v2/models/pocket-t5/infer",
            json!({"inputs": [{"name": "text", "datatype": "FP32", "shape": [1]}]}),
            400,
            &["inputs[0].datatype", "BYTES"],
        ),
        (
            "/v2/models/pocket-t5/infer",
            json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a"]}]}),
            400,
            &["inputs[0].shape", "1 texts"],
        ),
        (
            "/v2/models/pocket-t5/infer",
            json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], "more": 1}]}),
            400,
            &["inputs[0].more"],
        ),
        (
            "/v2/models/pocket-t5/infer",
            json!({
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}],
                "outputs": [{"name": "embedding"}, {"name": "embedding"}],
            }),
            400,
            &["outputs[1].name", "once", "\"embedding\" twice"],
        ),
        ("/v2/models/%ff/infer", json!({}), 400, &["model: ", "UTF-8"]),
    ] {
        refused(&server.post(path, &body), status, parts);
    }
    assert_eq!(server.post("/generate", &json!({})).json()["error_type"], "validation");
    // Bodies that are no JSON, and what is not there.
    let post = |path: &str, kind: &str, body: &[u8]| {
        Request::new("POST", path).header("content-type", kind).body(body).send(server.address)
    };
    let json = "application/json; charset=utf-8";
    refused(&post("/v1/completions", json, b"{\"prompt\": \"a\xff\"}"), 400, &["UTF-8", "0xff at 13"]);
    refused(&post("/v1/completions", json, b"{\"prompt\": \"\\ud800\"}"), 400, &["JSON"]);
    refused(&post("/v1/completions", json, b"{\"prompt\": \"a\""), 400, &["JSON", "EOF"]);
    refused(&post("/v1/completions", json, br#"{"prompt": "a", "prompt": "b"}"#), 400, &["once", "\"prompt\""]);
    refused(&post("/generate", json, b"[]"), 422, &["a JSON object", "a list"]);
    refused(&post("/score", json, "[".repeat(100_000).as_bytes()), 400, &["JSON", "recursion"]);
    refused(&post("/v1/completions", "text/plain", b"{}"), 415, &["content-type", "application/json", "text/plain"]);
    refused(&server.get("/v1/completions"), 405, &["/v1/completions", "GET"]);
    refused(&server.post("/v1/chat/completions", &json!({})), 404, &["/v1/chat/completions"]);
    refused(&server.get("/v3"), 404, &["/v3"]);
    refused(&server.get("/v2/models/%ff"), 400, &["model: ", "UTF-8"]);
    refused(&server.get("/v2/models/%ff/ready"), 400, &["model: ", "UTF-8"]);
    // What is no HTTP at all ends its connection, and nothing else.
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], b"GET\r\n\r\n", &[0xff; 300], b"POST / HTTP/9.9\r\n\r\n"]
    {
        let mut connection = connect(server.address);
        connection.write_all(garbage).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        if let Ok(reply) = Reply::read(connection) {
            assert_eq!(reply.status, 400);
        }
    }
    assert_eq!(completion(json!({})).json()["choices"][0]["text"], generated(GERMAN, &[])["text"]);
}

#[test]
fn limits_hold() {
    let server = Server::start(&[
        "--max-body-bytes",
        "2000",
        "--max-input-tokens",
        "20",
        "--max-new-tokens",
        "200000",
        "--timeout",
        "1",
    ]);
    // Of the body, said before and not.
    let large = json!({"prompt": "a".repeat(2000)});
    refused(&server.post("/v1/completions", &large), 413, &["at most 2000 bytes"]);
    // Who sends it all before reading hears of it, too.
    let larger = json!({"prompt": "a".repeat(8 << 20)});
    refused(&server.post("/v1/completions", &larger), 413, &["at most 2000 bytes"]);
    let mut connection = connect(server.address);
    let head =
        "POST /score HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1500, "a".repeat(1500));
    connection.write_all([head, &chunk, &chunk].concat().as_bytes()).unwrap();
    refused(&Reply::read(connection).unwrap().finish(), 413, &["at most 2000 bytes"]);
    // Of a text, whole or in sentences.
    let words = "translate English to German: The cat sleeps. ".to_owned() + &"The dog barks. ".repeat(9);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": words})),
        ("/v1/completions", json!({"prompt": [GERMAN, words]})),
        ("/v1/completions", json!({"prompt": vec![5; 21]})),
        ("/v1/embeddings", json!({"input": words})),
        ("/score", json!({"source": words, "target": "a"})),
        ("/score", json!({"source": "a", "target": words})),
    ] {
        refused(&server.post(path, &body), 400, &["at most 20 tokens"]);
    }
    // Of its answer, also where the checkpoint would give more.
    let body = json!({"prompt": GERMAN, "max_tokens": 200_001});
    refused(&server.post("/v1/completions", &body), 400, &["max_tokens", "1 to 200000", "200001"]);
    let short = Server::start(&["--max-new-tokens", "3"]);
    let choice = completion(&short, json!({"prompt": GERMAN}))["choices"][0].clone();
    assert_eq!(choice["text"], generated(GERMAN, &["--max-new-tokens", "3"])["text"]);
    assert_eq!(choice["finish_reason"], "length");
    // Of time: the status where nothing has come, an event where something has.
    let endless = |stream: bool| with(long(200_000), json!({"stream": stream}));
    let begin = Instant::now();
    refused(&server.post("/v1/completions", &endless(false)), 504, &["within 1 s"]);
    let took = begin.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let events = server.post("/v1/completions", &endless(true)).events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert!(events.len() > 10 && last["error"]["code"] == 504, "{last}");
    server.wait_for("t5_texts_in_flight", 0.0);
    // Both are told of as what they were.
    let late = |entry: &&Value| {
        entry["message"] == "refused" && entry["status"] == 504 && entry["why"].as_str().unwrap().contains("within 1 s")
    };
    wait("two lines in the log", || server.log.lock().unwrap().iter().filter(late).count() == 2);
    let line = r#"t5_requests_total{endpoint="/v1/completions",status="504"} 2"#;
    assert!(server.get("/metrics").text().contains(line));
}

#[test]
fn who_reads_nothing_keeps_no_place() {
    let server = Server::start(&["--connections", "1", "--timeout", "1"]);
    let mut deaf = connect(server.address);
    deaf.set_write_timeout(Some(PATIENCE)).unwrap();
    deaf.write_all(&Request::new("GET", "/").bytes()).unwrap();
    let deaf = std::thread::spawn(move || {
        // Until its answers fill all that lies between, and the server has had enough.
        let many = Request::new("GET", "/").bytes().repeat(100);
        loop {
            if let Err(error) = deaf.write_all(&many) {
                return error.kind();
            }
        }
    });
    assert_eq!(server.get("/health").status, 200);
    let ended = deaf.join().unwrap();
    assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&ended), "{ended}");
}

#[cfg(unix)]
#[test]
fn a_log_that_cannot_be_written_harms_no_request() {
    let mut server = Server::start_unheard(&["--log", "debug"]);
    assert_eq!(server.get("/health").json()["status"], "ok");
    assert_eq!(completion(&server, json!({"prompt": GERMAN}))["choices"][0]["text"], generated(GERMAN, &[])["text"]);
    server.signal("TERM");
    assert_eq!(server.ends().code(), Some(0));
}

#[test]
fn whoever_hangs_up_makes_room() {
    let server = Server::start(&["--parallel", "1", "--queue", "3", "--max-new-tokens", "1000000"]);
    // One that is being answered, one that would be answered whole, and one that waits behind both.
    let mut streamed = Request::post("/v1/completions", &long(900_000)).open(server.address);
    assert!(streamed.chunk().unwrap().is_some());
    let whole = Request::post(
        "/generate",
        &json!({
            "inputs": GERMAN, "parameters": {"min_new_tokens": 900_000, "max_new_tokens": 900_000},
        }),
    );
    let mut whole_connection = connect(server.address);
    whole_connection.write_all(&whole.bytes()).unwrap();
    let mut waiting = connect(server.address);
    waiting.write_all(&Request::post("/v1/completions", &long(900_000)).bytes()).unwrap();
    // The engine has all of them.
    server.wait_for("t5_texts_generating", 3.0);
    drop(waiting);
    server.wait_for("t5_texts_in_flight", 2.0);
    drop(streamed.into_connection());
    server.wait_for("t5_texts_in_flight", 1.0);
    drop(whole_connection);
    // The rows are free: the next request is answered, which would take minutes behind one of them.
    let begin = Instant::now();
    assert_eq!(completion(&server, json!({"prompt": GERMAN}))["choices"][0]["text"], generated(GERMAN, &[])["text"]);
    assert!(begin.elapsed() < Duration::from_secs(10));
    server.wait_for("t5_texts_in_flight", 0.0);
    server.wait_for("t5_texts_cancelled_total", 3.0);
    let gone = |log: &[Value]| log.iter().filter(|entry| entry["message"] == "the client has gone").count();
    wait("three lines in the log", || gone(&server.log.lock().unwrap()) == 3);
    assert!(server.get("/metrics").text().contains(r#"t5_requests_total{endpoint="/generate",status="499"} 1"#));
}

#[test]
fn too_many_are_told_to_come_again() {
    let server = Server::start(&["--parallel", "1", "--queue", "2", "--max-new-tokens", "1000000"]);
    let open = || Request::post("/v1/completions", &long(900_000)).open(server.address);
    let mut first = open();
    assert!(first.chunk().unwrap().is_some());
    let mut second = connect(server.address);
    second.write_all(&Request::post("/v1/completions", &long(900_000)).bytes()).unwrap();
    server.wait_for("t5_texts_in_flight", 2.0);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": GERMAN})),
        ("/generate", json!({"inputs": GERMAN})),
        ("/v1/embeddings", json!({"input": GERMAN})),
        ("/score", json!({"source": GERMAN, "target": "a"})),
    ] {
        let answer = server.post(path, &body);
        refused(&answer, 429, &["2 texts", "room for 2"]);
        assert!((1..=60).contains(&answer.headers["retry-after"].parse::<u64>().unwrap()));
    }
    assert_eq!(server.post("/generate", &json!({"inputs": GERMAN})).json()["error_type"], "overloaded");
    // Its health is good all the same.
    assert_eq!(server.get("/health").json()["texts_in_flight"], 2);
    drop(first);
    drop(second);
    server.wait_for("t5_texts_in_flight", 0.0);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": GERMAN})).status, 200);
}

#[test]
fn vectors_and_scores_come_between_the_steps_of_long_texts() {
    let server = Server::start(&["--max-new-tokens", "1000000"]);
    let mut long = Request::post("/v1/completions", &long(900_000)).open(server.address);
    assert!(long.chunk().unwrap().is_some());
    assert_eq!(server.post("/v1/embeddings", &json!({"input": GERMAN})).status, 200);
    assert_eq!(server.post("/score", &json!({"source": GERMAN, "target": "Wo?"})).status, 200);
    assert_eq!(completion(&server, json!({"prompt": GERMAN}))["choices"][0]["text"], generated(GERMAN, &[])["text"]);
    assert!(long.chunk().unwrap().is_some());
}

#[test]
fn who_has_no_token_is_let_in_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "geheim-123\n").unwrap();
    let file = file.to_str().unwrap();
    let of_file = Server::start(&["--token-file", file]);
    let of_variable = Server::start_with(&[], &[("T5_SERVE_TOKEN", "geheim-123")]);
    for server in [&of_file, &of_variable] {
        let ask = |value: Option<&str>| {
            let request = Request::post("/v1/completions", &json!({"prompt": GERMAN}));
            value.map_or_else(
                || request.send(server.address),
                |value| {
                    Request::post("/v1/completions", &json!({"prompt": GERMAN}))
                        .header("authorization", value)
                        .send(server.address)
                },
            )
        };
        let answer = ask(None);
        refused(&answer, 401, &["authorization", "Bearer", "found none"]);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.json()["error"]["type"], "authentication_error");
        for wrong in ["Bearer geheim-124", "Bearer geheim-12", "Bearer geheim-1234", "Bearer ", "Basic geheim-123"] {
            refused(&ask(Some(wrong)), 401, &["authorization"]);
        }
        assert_eq!(ask(Some("Bearer geheim-123")).status, 200);
        for path in ["/v1/models", "/metrics", "/info", "/v2", "/v2/models/pocket-t5", "/nothing"] {
            refused(&server.get(path), 401, &["authorization"]);
        }
        for path in ["/", "/health", "/v2/health/live", "/v2/health/ready"] {
            assert_eq!(server.get(path).status, 200, "{path}");
        }
        assert!(!format!("{:?}", server.log.lock().unwrap()).contains("geheim"));
    }
    std::fs::write(file, " \n").unwrap();
    let output = t5(&["serve", "--port", "0", "--token-file", file], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected a token"));
}

#[test]
fn pages_of_others_read_nothing_unless_they_may() {
    let preflight = |server: &Server, origin: &str| {
        Request::new("OPTIONS", "/v1/completions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization")
            .send(server.address)
    };
    let allowed = |answer: &Answer| answer.headers.get("access-control-allow-origin").cloned();
    let ask = |server: &Server, origin: &str| {
        Request::post("/v1/completions", &json!({})).header("origin", origin).send(server.address)
    };
    let server = Server::start(&[]);
    assert_eq!(allowed(&preflight(&server, "https://a.example")), None);
    assert_eq!(allowed(&ask(&server, "https://a.example")), None);
    let server = Server::start_with(&["--cors", "https://a.example"], &[("T5_SERVE_TOKEN", "x")]);
    // No token is asked for before the request itself; and what is refused may be read, too.
    let answer = preflight(&server, "https://a.example");
    assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some("https://a.example")));
    assert_eq!(allowed(&ask(&server, "https://a.example")).as_deref(), Some("https://a.example"));
    assert_eq!(ask(&server, "https://a.example").status, 401);
    assert_eq!(allowed(&preflight(&server, "https://b.example")), None);
    let server = Server::start(&["--cors", "*"]);
    assert_eq!(allowed(&preflight(&server, "https://b.example")).as_deref(), Some("*"));
    let output = t5(&["serve", "--cors", "a.example"], b"");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn requests_have_ids_lines_and_numbers() {
    let server = Server::start(&[]);
    let answer = Request::post("/v1/completions", &json!({"prompt": GERMAN, "user": "ada"}))
        .header("x-request-id", "abc-1")
        .send(server.address);
    assert_eq!(answer.headers["x-request-id"], "abc-1");
    assert_eq!(answer.json()["id"], "cmpl-abc-1");
    // What is wrong shows what was sent to who has sent it.
    for body in [json!({"prompt": {"text": GERMAN}}), json!({"prompt": "a", "task": GERMAN})] {
        refused(&server.post("/v1/completions", &body), 400, &["station"]);
    }
    let wrong = server.post("/v1/completions", &json!({"prompt": GERMAN, "color": 1}));
    let id = wrong.headers["x-request-id"].clone();
    assert!(id.len() == 16 && server.get("/health").headers["x-request-id"] != id);
    wait("a line for each", || server.log.lock().unwrap().len() >= 6);
    let log = server.log.lock().unwrap().clone();
    let of = |id: &str, message: &str| {
        let entry = log.iter().find(|entry| entry["span"]["id"] == id && entry["message"] == message);
        entry.unwrap_or_else(|| panic!("{id} {message}: {log:?}")).clone()
    };
    let answered = of("abc-1", "answered");
    assert_eq!((&answered["method"], &answered["path"]), (&json!("POST"), &json!("/v1/completions")));
    assert!(answered["status"] == 200 && answered["ms"].as_f64().unwrap() > 0.0);
    assert_eq!(of("abc-1", "on behalf of")["user"], "ada");
    let refused = of(&id, "refused");
    assert!(refused["status"] == 400 && refused["why"] == "color");
    assert!(!log.iter().any(|entry| entry.to_string().contains("station")), "texts are not logged");
    let metrics = server.get("/metrics");
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for line in [
        r#"t5_requests_total{endpoint="/v1/completions",status="200"} 1"#,
        r#"t5_requests_total{endpoint="/v1/completions",status="400"} 3"#,
        r#"t5_request_seconds_count{endpoint="/v1/completions"} 4"#,
        "t5_first_text_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let expected = generated(GERMAN, &[]);
    assert_eq!(server.metric("t5_new_tokens_total"), expected["ids"].as_array().unwrap().len() as f64);
    assert_eq!(server.metric("t5_input_tokens_total"), expected["input_ids"].as_array().unwrap().len() as f64);
    let page = server.get("/");
    assert!(
        page.text().contains("<textarea") && page.headers["content-security-policy"].contains("connect-src 'self'")
    );
}

/// Texts that run beside others are what they are alone.
#[test]
fn many_at_once_are_answered_as_one_by_one() {
    let server = Server::start(&["--parallel", "6"]);
    let texts: Vec<(String, Value)> = (0..48)
        .map(|i| {
            let task = ["translate English to German", "translate English to French", "fix", "pronounce"][i % 4];
            let words =
                ["The cat sleeps.", "Where is the old house? It is here.", "station", "He go home at 7."][i / 4 % 4];
            let fields = if i % 5 == 0 { json!({"beams": 3}) } else { json!({"temperature": 0.7, "seed": i}) };
            (format!("{task}: {words}"), if i % 3 == 0 { json!({}) } else { fields })
        })
        .collect();
    let ask = |(text, fields): &(String, Value)| {
        completion(&server, with(json!({"prompt": text}), fields.clone()))["choices"].clone()
    };
    let alone: Vec<Value> = texts.iter().map(ask).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            texts.chunks(3).map(|some| scope.spawn(move || some.iter().map(ask).collect::<Vec<_>>())).collect();
        let together: Vec<Value> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(together, alone);
    });
}

#[cfg(unix)]
#[test]
fn a_signal_lets_what_was_begun_come_to_its_end() {
    let length = ["--max-new-tokens", "500", "--min-new-tokens", "500"];
    let expected = generated(GERMAN, &length)["text"].clone();
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--max-new-tokens", "1000"]);
        let mut begun = Request::post("/v1/completions", &long(1000)).open(server.address);
        assert!(begun.chunk().unwrap().is_some());
        let idle = connect(server.address);
        let mut waiting = connect(server.address);
        let whole = with(long(500), json!({"stream": false}));
        waiting.write_all(&Request::post("/v1/completions", &whole).bytes()).unwrap();
        server.wait_for("t5_texts_in_flight", 2.0);
        server.signal(signal);
        wait("nobody listens any more", || std::net::TcpStream::connect(server.address).is_err());
        let rest = String::from_utf8(begun.rest().unwrap()).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n") && rest.matches("\n\n").count() > 100);
        let answer = Reply::read(waiting).unwrap().finish();
        assert_eq!(answer.json()["choices"][0]["text"], expected);
        assert_eq!(server.ends().code(), Some(0), "{:?}", server.log.lock().unwrap());
        drop(idle);
    }
    // But not without end.
    let mut server = Server::start(&["--max-new-tokens", "1000000", "--drain", "1"]);
    let mut begun = Request::post("/v1/completions", &long(900_000)).open(server.address);
    assert!(begun.chunk().unwrap().is_some());
    server.signal("TERM");
    assert_eq!(server.ends().code(), Some(0));
    let stopped = |entry: &Value| entry["message"] == "stopped" && entry["whole"] == false;
    wait("it is said", || server.log.lock().unwrap().iter().any(stopped));
}

#[test]
fn an_encoder_gives_vectors_alone() {
    // It has no tokenizer either, so ids are asked for.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/encoder-only");
    let server = Server::start(&["--model", folder.to_str().unwrap()]);
    let ids = [5, 9, 1];
    for body in [json!({"prompt": ids}), json!({"prompt": ids, "stream": true})] {
        refused(&server.post("/v1/completions", &body), 400, &["decoder"]);
    }
    refused(&server.post("/generate_stream", &json!({"inputs": "a house"})), 422, &["tokenizer"]);
    refused(&server.post("/score", &json!({"source": "a house", "target": "a"})), 400, &["tokenizer"]);
    let expected = Model::open(&folder).unwrap().session().embed_ids(&ids).unwrap();
    let found = server.ask("/v1/embeddings", &json!({"input": ids}));
    assert_eq!(found["data"][0]["embedding"], json!(expected));
    let outputs = server.get("/v2/models/encoder-only").json()["outputs"].clone();
    assert_eq!(outputs, json!([{"name": "embedding", "datatype": "FP32", "shape": [-1, expected.len()]}]));
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    let fail = |code: i32, arguments: &[&str], parts: &[&str]| {
        let output = t5(&[&["serve", "--log", "error"], arguments].concat(), b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.lines().count() == 1 && parts.iter().all(|part| errors.contains(part)), "{errors}");
    };
    fail(1, &["--port", &port], &["127.0.0.1", &port, "in use"]);
    fail(2, &["--parallel", "0"], &["--parallel: expected 1 to 256, found 0"]);
    fail(2, &["--threads", "0"], &["--threads: expected 1 to 1024, found 0"]);
    fail(2, &["--threads", "65", "--workers", "1"], &["--threads: expected 1 to 64", "each worker", "found 65"]);
    fail(2, &["--timeout", "0"], &["--timeout"]);
    fail(1, &["--model", "/nowhere"], &["/nowhere"]);
    fail(1, &["--token-file", "/nowhere"], &["/nowhere"]);
}
