//! `/generate`, `/generate_stream` and `/info`, in the form of text-generation-inference.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use t5_runtime::{Finish, Model, Output, Overrides, Token};

use super::app::{App, Generation, Input, Told};
use super::engine::What;
use super::fields::{Fields, Renaming, Strings};
use super::options;
use super::refusal::{Form, Refusal, json_response};
use super::sse;
use super::tokens::{self, Texts};

/// What the library calls otherwise.
const NAMES: [Renaming; 3] = [("n_best", "best_of"), ("top_logprobs", "top_n_tokens"), ("source", "inputs")];

pub async fn info(State(app): State<Arc<App>>) -> Response {
    json_response(&json!({
        "model_id": app.name,
        "model_pipeline_tag": "text2text-generation",
        "max_input_tokens": app.limits.input_tokens,
        "max_new_tokens": app.limits.new_tokens,
        "router": "t5",
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

pub async fn generate(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let Asked { input, overrides, details, names } = Asked::read(&app, app.fields(request).await?, false)?;
    let named = |refusal: Refusal| refusal.renamed(&names);
    let Generation { answers, options, .. } = app.generate("inputs", vec![input], overrides).await.map_err(named)?;
    let outputs = |what| if let What::Outputs(outputs) = what { Some(outputs) } else { None };
    let outputs = answers.all(outputs).await.map_err(named)?.into_iter().flatten();
    let seed = options.samples().then_some(options.seed);
    let mut sequences = outputs.map(|output| sequence(&app.model, &output, seed, options.top_logprobs));
    let (text, mut best) = sequences.next().unwrap_or_default();
    let mut answer = json!({"generated_text": text});
    if details {
        let others: Vec<Value> = sequences
            .map(|(text, mut details)| {
                details["generated_text"] = text;
                details
            })
            .collect();
        if !others.is_empty() {
            best["best_of_sequences"] = others.into();
        }
        answer["details"] = best;
    }
    Ok(json_response(&answer))
}

pub async fn generate_stream(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let Asked { input, overrides, names, .. } = Asked::read(&app, app.fields(request).await?, true)?;
    let named = |refusal: Refusal| refusal.renamed(&names);
    let generation = app.generate("inputs", vec![input], overrides).await.map_err(named)?;
    let Generation { answers, input_tokens, options } = generation;
    let events = Events {
        model: app.model.clone(),
        input_tokens,
        seed: options.samples().then_some(options.seed),
        top: options.top_logprobs,
        text: String::new(),
        sent: 0,
        tokens: 0,
        held: None,
    };
    sse::response(answers, events).await.map_err(named)
}

struct Asked {
    input: Input,
    overrides: Overrides,
    details: bool,
    /// What messages call what the library calls otherwise.
    names: Vec<Renaming>,
}

impl Asked {
    fn read(app: &App, mut fields: Fields, streams: bool) -> Result<Asked, Refusal> {
        let input = Input::Text(fields.need("inputs")?);
        let mut parameters = fields.object("parameters")?;
        let names = parameters.renamed(&NAMES);
        if !streams {
            fields.only("stream", &json!(false), "/generate_stream streams")?;
        } else {
            fields.only("stream", &json!(true), "/generate does not stream")?;
        }
        fields.end()?;
        let details = parameters.get("details")?.unwrap_or(false);
        let top: Option<usize> = parameters.get("top_n_tokens")?;
        let samples: Option<bool> = parameters.get("do_sample")?;
        let best_of: Option<usize> = parameters.get("best_of")?;
        if streams && best_of.is_some_and(|best_of| best_of > 1) {
            return Err(parameters.refuse("best_of", "expected 1, since a stream has one text"));
        }
        let mut overrides = Overrides {
            n_best: best_of,
            logprobs: Some(details || streams),
            top_logprobs: top,
            ..Overrides::default()
        };
        parameters.only("decoder_input_details", &json!(false), "sources have no log-probabilities")?;
        parameters.only("return_full_text", &json!(false), "a source is no part of its target")?;
        parameters.only("watermark", &json!(false), "there is none")?;
        parameters.only("frequency_penalty", &json!(0), "there are repetition_penalty and no_repeat_ngram")?;
        parameters.only("grammar", &Value::Null, "there are choices")?;
        parameters.only("adapter_id", &Value::Null, "the model is the one that is served")?;
        // There it is a number of tokens, of which the last are kept.
        parameters.only("truncate", &Value::Null, "too long a text is refused")?;
        overrides.stop = parameters.get("stop")?.map(|Strings(stop)| stop);
        options::take(&mut parameters, &mut overrides)?;
        match samples {
            // As there, a temperature or a filter asks for draws by itself: clients send this false unasked.
            Some(false) if !overrides.filters() => {
                overrides.temperature.get_or_insert(0.0);
            }
            Some(true) if overrides.temperature == Some(0.0) => {
                return Err(parameters.refuse("do_sample", "expected a temperature above 0 with it, found 0"));
            }
            Some(true) if overrides.beams.is_some_and(|beams| beams > 1) => {
                return Err(parameters.refuse("do_sample", "expected false or no beams, which exclude each other"));
            }
            Some(true) => {
                let defaults = app.model.generation_defaults();
                let task = overrides.task.as_deref().and_then(|name| defaults.task(name).ok());
                let own = task.and_then(|task| task.settings.temperature).or(defaults.settings.temperature);
                overrides.temperature.get_or_insert(own.filter(|&own| own > 0.0).unwrap_or(1.0));
            }
            _ => {}
        }
        overrides.seed.get_or_insert_with(options::any_seed);
        overrides.n_best.get_or_insert(1);
        parameters.end()?;
        Ok(Asked { input, overrides, details, names })
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop => "stop_sequence",
        _ => "eos_token",
    }
}

fn token(model: &Model, token: &Token, text: &str) -> Value {
    let special = model.tokenizer().is_ok_and(|tokenizer| tokenizer.is_special(token.id));
    json!({"id": token.id, "text": text, "logprob": token.logprob, "special": special})
}

fn top_tokens(model: &Model, of: &Token) -> Value {
    let name = |id| model.tokenizer().map_or_else(|_| String::new(), |tokenizer| tokens::name(tokenizer, id));
    let one = |&(id, logprob): &(u32, f32)| token(model, &Token { id, logprob, alternatives: Vec::new() }, &name(id));
    of.alternatives.iter().map(one).collect()
}

/// A result's text and its details.
fn sequence(model: &Model, output: &Output, seed: Option<u64>, top: usize) -> (Value, Value) {
    let mut texts = model.tokenizer().ok().map(Texts::new);
    let all = output.tokens_from(0);
    let mut text = |id| texts.as_mut().map_or_else(String::new, |texts| texts.of(id));
    let list: Vec<Value> = all.iter().map(|one| token(model, one, &text(one.id))).collect();
    let mut details = json!({
        "finish_reason": reason(output.finish),
        "generated_tokens": output.ids.len(),
        "seed": seed,
        "prefill": [],
        "tokens": list,
    });
    if top > 0 {
        details["top_tokens"] = all.iter().map(|one| top_tokens(model, one)).collect();
    }
    (json!(output.text), details)
}

/// An event for each token. The last one carries the text and why it ended, so each waits for the next.
struct Events {
    model: Model,
    input_tokens: usize,
    seed: Option<u64>,
    top: usize,
    /// All so far, and how many of its bytes have gone with tokens.
    text: String,
    sent: usize,
    tokens: usize,
    held: Option<Value>,
}

impl Events {
    /// Adds tokens, of which the last stands for the text that has come, and the others for none.
    fn add(&mut self, all: &[Token], events: &mut Vec<Value>) {
        for (place, one) in all.iter().enumerate() {
            let text = if place + 1 == all.len() { self.text.get(self.sent..).unwrap_or_default() } else { "" };
            self.tokens += 1;
            let mut event = json!({
                "index": self.tokens,
                "token": token(&self.model, one, text),
                "generated_text": null,
                "details": null,
            });
            if self.top > 0 {
                event["top_tokens"] = top_tokens(&self.model, one);
            }
            self.sent += text.len();
            events.extend(self.held.replace(event));
        }
    }
}

impl sse::Writer for Events {
    const FORM: Form = Form::TextGenerationInference;

    fn write(&mut self, Told { what, .. }: Told, events: &mut Vec<Value>) {
        match what {
            What::Piece { text, tokens } => {
                self.text.push_str(&text);
                self.add(&tokens, events);
            }
            What::Outputs(mut outputs) => {
                let Some(output) = outputs.drain(..).next() else { return };
                self.text.clone_from(&output.text);
                let rest = output.tokens_from(self.tokens);
                // What ends a text stands for none of it, if something else is there to.
                let (before, last) = rest.split_at(rest.len().saturating_sub(1));
                self.add(before, events);
                self.add(last, events);
                if let Some(held) = &mut self.held {
                    held["generated_text"] = json!(output.text);
                    held["details"] = json!({
                        "finish_reason": reason(output.finish),
                        "generated_tokens": output.ids.len(),
                        "input_length": self.input_tokens,
                        "seed": self.seed,
                    });
                }
            }
            What::Vectors(_) | What::Score(_) => {}
        }
    }

    fn end(&mut self, events: &mut Vec<Value>) {
        events.extend(self.held.take());
    }
}
