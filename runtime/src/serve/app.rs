//! What all requests share: the model, the limits, and the way to the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::BodyDataStream;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use futures_util::StreamExt;
use serde_json::Value;
use t5_runtime::{EncodeOptions, Finish, GenerateOptions, Model, Overrides, Passage};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engine::{Job, What, Work, Workers};
use super::fields::Fields;
use super::limits::{Config, Limits};
use super::metrics::Metrics;
use super::refusal::Refusal;

/// How long a client may take for a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Bytes of a refused body that are read all the same: a client that is cut off while it sends loses the answer.
const READ_ON: usize = 32 << 20;

pub struct App {
    pub model: Model,
    pub name: String,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub token: Option<Vec<u8>>,
    alive: Arc<AtomicBool>,
    workers: Workers,
    /// A permit for each text in work or waiting.
    room: Arc<Semaphore>,
    queue: usize,
}

/// A text, or its ids.
#[derive(Debug, PartialEq)]
pub enum Input {
    Text(String),
    Ids(Vec<u32>),
}

/// What the engine has said of one of a request's texts.
pub struct Told {
    pub index: usize,
    pub what: What,
}

/// What comes of a request. Dropped, it ends the work on it.
pub struct Answers {
    events: UnboundedReceiver<(usize, Result<What, Refusal>)>,
    /// Texts that are not done.
    left: usize,
    deadline: Instant,
    seconds: u64,
}

/// A generation under way.
pub struct Generation {
    pub answers: Answers,
    pub input_tokens: usize,
    pub options: Arc<GenerateOptions>,
}

impl App {
    /// Starts the workers; what comes with them is as [`Workers::start`] gives it.
    pub fn start(model: Model, name: String, config: &Config) -> anyhow::Result<(App, UnboundedReceiver<()>)> {
        let metrics = Arc::new(Metrics::new()?);
        let alive = Arc::new(AtomicBool::new(true));
        let (workers, ended) = Workers::start(&model, config, &metrics, &alive)?;
        let app = App {
            model,
            name,
            limits: config.limits.clone(),
            metrics,
            token: config.token.clone(),
            alive,
            workers,
            room: Arc::new(Semaphore::new(config.queue)),
            queue: config.queue,
        };
        Ok((app, ended))
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Texts in work and waiting.
    pub fn in_flight(&self) -> usize {
        self.queue - self.room.available_permits()
    }

    /// The fields of a request's body.
    pub async fn fields(&self, request: Request) -> Result<Fields, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes()).unwrap_or_default();
        let kind = String::from_utf8_lossy(kind);
        // A page of somebody else can send other types to any address without asking.
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            let message = format!("content-type: expected application/json, found {kind:?}");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let too_large = || {
            let message = format!("the body: expected at most {} bytes, found more", self.limits.body);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // Who asks before sending has sent nothing yet.
        let asks = request.headers().contains_key(header::EXPECT);
        let mut body = request.into_body().into_data_stream();
        if length.is_some_and(|length| length > self.limits.body) {
            if !asks {
                read_on(body);
            }
            return Err(too_large());
        }
        let lost = |error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body: {error}"));
        let read = async {
            let mut bytes = Vec::with_capacity(length.unwrap_or(0));
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(lost)?;
                if bytes.len() + piece.len() > self.limits.body {
                    read_on(body);
                    return Err(too_large());
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        let too_slow = |_| {
            let message = format!("the body: expected all of it within {} s, found less", BODY_TIME.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
        };
        let bytes = tokio::time::timeout(BODY_TIME, read).await.map_err(too_slow)??;
        Fields::parse(&bytes)
    }

    /// Refuses a request for another model.
    pub fn check_model(&self, fields: &mut Fields) -> Result<(), Refusal> {
        match fields.get::<String>("model")? {
            Some(name) if name != self.name => Err(self.unknown_model("model", &name)),
            _ => Ok(()),
        }
    }

    pub fn unknown_model(&self, field: &str, name: &str) -> Refusal {
        let what = format!("expected {:?}, the model that is served, found {name:?}", self.name);
        Refusal { status: StatusCode::NOT_FOUND, ..Refusal::field(field, what) }
    }

    /// Texts or ids: one, or a list of them.
    pub fn inputs(&self, fields: &mut Fields, name: &str) -> Result<Vec<Input>, Refusal> {
        let expected = "a string, a list of strings, token ids or a list of lists of token ids";
        let Some(value) = fields.value(name) else {
            return Err(fields.refuse(name, format!("expected {expected}, found none")));
        };
        let inputs = read_inputs(&value).ok_or_else(|| fields.wrong(name, expected, &value))?;
        self.check_count(name, inputs.len())?;
        Ok(inputs)
    }

    pub fn check_count(&self, name: &str, count: usize) -> Result<(), Refusal> {
        if (1..=self.queue).contains(&count) {
            return Ok(());
        }
        Err(Refusal::field(name, format!("expected 1 to {} texts, found {count}", self.queue)))
    }

    /// Room for so many texts.
    fn enter(&self, count: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        self.room.clone().try_acquire_many_owned(count as u32).map_err(|_| {
            let in_flight = self.in_flight();
            let message = format!("{in_flight} texts are in work and waiting, and there is room for {}", self.queue);
            let retry_after = Some(self.metrics.seconds_for(in_flight));
            Refusal { retry_after, ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, message) }
        })
    }

    /// Asks for texts. `name` is what the protocol calls the input.
    pub async fn generate(&self, name: &str, inputs: Vec<Input>, overrides: Overrides) -> Result<Generation, Refusal> {
        let options = self.options(&overrides)?;
        let room = self.enter(inputs.len())?;
        let sources = {
            let (model, options) = (self.model.clone(), options.clone());
            let read =
                move || inputs.iter().map(|input| source(&model, input, &options)).collect::<Result<Vec<_>, _>>();
            off_the_road(read).await?.map_err(|error| Refusal::of(&error))?
        };
        let mut input_tokens = 0;
        for source in &sources {
            let tokens = source.sentences().iter().map(Vec::len).sum();
            self.check_tokens(name, tokens)?;
            input_tokens += tokens;
        }
        let options = Arc::new(options);
        let work = sources.into_iter().map(|source| Work::Generate { source, options: options.clone() }).collect();
        let answers = self.ask(room, work, input_tokens)?;
        Ok(Generation { answers, input_tokens, options })
    }

    /// What a request asks for, within the limits.
    fn options(&self, overrides: &Overrides) -> Result<GenerateOptions, Refusal> {
        let most = self.limits.new_tokens;
        if let Some(asked) = overrides.max_new_tokens.filter(|&asked| asked > most) {
            return Err(Refusal::field("max_new_tokens", format!("expected 1 to {most}, found {asked}")));
        }
        let mut options = self.model.options(overrides).map_err(|error| Refusal::of(&error))?;
        options.max_new_tokens = options.max_new_tokens.min(most);
        options.min_new_tokens = options.min_new_tokens.min(options.max_new_tokens);
        if let Some(asked) = overrides.min_new_tokens.filter(|&asked| asked > options.max_new_tokens) {
            let what = format!("expected at most {}, found {asked}", options.max_new_tokens);
            return Err(Refusal::field("min_new_tokens", what));
        }
        Ok(options)
    }

    fn check_tokens(&self, name: &str, tokens: usize) -> Result<(), Refusal> {
        if tokens <= self.limits.input_tokens {
            return Ok(());
        }
        Err(Refusal::field(name, format!("expected at most {} tokens, found {tokens}", self.limits.input_tokens)))
    }

    /// Asks for vectors, all at once; how many tokens that reads.
    pub async fn encode(
        &self,
        name: &str,
        inputs: Vec<Input>,
        options: EncodeOptions,
    ) -> Result<(Answers, usize), Refusal> {
        let room = self.enter(inputs.len())?;
        let (model, asked) = (self.model.clone(), options.clone());
        let read = move || {
            let read = |input| -> t5_runtime::Result<Passage> {
                let passage = match input {
                    Input::Text(text) => model.passage(&text, &asked)?,
                    Input::Ids(ids) => ids.into(),
                };
                // What is wrong with it is said now, and not to those that are encoded beside it.
                model.rows_of(&passage, &asked)?;
                Ok(passage)
            };
            inputs.into_iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        let passages = off_the_road(read).await?.map_err(|error| Refusal::of(&error))?;
        passages.iter().try_for_each(|passage| self.check_tokens(name, passage.ids.len()))?;
        let tokens = passages.iter().map(|passage| passage.ids.len()).sum();
        let answers = self.ask_whole(room, Work::Encode { passages, options }, tokens)?;
        Ok((answers, tokens))
    }

    /// Asks for the log-probabilities of targets.
    pub async fn score(&self, pairs: Vec<(String, String)>) -> Result<Answers, Refusal> {
        let room = self.enter(pairs.len())?;
        let model = self.model.clone();
        let read = move || {
            let tokenizer = model.tokenizer()?;
            let ids = |(source, target): &(String, String)| Ok((model.source_ids(source)?, tokenizer.encode(target)));
            pairs.iter().map(ids).collect::<t5_runtime::Result<Vec<_>>>()
        };
        let pairs = off_the_road(read).await?.map_err(|error: t5_runtime::Error| Refusal::of(&error))?;
        let mut tokens = 0;
        for (source, target) in &pairs {
            self.check_tokens("source", source.len())?;
            self.check_tokens("target", target.len())?;
            tokens += source.len() + target.len();
        }
        let work = pairs.into_iter().map(|(source, target)| Work::Score { source, target }).collect();
        self.ask(room, work, tokens)
    }

    /// Hands work to the engine, each piece with its share of the room.
    fn ask(&self, mut room: OwnedSemaphorePermit, work: Vec<Work>, tokens: usize) -> Result<Answers, Refusal> {
        let answers = work.into_iter().enumerate().map(|(index, work)| (index, work, room.split(1)));
        self.hand_over(answers.collect(), tokens)
    }

    fn ask_whole(&self, room: OwnedSemaphorePermit, work: Work, tokens: usize) -> Result<Answers, Refusal> {
        self.hand_over(vec![(0, work, Some(room))], tokens)
    }

    fn hand_over(
        &self,
        work: Vec<(usize, Work, Option<OwnedSemaphorePermit>)>,
        tokens: usize,
    ) -> Result<Answers, Refusal> {
        self.metrics.input_tokens.inc_by(tokens as u64);
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let left = work.len();
        for (index, work, room) in work {
            let job = Job { index, work, events: sender.clone(), begun: Instant::now(), room, load: None };
            self.workers.send(job)?;
        }
        let deadline = Instant::now() + self.limits.time;
        Ok(Answers { events, left, deadline, seconds: self.limits.time.as_secs() })
    }
}

impl Answers {
    /// The next word; `None` when all texts are done. Nothing comes behind a refusal.
    pub async fn next(&mut self) -> Option<Result<Told, Refusal>> {
        if self.left == 0 {
            return None;
        }
        let next = tokio::time::timeout_at(self.deadline.into(), self.events.recv()).await;
        let told = match next {
            Err(_) => Err(Refusal::too_late(self.seconds)),
            Ok(None) => Err(Refusal::broken()),
            Ok(Some((_, Err(refusal)))) => Err(refusal),
            Ok(Some((index, Ok(what)))) => whole(what).map(|what| Told { index, what }),
        };
        match &told {
            Err(_) => {
                self.left = 0;
                self.events.close();
            }
            Ok(Told { what: What::Piece { .. }, .. }) => {}
            Ok(_) => self.left -= 1,
        }
        Some(told)
    }

    /// What `pick` takes of each text, in their order.
    pub async fn all<T>(mut self, pick: impl Fn(What) -> Option<T>) -> Result<Vec<T>, Refusal> {
        let mut all: Vec<Option<T>> = (0..self.left).map(|_| None).collect();
        while let Some(told) = self.next().await {
            let Told { index, what } = told?;
            if let Some(result) = pick(what) {
                all[index] = Some(result);
            }
        }
        Ok(all.into_iter().flatten().collect())
    }
}

/// A result that there was memory for.
fn whole(what: What) -> Result<What, Refusal> {
    if let What::Outputs(outputs) = &what
        && let Some(output) = outputs.iter().find(|output| output.finish == Finish::Memory)
    {
        let message = format!("not enough memory for more than {} tokens of the text", output.ids.len());
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    Ok(what)
}

fn source(model: &Model, input: &Input, options: &GenerateOptions) -> t5_runtime::Result<t5_runtime::SourceText> {
    match input {
        Input::Text(text) => options.source(model, text),
        Input::Ids(ids) => options.source_of_ids(model, ids),
    }
}

/// Reads the rest of a refused body, within bounds, while the answer goes its way.
fn read_on(mut body: BodyDataStream) {
    tokio::spawn(tokio::time::timeout(BODY_TIME, async move {
        let mut left = READ_ON;
        while let Some(Ok(piece)) = body.next().await {
            let Some(less) = left.checked_sub(piece.len()) else { return };
            left = less;
        }
    }));
}

/// Does what takes longer than connections should wait for one another.
async fn off_the_road<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let broken = |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("reading the input: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(broken)
}

fn read_inputs(value: &Value) -> Option<Vec<Input>> {
    use super::fields::Field;
    match value {
        Value::String(text) => Some(vec![Input::Text(text.clone())]),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => Some(vec![Input::Ids(Vec::read(value)?)]),
        Value::Array(list) => list
            .iter()
            .map(|one| match one {
                Value::String(text) => Some(Input::Text(text.clone())),
                ids => Vec::read(ids).map(Input::Ids),
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_are_texts_or_ids_or_lists_of_them() {
        let text = |text: &str| Input::Text(text.to_owned());
        assert_eq!(read_inputs(&json!("a")), Some(vec![text("a")]));
        assert_eq!(read_inputs(&json!(["a", "b"])), Some(vec![text("a"), text("b")]));
        assert_eq!(read_inputs(&json!([3, 1])), Some(vec![Input::Ids(vec![3, 1])]));
        assert_eq!(read_inputs(&json!([[3, 1], [1]])), Some(vec![Input::Ids(vec![3, 1]), Input::Ids(vec![1])]));
        assert_eq!(read_inputs(&json!([])), Some(Vec::new()));
        for wrong in [json!(3), json!([3, "a"]), json!([-1]), json!({"a": 1}), json!([null])] {
            assert_eq!(read_inputs(&wrong), None, "{wrong}");
        }
    }
}
