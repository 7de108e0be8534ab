//! `t5 generate`.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::json;
use t5_runtime::{EarlyStopping, GenerateOptions, LengthPenalty, Lookup, Model, Output, Session};

use super::args::{GenerateArgs, Penalty, Stopping, When};
use super::input::{Lines, open_model, sessions};
use super::usage;

pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    if args.batch == 0 {
        return Err(usage("--batch: expected at least 1, found 0"));
    }
    let start = Instant::now();
    let mut lines = Lines::open(&args.input)?;
    let model = open_model(&args.model)?;
    let options = options(args, &model);
    options.validate().map_err(|error| usage(error.to_string()))?;
    model.tokenizer()?;
    let mut sessions = sessions(&model, args.jobs, args.threads)?;
    let mut stats = Stats { load: start.elapsed().as_secs_f64(), ..Stats::default() };
    let mut out = std::io::stdout().lock();
    let whole = args.batch * sessions.len();
    let streams = out.is_terminal() && !args.json && options.beams == 1 && options.n_best == 1 && whole == 1;
    let mut texts = Vec::new();
    loop {
        // A bad line ends the work only after the lines before it are answered.
        let line = lines.next_line();
        let ended = !matches!(line, Ok(Some(_)));
        if let Ok(Some(line)) = &line {
            texts.push(line.clone());
        }
        if texts.len() == whole || (ended && !texts.is_empty()) {
            let begin = Instant::now();
            if streams {
                stream(&mut sessions[0], &texts[0], &options, &mut out, &mut stats, begin)?;
            } else {
                for results in generate(&mut sessions, &texts, args.batch, &options) {
                    for (input_ids, outputs) in results? {
                        stats.count(&outputs);
                        print(&mut out, &input_ids, &outputs, args.json, options.n_best)?;
                    }
                }
                out.flush()?;
            }
            stats.seconds += begin.elapsed().as_secs_f64();
            texts.clear();
        }
        if ended {
            line?;
            break;
        }
    }
    if args.stats {
        stats.print();
    }
    Ok(())
}

/// The checkpoint's own wishes, changed by what the user asks for.
fn options(args: &GenerateArgs, model: &Model) -> GenerateOptions {
    let mut options = GenerateOptions::from_defaults(model.generation_defaults());
    options.beams = args.beams.unwrap_or(options.beams);
    // A filter of candidates alone asks for sampling, too.
    let filtered = args.top_k.is_some() || args.top_p.is_some() || args.min_p.is_some();
    options.temperature = args.temperature.unwrap_or(if filtered { 1.0 } else { 0.0 });
    if options.temperature != 0.0 && args.beams.is_none() {
        // The checkpoint's beams do not stand in the way of sampling.
        options.beams = 1;
    }
    let (default_alpha, hugging_face) = match options.length_penalty {
        LengthPenalty::T5 { alpha } => (alpha, false),
        LengthPenalty::HuggingFace { exponent } => (exponent, true),
    };
    options.length_penalty = match (args.penalty, hugging_face) {
        (Some(Penalty::Hf), true) | (None, true) => {
            LengthPenalty::HuggingFace { exponent: args.length_penalty.unwrap_or(default_alpha) }
        }
        (Some(Penalty::Hf), false) => LengthPenalty::HuggingFace { exponent: args.length_penalty.unwrap_or(1.0) },
        (Some(Penalty::T5), true) => LengthPenalty::T5 { alpha: args.length_penalty.unwrap_or(0.6) },
        (Some(Penalty::T5), false) | (None, false) => {
            LengthPenalty::T5 { alpha: args.length_penalty.unwrap_or(default_alpha) }
        }
    };
    match args.early_stopping {
        Some(Stopping::Yes) => options.early_stopping = EarlyStopping::Yes,
        Some(Stopping::No) => options.early_stopping = EarlyStopping::No,
        Some(Stopping::Never) => options.early_stopping = EarlyStopping::Never,
        None => {}
    }
    options.n_best = args.n_best.unwrap_or(1);
    options.max_new_tokens = args.max_new_tokens.or(options.max_new_tokens);
    options.min_new_tokens = args.min_new_tokens.unwrap_or(options.min_new_tokens);
    options.top_k = args.top_k.unwrap_or(0);
    options.top_p = args.top_p.unwrap_or(1.0);
    options.min_p = args.min_p.unwrap_or(0.0);
    options.seed = args.seed.unwrap_or(0);
    options.repetition_penalty = args.repetition_penalty.unwrap_or(options.repetition_penalty);
    options.no_repeat_ngram = args.no_repeat_ngram.unwrap_or(options.no_repeat_ngram);
    options.lookup = match args.lookup {
        Some(When::On) => Lookup::On,
        Some(When::Off) => Lookup::Off,
        Some(When::Auto) | None => Lookup::Auto,
    };
    options.prefix = args.prefix.clone().unwrap_or_default();
    options.stop = args.stop.clone();
    // Plain output shows text only.
    options.logprobs = args.json;
    options
}

/// Prints pieces as they come.
fn stream(
    session: &mut Session,
    text: &str,
    options: &GenerateOptions,
    out: &mut impl Write,
    stats: &mut Stats,
    begin: Instant,
) -> anyhow::Result<()> {
    let mut generation = session.generate(text, options)?;
    let mut first = None;
    while let Some(piece) = generation.next_piece() {
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        out.write_all(piece.as_bytes())?;
        out.flush()?;
    }
    writeln!(out)?;
    let outputs = generation.finish();
    stats.first_piece.get_or_insert(first.unwrap_or(0.0));
    stats.count(&outputs);
    Ok(())
}

/// A text's input ids with its outputs.
type Answer = (Vec<u32>, Vec<Output>);

/// Answers texts in order, groups of `batch` side by side in a session, sessions side by side in threads.
fn generate(
    sessions: &mut [Session],
    texts: &[String],
    batch: usize,
    options: &GenerateOptions,
) -> Vec<t5_runtime::Result<Vec<Answer>>> {
    let answer = |session: &mut Session, texts: &[String]| {
        let tokenizer = session.model().tokenizer()?;
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text)).collect();
        let sources: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let outputs = session.generate_batch_ids(&sources, options)?;
        Ok(ids.into_iter().zip(outputs).collect())
    };
    if let [session] = sessions {
        return texts.chunks(batch).map(|texts| answer(session, texts)).collect();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .zip(texts.chunks(batch))
            .map(|(session, texts)| scope.spawn(|| answer(session, texts)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn print(
    out: &mut impl Write,
    input_ids: &[u32],
    outputs: &[Output],
    json: bool,
    n_best: usize,
) -> std::io::Result<()> {
    if json {
        let mut object = outputs.first().map_or_else(|| json!({}), as_json);
        object["input_ids"] = json!(input_ids);
        object["n_best"] = outputs.iter().map(as_json).collect();
        return writeln!(out, "{object}");
    }
    for output in outputs {
        // One line in, one line out: byte-level models can generate line breaks.
        let text = output.text.replace(['\r', '\n'], " ");
        if n_best > 1 {
            writeln!(out, "{:.6}\t{text}", output.score)?;
        } else {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

fn as_json(output: &Output) -> serde_json::Value {
    json!({
        "text": output.text,
        "ids": output.ids,
        "logprobs": output.logprobs,
        "score": output.score,
        "finish": output.finish.name(),
    })
}

#[derive(Default)]
struct Stats {
    load: f64,
    seconds: f64,
    first_piece: Option<f64>,
    texts: usize,
    tokens: usize,
}

impl Stats {
    fn count(&mut self, outputs: &[Output]) {
        self.texts += 1;
        self.tokens += outputs.first().map_or(0, |output| output.ids.len());
    }

    fn print(&self) {
        eprint!("t5: load {:.1} ms", 1e3 * self.load);
        if let Some(first) = self.first_piece {
            eprint!(", first piece after {:.1} ms", 1e3 * first);
        }
        eprintln!(
            ", {} texts, {} tokens in {:.3} s: {:.1} tokens/s",
            self.texts,
            self.tokens,
            self.seconds,
            self.tokens as f64 / self.seconds.max(1e-9)
        );
    }
}
