//! `t5 bench`: speed and memory of a model with random ids, the end token suppressed.

use std::io::Write;
use std::time::Instant;

use serde_json::json;
use t5_runtime::generate::SIDE_BY_SIDE;
use t5_runtime::{GenerateOptions, Lookup, Model, Session, SourceText};

use super::args::BenchArgs;
use super::input::{open_model, sessions};
use super::usage;

/// The longest source: attention over more takes longer than anybody waits.
const MOST_INPUT_TOKENS: usize = 1 << 20;

/// What was measured: a value of each repetition.
#[derive(Default)]
struct Measured {
    load_ms: Vec<f64>,
    encoder_ms: Vec<f64>,
    ms_per_token: Vec<f64>,
    tokens_per_s: Vec<f64>,
    /// Weights that decoding read.
    gb_per_s: Vec<f64>,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    for (name, value) in [
        ("--input-tokens", args.input_tokens),
        ("--new-tokens", args.new_tokens),
        ("--batch", args.batch),
        ("--beams", args.beams),
        ("--repeats", args.repeats),
    ] {
        if value == 0 {
            return Err(usage(format!("{name}: expected at least 1, found 0")));
        }
    }
    if args.input_tokens > MOST_INPUT_TOKENS {
        let what = format!("expected at most {MOST_INPUT_TOKENS}, found {}", args.input_tokens);
        return Err(usage(format!("--input-tokens: {what}")));
    }
    let sequences = args.batch.saturating_mul(args.beams);
    if sequences > SIDE_BY_SIDE {
        let what = format!("expected at most {SIDE_BY_SIDE} sequences (inputs times beams), found {sequences}");
        return Err(usage(format!("--batch: {what}: more are not decoded side by side")));
    }
    let begin = Instant::now();
    let model = open_model(&args.model)?;
    let load_ms = vec![milliseconds(begin, Instant::now())];
    let mut sessions = sessions(&model, args.jobs, args.threads)?;
    let measured = Measured { load_ms, ..measure(&model, &mut sessions, args)? };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(&measured, &model, &sessions, args))?;
    } else {
        print(&measured, &model, &mut out)?;
    }
    Ok(())
}

/// `batch` sources of ids, always the same.
fn random_sources(vocab_size: usize, args: &BenchArgs) -> Vec<Vec<u32>> {
    let mut state = 1u64;
    let mut random_id = || {
        // A linear congruential generator (Knuth's MMIX constants): any ids do, but the same ones every time.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Below the sentinels, above the special tokens, where the vocabulary is large enough.
        let usable = vocab_size.saturating_sub(256).max(1) as u64;
        ((state >> 33) % usable) as u32
    };
    (0..args.batch).map(|_| (0..args.input_tokens).map(|_| random_id()).collect()).collect()
}

fn measure(model: &Model, sessions: &mut [Session], args: &BenchArgs) -> anyhow::Result<Measured> {
    let sources = random_sources(model.config().vocab_size, args);
    let texts: Vec<SourceText> = sources.iter().map(|ids| SourceText::from(ids.as_slice())).collect();
    let options = GenerateOptions::default()
        .max_new_tokens(args.new_tokens)
        // At most the limit: the end token never comes.
        .min_new_tokens(args.new_tokens)
        .beams(args.beams)
        // Tokens are all that is asked for, as in the command's plain output.
        .logprobs(false)
        // A step is one token.
        .lookup(Lookup::Off);
    let step_gb = model.decoder_step_bytes() as f64 / 1e9;
    let mut measured = Measured::default();
    // The first run warms caches and grows buffers.
    for repeat in 0..=args.repeats {
        let encoder = slowest(sessions, |session| {
            let begin = Instant::now();
            session.encode_ids(&sources[0])?;
            Ok(milliseconds(begin, Instant::now()))
        })?;
        if repeat > 0 {
            measured.encoder_ms.push(encoder);
        }
        if model.config().is_encoder_only() {
            continue;
        }
        let step = slowest(sessions, |session| step_ms(session, &texts, &options, args.new_tokens))?;
        if repeat > 0 {
            measured.ms_per_token.push(step);
            measured.tokens_per_s.push(1e3 * (args.batch * sessions.len()) as f64 / step);
            measured.gb_per_s.push(step_gb / (step / 1e3));
        }
    }
    Ok(measured)
}

fn as_json(measured: &Measured, model: &Model, sessions: &[Session], args: &BenchArgs) -> serde_json::Value {
    json!({
        "model": model.file(),
        "input_tokens": args.input_tokens,
        "new_tokens": args.new_tokens,
        "batch": args.batch,
        "beams": args.beams,
        "encoder_ms": spread(&measured.encoder_ms),
        "ms_per_token": spread(&measured.ms_per_token),
        "tokens_per_s": spread(&measured.tokens_per_s),
        "load_ms": spread(&measured.load_ms),
        "peak_rss_mb": peak_rss_mb(),
        "weights_gb_per_s": spread(&measured.gb_per_s)["median"],
        "isa": model.isa().name(),
        "threads": sessions[0].threads(),
        "jobs": sessions.len(),
    })
}

fn print(measured: &Measured, model: &Model, out: &mut impl Write) -> std::io::Result<()> {
    let line = |name: &str, values: &[f64], unit: &str| {
        let [median, min, max] = summary(values);
        format!("{name:18} {median:10.3} {unit} ({min:.3} to {max:.3})")
    };
    writeln!(out, "{}", line("load", &measured.load_ms, "ms"))?;
    writeln!(out, "{}", line("encoder", &measured.encoder_ms, "ms"))?;
    if !measured.ms_per_token.is_empty() {
        writeln!(out, "{}", line("step", &measured.ms_per_token, "ms"))?;
        writeln!(out, "{}", line("tokens/s", &measured.tokens_per_s, "  "))?;
        writeln!(out, "{}", line("weights read", &measured.gb_per_s, "GB/s"))?;
    }
    if let Some(peak) = peak_rss_mb() {
        writeln!(out, "{:18} {peak:10.1} MB", "peak memory")?;
    }
    writeln!(out, "{:18} {:>10}", "instruction set", model.isa().name())
}

/// How long a step of decoding takes, in ms. The first one does not count, which comes with the encoder's work, unless
/// it is the only one: then all of it does.
fn step_ms(
    session: &mut Session,
    texts: &[SourceText],
    options: &GenerateOptions,
    tokens: usize,
) -> t5_runtime::Result<f64> {
    let spare = session.model().session();
    let mut ends = vec![Instant::now()];
    let mut batch = std::mem::replace(session, spare).into_batch(texts.to_vec(), options)?;
    while batch.work()? {
        ends.push(Instant::now());
    }
    ends.push(Instant::now());
    *session = batch.finish()?.1;
    // A piece of work is some blocks of the encoder or a step, and the last piece is the last step.
    let last = ends.len() - 1;
    Ok(match tokens {
        1 => milliseconds(ends[0], ends[last]),
        tokens => milliseconds(ends[last - (tokens - 1)], ends[last]) / (tokens - 1) as f64,
    })
}

/// All sessions measure the same work at the same time, each in a thread of its own: the largest of what they find.
fn slowest(
    sessions: &mut [Session],
    work: impl Fn(&mut Session) -> t5_runtime::Result<f64> + Sync,
) -> anyhow::Result<f64> {
    if let [session] = sessions {
        return Ok(work(session)?);
    }
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
    });
    let all = all.into_iter().collect::<t5_runtime::Result<Vec<f64>>>()?;
    Ok(all.into_iter().fold(0.0, f64::max))
}

fn milliseconds(begin: Instant, end: Instant) -> f64 {
    1e3 * (end - begin).as_secs_f64()
}

/// Median, minimum and maximum.
fn summary(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => [0.0; 3],
        n => [(sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0, sorted[0], sorted[n - 1]],
    }
}

fn spread(values: &[f64]) -> serde_json::Value {
    if values.is_empty() {
        return serde_json::Value::Null;
    }
    let [median, min, max] = summary(values);
    json!({"median": median, "min": min, "max": max})
}

/// The largest resident size of this process so far, where the system tells it.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0 / 1e6)
}
