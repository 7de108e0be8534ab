//! `t5 generate`.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use t5_runtime::command::say;
use t5_runtime::{Error, Finish, GenerateOptions, Grammar, Model, Output, Overrides, Session, SplitSentences};

use super::args::{GenerateArgs, Ids, TooLong, YesNo};
use super::choose;
use super::input::{open_models, sessions};
use super::inputs::{Input, Inputs};
use super::results::{Destination, Results};
use super::side_by_side::{self, Answer, Way, Work};
use super::usage;

/// What `--stream` asks for, in a few words.
const STREAM: &str = "--stream: expected";

pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    if args.batch == Some(0) {
        return Err(usage("--batch: expected at least 1, found 0"));
    }
    if let Some(choices) = &args.choices {
        return choose::run(args, choices);
    }
    if args.too_long == TooLong::Truncate && args.max_input_tokens.is_none() {
        return Err(usage("--too-long truncate: expected --max-input-tokens with it"));
    }
    if args.stream && args.work.are_objects() {
        return Err(usage(format!("{STREAM} texts, found --input-format jsonl")));
    }
    let start = Instant::now();
    let mut inputs = Inputs::open(&args.input, &args.work)?;
    let Some(destination) = Destination::new(&args.work)? else { return Ok(()) };
    let model = open_models(args)?;
    let options = grammar(args, &model, model.options(&overrides(args))?)?;
    print_notes(&model, &options)?;
    let mut sessions = sessions(&model, args.jobs, args.threads)?;
    let mut stats = Stats { load: start.elapsed().as_secs_f64(), ..Stats::default() };
    if args.stream && !args.json && options.n_best > 1 {
        return Err(usage(format!("{STREAM} one result of each text, or --json, found {} results", options.n_best)));
    }
    let regex = args.regex.is_some().then_some("--regex");
    let rule = regex.or(args.json_schema.is_some().then_some("--json-schema"));
    let form = Form { json: args.json, n_best: options.n_best, arguments: !args.input.text.is_empty(), rule };
    let one_line = match args.json {
        true => !args.stream,
        false if args.work.are_objects() => true,
        false => form.n_best == 1 && !args.input.text.iter().any(|text| form.keeps_lines(text)),
    };
    let mut results = destination.open(&mut inputs, one_line)?;
    let watched = results.are_watched()
        && !results.are_objects()
        && !args.json
        && options.beams == 1
        && options.n_best == 1
        && args.batch.unwrap_or(1) * sessions.len() == 1;
    if args.stream || watched {
        while let Some(input) = inputs.next()? {
            stream(&mut sessions[0], &input, &options, form, &mut results, &mut stats)?;
        }
    } else {
        let flush = Duration::from_millis(args.flush_ms);
        let way = Way { batch: args.batch, flush, goes_on: results.are_objects(), options: &options };
        let Work { seconds, passes } =
            side_by_side::answer(&model, &mut inputs, &mut sessions, &way, |(input, answer)| {
                let tokens = answer.as_ref().map_or(0, |answer| stats.count(&answer.outputs));
                let end = input.end;
                if let Ok(answer) = &answer {
                    form.tell_cut(&results, input.line, &answer.outputs);
                }
                if results.are_objects() {
                    let result = answer.map(|answer| result(&answer, args.json, options.n_best));
                    results.object(input, result)?;
                } else {
                    print(&mut results, input.text()?, &answer?, form)?;
                }
                results.count(tokens, end);
                Ok(())
            })?;
        (stats.seconds, stats.passes) = (seconds, passes);
    }
    if args.stats {
        stats.print();
    }
    results.finish()
}

/// With the rule that `--regex` or `--json-schema` asks for.
fn grammar(args: &GenerateArgs, model: &Model, options: GenerateOptions) -> anyhow::Result<GenerateOptions> {
    let grammar = match (&args.regex, &args.json_schema) {
        (Some(pattern), _) => Grammar::regex(model, pattern)?,
        (None, Some(schema)) if schema.trim_start().starts_with('{') => Grammar::json_schema(model, schema)?,
        (None, Some(file)) => {
            let argument = format!("--json-schema {file}");
            let schema = std::fs::read_to_string(file).with_context(|| argument.clone())?;
            Grammar::json_schema(model, &schema).map_err(|error| match error {
                Error::Option { what, .. } => usage(format!("{argument}: {what}")),
                error => error.into(),
            })?
        }
        (None, None) => return Ok(options),
    };
    if let Some(prefix) = &args.prefix {
        grammar.check_prefix(model, prefix)?;
    }
    Ok(options.split_sentences(SplitSentences::No).processor(grammar.processor()))
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
        truncate: (args.truncate || args.too_long == TooLong::Truncate).then_some(true),
        prefix: args.prefix.clone(),
        stop: (!args.stop.is_empty()).then(|| args.stop.clone()),
        // Plain output shows text only.
        logprobs: Some(args.json),
        ..Overrides::default()
    }
}

/// Says once what will not come out as it was asked for.
fn print_notes(model: &Model, options: &GenerateOptions) -> anyhow::Result<()> {
    options.notes(model.tokenizer()?).iter().for_each(|note| say(format_args!("t5: note: {note}")));
    Ok(())
}

/// Prints pieces as they come, as JSON an object each and then one of all.
fn stream(
    session: &mut Session,
    input: &Input,
    options: &GenerateOptions,
    form: Form,
    results: &mut Results,
    stats: &mut Stats,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let keeps_lines = form.keeps_lines(input.text()?);
    let source = options.source(session.model(), input.text()?)?;
    let input_ids = source.sentences().concat();
    let mut generation = session.generate_source(source, options)?;
    let mut first = None;
    while let Some(piece) = generation.next_piece() {
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        match form.json {
            true => results.line(&json!({"line": input.line, "piece": piece}).to_string())?,
            false => results.write(plain(piece, keeps_lines).as_bytes())?,
        }
    }
    stats.passes += generation.passes();
    let answer = side_by_side::whole(Answer { input_ids, outputs: generation.finish() });
    stats.seconds += begin.elapsed().as_secs_f64();
    stats.first_piece.get_or_insert(first.unwrap_or(0.0));
    let tokens = answer.as_ref().map_or(0, |answer| stats.count(&answer.outputs));
    if !form.json {
        results.line("")?;
    }
    let answer = answer?;
    if form.json {
        let mut object = whole(&answer);
        object["line"] = json!(input.line);
        results.line(&object.to_string())?;
    }
    form.tell_cut(results, input.line, &answer.outputs);
    results.count(tokens, input.end);
    Ok(())
}

/// How results are printed, where they are not parts of objects, and what they must look like.
#[derive(Clone, Copy)]
struct Form {
    json: bool,
    n_best: usize,
    /// Whether inputs are arguments, not lines.
    arguments: bool,
    /// The flag that says what each result must look like.
    rule: Option<&'static str>,
}

impl Form {
    /// One line in, one line out, though models can generate line breaks; but an argument that has lines of its own
    /// gets them back.
    fn keeps_lines(self, text: &str) -> bool {
        self.arguments && self.n_best == 1 && text.contains(['\r', '\n'])
    }

    /// Tells of an input one of whose results ended before its rule let it, as at the limit of new tokens.
    fn tell_cut(self, results: &Results, line: usize, outputs: &[Output]) {
        let cut = outputs.iter().find(|output| output.finish != Finish::EndOfSequence);
        if let (Some(rule), Some(output)) = (self.rule, cut) {
            let finish = output.finish.name();
            results.note(format_args!(
                "line {line}: the result is cut short ({finish}): it may not be what {rule} asks for"
            ));
        }
    }
}

fn print(results: &mut Results, text: &str, answer: &Answer, form: Form) -> anyhow::Result<()> {
    if form.json {
        return results.line(&whole(answer).to_string());
    }
    for output in &answer.outputs {
        let text = plain(&output.text, form.keeps_lines(text));
        results.line(&if form.n_best > 1 { format!("{:.6}\t{text}", output.score) } else { text })?;
    }
    Ok(())
}

/// A text, or a piece of one, on one line if it must be.
fn plain(text: &str, keeps_lines: bool) -> String {
    if keeps_lines { text.to_owned() } else { text.replace(['\r', '\n'], " ") }
}

/// What becomes a field of an input's object: the text, or texts where several are wanted, or all that is known.
fn result(answer: &Answer, json: bool, n_best: usize) -> Value {
    if json {
        return whole(answer);
    }
    let mut texts = answer.outputs.iter().map(|output| json!(output.text));
    if n_best > 1 { texts.collect() } else { texts.next().unwrap_or_default() }
}

fn whole(Answer { input_ids, outputs }: &Answer) -> Value {
    let mut object = outputs.first().map_or_else(|| json!({}), as_json);
    object["input_ids"] = json!(input_ids);
    object["n_best"] = outputs.iter().map(as_json).collect();
    object
}

fn as_json(output: &Output) -> Value {
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
    /// Counts a text, and says how many new tokens it has.
    fn count(&mut self, outputs: &[Output]) -> usize {
        let tokens = outputs.first().map_or(0, |output| output.ids.len());
        self.texts += 1;
        self.tokens += tokens;
        tokens
    }

    fn print(&self) {
        let load = 1e3 * self.load;
        let first =
            self.first_piece.map_or_else(String::new, |first| format!(", first piece after {:.1} ms", 1e3 * first));
        say(format_args!(
            "t5: load {load:.1} ms{first}, {} texts, {} tokens in {} passes and {:.3} s: {:.1} tokens/s",
            self.texts,
            self.tokens,
            self.passes,
            self.seconds,
            self.tokens as f64 / self.seconds.max(1e-9)
        ));
    }
}
