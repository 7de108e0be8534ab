//! Answers a few requests with the built-in model; with `time`, says how long its parts take, as `t5 bench` does.

use std::time::Instant;

use t5_runtime::{GenerateOptions, Lookup, Model, Result, Session};

const REQUESTS: [&str; 4] = [
    "translate English to German: Where is the station?",
    "translate English to French: I would like a cup of coffee, please. It has been a long day.",
    "fix: She go to school every days.",
    "translate English to German: The house that we saw yesterday is already sold.",
];
/// As `t5 bench --input-tokens 256 --new-tokens 64` has them.
const INPUT_TOKENS: usize = 256;
const NEW_TOKENS: usize = 64;
const REPEATS: usize = 15;

fn main() -> Result<()> {
    let model = Model::pocket()?;
    let mut session = model.session();
    if std::env::args().nth(1).as_deref() == Some("time") {
        return time(&mut session);
    }
    for request in REQUESTS {
        for beams in [1, 4] {
            let options = GenerateOptions::default().beams(beams);
            let best = session.generate(request, &options)?.finish().swap_remove(0);
            println!("{beams}\t{request}\t{}\t{:08x}", best.text, best.score.to_bits());
        }
    }
    Ok(())
}

fn time(session: &mut Session) -> Result<()> {
    // The ids that `t5 bench` makes up.
    let mut state = 1u64;
    let usable = session.model().config().vocab_size.saturating_sub(256) as u64;
    let mut random_id = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % usable) as u32
    };
    let source: Vec<u32> = (0..INPUT_TOKENS).map(|_| random_id()).collect();
    let mut milliseconds = [Vec::new(), Vec::new()];
    for repeat in 0..=REPEATS {
        let begin = Instant::now();
        session.encode_ids(&source)?;
        let encoder = begin.elapsed();
        let decode = |session: &mut Session, tokens| {
            let options = GenerateOptions::default().max_new_tokens(tokens).min_new_tokens(tokens);
            let options = options.logprobs(false).lookup(Lookup::Off);
            let begin = Instant::now();
            session.generate_ids(&source, &options).map(|generation| {
                generation.finish();
                begin.elapsed()
            })
        };
        let (one, all) = (decode(session, 1)?, decode(session, NEW_TOKENS)?);
        if repeat > 0 {
            milliseconds[0].push(1e3 * encoder.as_secs_f64());
            milliseconds[1].push(1e3 * (all.as_secs_f64() - one.as_secs_f64()) / (NEW_TOKENS - 1) as f64);
        }
    }
    for (name, mut values) in ["encoder", "step"].into_iter().zip(milliseconds) {
        values.sort_by(f64::total_cmp);
        println!("{name} {:.4} ms", values[values.len() / 2]);
    }
    Ok(())
}
