//! `t5 generate`.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::json;
use t5_runtime::{GenerateOptions, Model, Output, Overrides, Session};

use super::args::{GenerateArgs, Ids, YesNo};
use super::choose;
use super::input::{Lines, open_model, sessions};
use super::side_by_side::{self, Answer, Work};
use super::usage;

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
    let mut out = std::io::stdout();
    let streams = out.is_terminal()
        && !args.json
        && options.beams == 1
        && options.n_best == 1
        && args.batch.unwrap_or(1) * sessions.len() == 1;
    if streams {
        while let Some(line) = lines.next_line()? {
            stream(&mut sessions[0], &line, &options, &mut out, &mut stats)?;
        }
    } else {
        let Work { seconds, passes } =
            side_by_side::answer(&model, &mut lines, &mut sessions, args.batch, &options, |answer| {
                stats.count(&answer.outputs);
                print(&mut out, &answer, args.json, options.n_best)?;
                Ok(out.flush()?)
            })?;
        (stats.seconds, stats.passes) = (seconds, passes);
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
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut generation = session.generate(text, options)?;
    let mut first = None;
    while let Some(piece) = generation.next_piece() {
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        out.write_all(piece.as_bytes())?;
        out.flush()?;
    }
    writeln!(out)?;
    stats.passes += generation.passes();
    let outputs = generation.finish();
    stats.seconds += begin.elapsed().as_secs_f64();
    stats.first_piece.get_or_insert(first.unwrap_or(0.0));
    stats.count(&outputs);
    Ok(())
}

fn print(out: &mut impl Write, answer: &Answer, json: bool, n_best: usize) -> std::io::Result<()> {
    let Answer { text, input_ids, outputs } = answer;
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
    /// Of the decoder.
    passes: usize,
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
            ", {} texts, {} tokens in {} passes and {:.3} s: {:.1} tokens/s",
            self.texts,
            self.tokens,
            self.passes,
            self.seconds,
            self.tokens as f64 / self.seconds.max(1e-9)
        );
    }
}
