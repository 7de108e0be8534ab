//! `t5 generate`.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::json;
use t5_runtime::{GenerateOptions, Model, Output, Overrides, Session, SourceText};

use super::args::{GenerateArgs, Ids, YesNo};
use super::choose;
use super::input::{Lines, open_model, sessions};
use super::usage;

/// Sequences side by side where nobody says how many: more gain nothing (measured with the built-in model; one at a
/// time takes 2.8 times as long). Lines of one length beside each other gain nothing either, since there is no padding.
const AT_ONCE: usize = 16;
/// Bytes of texts side by side where nobody says how many: long ones take memory, and keep the processor busy alone.
const BYTES_AT_ONCE: usize = 8 << 10;

pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    if args.batch == Some(0) {
        return Err(usage("--batch: expected at least 1, found 0"));
    }
    if let Some(choices) = &args.choices {
        return choose::run(args, choices);
    }
    let start = Instant::now();
    let mut lines = Lines::open(&args.input)?;
    let model = open_model(&args.model)?;
    let options = model.options(&overrides(args))?;
    print_notes(&model, &options)?;
    let mut sessions = sessions(&model, args.jobs, args.threads)?;
    let mut stats = Stats { load: start.elapsed().as_secs_f64(), ..Stats::default() };
    let mut out = std::io::stdout().lock();
    let streams = out.is_terminal()
        && !args.json
        && options.beams == 1
        && options.n_best == 1
        && args.batch.unwrap_or(1) * sessions.len() == 1;
    let batch = args.batch.unwrap_or(if streams { 1 } else { (AT_ONCE / options.beams.max(options.n_best)).max(1) });
    let whole = batch * sessions.len();
    let mut texts: Vec<String> = Vec::new();
    loop {
        // A bad line ends the work only after the lines before it are answered.
        let line = lines.next_line();
        let ended = !matches!(line, Ok(Some(_)));
        if let Ok(Some(line)) = &line {
            texts.push(line.clone());
        }
        // One who asked for a number waits for as many.
        let enough = args.batch.is_none()
            && (!lines.is_ready() || texts.iter().map(String::len).sum::<usize>() >= BYTES_AT_ONCE * sessions.len());
        if texts.len() == whole || ((ended || enough) && !texts.is_empty()) {
            let begin = Instant::now();
            if streams {
                stream(&mut sessions[0], &texts[0], &options, &mut out, &mut stats, begin)?;
            } else {
                let share = args.batch.unwrap_or_else(|| texts.len().div_ceil(sessions.len()));
                let mut results = generate(&mut sessions, &texts, share, &options);
                if args.batch.is_none() && share > 1 && results.iter().any(Result::is_err) {
                    // One by one, so that those before the faulty one are answered.
                    results = generate(&mut sessions[..1], &texts, 1, &options);
                }
                for results in results {
                    for answer in results? {
                        stats.count(&answer.outputs);
                        print(&mut out, &answer, args.json, options.n_best)?;
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

/// What the arguments ask for.
pub fn overrides(args: &GenerateArgs) -> Overrides {
    let ids = |ids: &Option<Ids>| ids.as_ref().map(|ids| ids.0.clone());
    let bad_words: Vec<Vec<u32>> = args.bad_words.iter().map(|ids| ids.0.clone()).collect();
    let sequence_bias: Vec<_> = args.sequence_bias.iter().map(|bias| (bias.0.clone(), bias.1)).collect();
    Overrides {
        task: args.task.clone(),
        max_new_tokens: args.max_new_tokens,
        min_new_tokens: args.min_new_tokens,
        beams: args.beams,
        beam_groups: args.beam_groups,
        diversity_penalty: args.diversity_penalty,
        length_penalty: args.length_penalty,
        length_penalty_kind: args.penalty.map(Into::into),
        early_stopping: args.early_stopping.map(Into::into),
        n_best: args.n_best,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        typical_p: args.typical_p,
        epsilon_cutoff: args.epsilon_cutoff,
        eta_cutoff: args.eta_cutoff,
        top_h: args.top_h,
        seed: args.seed,
        repetition_penalty: args.repetition_penalty,
        encoder_repetition_penalty: args.encoder_repetition_penalty,
        no_repeat_ngram: args.no_repeat_ngram,
        encoder_no_repeat_ngram: args.encoder_no_repeat_ngram,
        exponential_decay: args.exponential_decay.map(|decay| (decay.0, decay.1)),
        forced_bos: args.forced_bos,
        forced_eos: ids(&args.forced_eos),
        suppress: ids(&args.suppress),
        begin_suppress: ids(&args.begin_suppress),
        bad_words: (!bad_words.is_empty()).then_some(bad_words),
        sequence_bias: (!sequence_bias.is_empty()).then_some(sequence_bias),
        renormalize: args.renormalize.then_some(true),
        remove_invalid: args.remove_invalid.then_some(true),
        lookup: args.lookup.map(Into::into),
        split_sentences: args.split_sentences.map(|answer| answer == YesNo::Yes),
        max_input_tokens: args.max_input_tokens,
        truncate: args.truncate.then_some(true),
        prefix: args.prefix.clone(),
        stop: (!args.stop.is_empty()).then(|| args.stop.clone()),
        // Plain output shows text only.
        logprobs: Some(args.json),
        ..Overrides::default()
    }
}

/// Says once what will not come out as it was asked for.
fn print_notes(model: &Model, options: &GenerateOptions) -> anyhow::Result<()> {
    options.notes(model.tokenizer()?).iter().for_each(|note| eprintln!("t5: note: {note}"));
    Ok(())
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

/// What a text gives.
struct Answered<'t> {
    text: &'t str,
    /// Of all sentences, one after the other.
    input_ids: Vec<u32>,
    outputs: Vec<Output>,
}

/// Answers texts in order, groups of `batch` side by side in a session, sessions side by side in threads.
fn generate<'t>(
    sessions: &mut [Session],
    texts: &'t [String],
    batch: usize,
    options: &GenerateOptions,
) -> Vec<t5_runtime::Result<Vec<Answered<'t>>>> {
    let answer = |session: &mut Session, texts: &'t [String]| {
        let source = |text: &String| options.source(session.model(), text);
        let sources = texts.iter().map(source).collect::<t5_runtime::Result<Vec<SourceText>>>()?;
        let outputs = session.generate_batch_sources(&sources, options)?;
        let answers = texts.iter().zip(sources).zip(outputs);
        let answers =
            answers.map(|((text, source), outputs)| Answered { text, input_ids: source.sentences().concat(), outputs });
        Ok(answers.collect())
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

fn print(out: &mut impl Write, answer: &Answered<'_>, json: bool, n_best: usize) -> std::io::Result<()> {
    let Answered { text, input_ids, outputs } = answer;
    if json {
        let mut object = outputs.first().map_or_else(|| json!({}), as_json);
        object["input_ids"] = json!(input_ids);
        object["n_best"] = outputs.iter().map(as_json).collect();
        return writeln!(out, "{object}");
    }
    // One line in, one line out: byte-level models can generate line breaks. A text with lines of its own keeps them.
    let lines = text.contains(['\r', '\n']) && n_best == 1;
    for output in outputs {
        let text = if lines { output.text.clone() } else { output.text.replace(['\r', '\n'], " ") };
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
