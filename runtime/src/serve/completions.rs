//! `/v1/completions` and `/v1/models`, in the form of OpenAI's completions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use t5_runtime::{Finish, Model, Output, Overrides, Token};

use super::app::{App, Generation, Input, Told};
use super::engine::What;
use super::fields::{Fields, Renaming, Strings};
use super::options;
use super::refusal::{Form, Refusal, json_response};
use super::sse;
use super::tokens::{self, Texts};
use super::watch::RequestId;

/// What the library calls otherwise, but for `n_best`, which is `n` or `best_of`.
const NAMES: [Renaming; 4] = [
    ("max_new_tokens", "max_tokens"),
    ("top_logprobs", "logprobs"),
    ("sequence_bias", "logit_bias"),
    ("source", "prompt"),
];

pub async fn models(State(app): State<Arc<App>>) -> Response {
    let model = json!({
        "id": app.name, "object": "model", "owned_by": "local", "created": 0,
        "max_input_tokens": app.limits.input_tokens, "max_new_tokens": app.limits.new_tokens,
    });
    json_response(&json!({"object": "list", "data": [model]}))
}

pub async fn complete(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let id = request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
    let asked = Asked::read(&app, app.fields(request).await?)?;
    let Asked { inputs, overrides, n, logprobs, stream, usage, names } = asked;
    let generation = app.generate("prompt", inputs, overrides).await.map_err(|refusal| refusal.renamed(&names))?;
    let Generation { answers, input_tokens, .. } = generation;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let head = Head { id: format!("cmpl-{id}"), created, model: app.name.clone() };
    let mut choices = Choices { model: app.model.clone(), n, logprobs, begun: HashMap::new(), new_tokens: 0 };
    if stream {
        let chunks = Chunks { head, choices, usage, input_tokens };
        return sse::response(answers, chunks).await.map_err(|refusal| refusal.renamed(&names));
    }
    let outputs = |what| if let What::Outputs(outputs) = what { Some(outputs) } else { None };
    let all = answers.all(outputs).await.map_err(|refusal| refusal.renamed(&names))?;
    let list: Vec<Value> =
        all.into_iter().enumerate().flat_map(|(index, outputs)| choices.finish(index, outputs)).collect();
    let usage = usage_of(input_tokens, choices.new_tokens);
    Ok(json_response(&head.with(json!({"choices": list, "usage": usage}))))
}

struct Asked {
    inputs: Vec<Input>,
    overrides: Overrides,
    /// Choices of each prompt.
    n: usize,
    /// Alternatives of each token, if log-probabilities are wanted.
    logprobs: Option<usize>,
    stream: bool,
    /// Whether a stream ends with what was used.
    usage: bool,
    /// What messages call what the library calls otherwise.
    names: Vec<Renaming>,
}

impl Asked {
    fn read(app: &App, mut fields: Fields) -> Result<Asked, Refusal> {
        let mut names = fields.renamed(&NAMES);
        names.extend(fields.renamed(&[("n_best", if fields.has("best_of") { "best_of" } else { "n" })]));
        app.check_model(&mut fields)?;
        let inputs = app.inputs(&mut fields, "prompt")?;
        let asked_n: Option<usize> = fields.get("n")?;
        if asked_n == Some(0) {
            return Err(fields.refuse("n", "expected at least 1, found 0"));
        }
        let best_of: Option<usize> = fields.get("best_of")?;
        if let (Some(best_of), n) = (best_of, asked_n.unwrap_or(1))
            && best_of < n
        {
            return Err(fields.refuse("best_of", format!("expected at least n ({n}), found {best_of}")));
        }
        let logprobs: Option<usize> = fields.get("logprobs")?;
        let mut overrides = Overrides {
            max_new_tokens: fields.get("max_tokens")?,
            n_best: best_of.or(asked_n),
            temperature: fields.get("temperature")?,
            top_p: fields.get("top_p")?,
            stop: fields.get("stop")?.map(|Strings(stop)| stop),
            sequence_bias: biases(&mut fields)?,
            logprobs: Some(logprobs.is_some()),
            top_logprobs: logprobs,
            ..Overrides::default()
        };
        fields.only("echo", &json!(false), "a prompt is no part of its answer")?;
        fields.only("suffix", &Value::Null, "gaps are named <extra_id_0> in the prompt")?;
        fields.only("presence_penalty", &json!(0), "there are repetition_penalty and no_repeat_ngram")?;
        fields.only("frequency_penalty", &json!(0), "there are repetition_penalty and no_repeat_ngram")?;
        if let Some(user) = fields.get::<String>("user")? {
            tracing::info!(user, "on behalf of");
        }
        let stream = fields.get("stream")?.unwrap_or(false);
        let mut stream_options = fields.object("stream_options")?;
        let usage = stream_options.get("include_usage")?;
        stream_options.end()?;
        if usage.is_some() && !stream {
            return Err(fields.refuse("stream_options", "expected \"stream\": true with it, found none"));
        }
        options::take(&mut fields, &mut overrides)?;
        overrides.seed.get_or_insert_with(options::any_seed);
        fields.end()?;
        let asked = |n: Option<usize>| n.or(overrides.n_best).unwrap_or(1);
        let n = if best_of.is_some() { asked_n.unwrap_or(1) } else { asked(asked_n) };
        // What a checkpoint asks for by itself is not what a client expects.
        overrides.n_best.get_or_insert(1);
        Ok(Asked { inputs, overrides, n, logprobs, stream, usage: usage.unwrap_or(false), names })
    }
}

/// Tokens, and what is added to the logit of the last of them.
type Bias = (Vec<u32>, f32);

/// `logit_bias`: ids, as texts, with what is added to their logits.
fn biases(fields: &mut Fields) -> Result<Option<Vec<Bias>>, Refusal> {
    let Some(value) = fields.value("logit_bias") else { return Ok(None) };
    let bias = |(id, bias): (&String, &Value)| Some((vec![id.parse().ok()?], bias.as_f64()? as f32));
    let biases = value.as_object().and_then(|map| map.iter().map(bias).collect());
    biases.map(Some).ok_or_else(|| fields.wrong("logit_bias", "an object of token ids and numbers", &value))
}

fn usage_of(input: usize, new: usize) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": new, "total_tokens": input + new})
}

/// What every answer and every chunk has.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn with(&self, rest: Value) -> Value {
        let Head { id, created, model } = self;
        let mut all = json!({"id": id, "object": "text_completion", "created": created, "model": model});
        if let (Value::Object(all), Value::Object(rest)) = (&mut all, rest) {
            all.extend(rest);
        }
        all
    }
}

/// Choices, whole or piece by piece.
struct Choices {
    model: Model,
    /// Of each prompt.
    n: usize,
    logprobs: Option<usize>,
    /// Those of which pieces were handed out, by the prompt's place: there is one for each then.
    begun: HashMap<usize, Choice>,
    new_tokens: usize,
}

struct Choice {
    /// Bytes and tokens that were handed out.
    text: usize,
    tokens: usize,
    /// `None` where the model has no tokenizer.
    texts: Option<Texts>,
    /// Characters of the tokens that were handed out.
    offset: usize,
}

impl Choices {
    fn begin(&self) -> Choice {
        Choice { text: 0, tokens: 0, texts: self.model.tokenizer().ok().map(Texts::new), offset: 0 }
    }

    /// The next piece of a prompt's text; of several choices none has pieces.
    fn piece(&mut self, index: usize, text: &str, tokens: &[Token]) -> Option<Value> {
        if self.n > 1 {
            return None;
        }
        let mut choice = self.begun.remove(&index).unwrap_or_else(|| self.begin());
        choice.text += text.len();
        choice.tokens += tokens.len();
        let logprobs = self.logprobs_of(&mut choice, tokens);
        self.begun.insert(index, choice);
        Some(json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null}))
    }

    /// What has not been handed out of a prompt's choices.
    fn finish(&mut self, index: usize, outputs: Vec<Output>) -> Vec<Value> {
        self.new_tokens += outputs.iter().map(|output| output.ids.len()).sum::<usize>();
        let best = outputs.into_iter().take(self.n).enumerate();
        best.map(|(k, output)| {
            let mut choice = self.begun.remove(&index).unwrap_or_else(|| self.begin());
            let text = output.text.get(choice.text..).unwrap_or_default();
            let rest = output.tokens_from(choice.tokens);
            let logprobs = self.logprobs_of(&mut choice, &rest);
            let reason = if output.finish == Finish::Length { "length" } else { "stop" };
            json!({"index": index * self.n + k, "text": text, "logprobs": logprobs, "finish_reason": reason})
        })
        .collect()
    }

    fn logprobs_of(&self, choice: &mut Choice, tokens: &[Token]) -> Value {
        let (Some(alternatives), Some(texts)) = (self.logprobs, &mut choice.texts) else { return Value::Null };
        let Ok(tokenizer) = self.model.tokenizer() else { return Value::Null };
        let (mut names, mut offsets, mut top) = (Vec::new(), Vec::new(), Vec::new());
        for token in tokens {
            let text = texts.of(token.id);
            offsets.push(choice.offset);
            if !tokenizer.is_special(token.id) {
                choice.offset += text.chars().count();
            }
            let mut map = Map::new();
            for &(id, logprob) in &token.alternatives {
                let name = if id == token.id { text.clone() } else { tokens::name(tokenizer, id) };
                map.entry(name).or_insert(json!(logprob));
            }
            top.push(Value::Object(map));
            names.push(text);
        }
        let logprobs: Vec<f32> = tokens.iter().map(|token| token.logprob).collect();
        let top = if alternatives > 0 { json!(top) } else { Value::Null };
        json!({"tokens": names, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets})
    }
}

/// A stream of chunks.
struct Chunks {
    head: Head,
    choices: Choices,
    usage: bool,
    input_tokens: usize,
}

impl sse::Writer for Chunks {
    const FORM: Form = Form::OpenAi;
    const LAST: &'static str = "data: [DONE]\n\n";

    fn write(&mut self, Told { index, what }: Told, events: &mut Vec<Value>) {
        match what {
            What::Piece { text, tokens } => {
                let choice = self.choices.piece(index, &text, &tokens);
                events.extend(choice.map(|choice| self.head.with(json!({"choices": [choice]}))));
            }
            What::Outputs(outputs) => {
                let choices = self.choices.finish(index, outputs);
                events.extend(choices.into_iter().map(|choice| self.head.with(json!({"choices": [choice]}))));
            }
            What::Vectors(_) | What::Score(_) => {}
        }
    }

    fn end(&mut self, events: &mut Vec<Value>) {
        if self.usage {
            let usage = usage_of(self.input_tokens, self.choices.new_tokens);
            events.push(self.head.with(json!({"choices": [], "usage": usage})));
        }
    }
}
