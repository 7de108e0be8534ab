use t5_runtime::*;
use std::time::Instant;
fn main() -> Result<()> {
    let dir = "/work/shared/models/flan-t5-small-titler";
    let cp = checkpoint::Checkpoint::open(dir.as_ref())?;
    let mut cp = cp; cp.vocabulary = None;
    let t = Instant::now();
    let model = Model::from_checkpoint(cp, &ModelOptions::default())?;
    println!("load {:?} isa {}", t.elapsed(), model.kernels().isa().name());
    let mut s = model.session();
    let text = std::fs::read_to_string(format!("{dir}/golden.jsonl")).unwrap();
    for line in text.lines().skip(1) {
        let j: serde_json::Value = serde_json::from_str(line).unwrap();
        let ids = |k: &str| -> Vec<u32> { j[k].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect() };
        let src = ids("input_ids"); let want = ids("greedy_ids");
        let wl: Vec<f32> = j["greedy_logprobs"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let forced = !want.contains(&1);
        let t = Instant::now();
        let o = GenerateOptions { max_new_tokens: Some(want.len()), suppress: if forced { vec![1] } else { vec![] }, ..Default::default() };
        let out = s.generate_ids(&src, &o)?.finish();
        let el = t.elapsed();
        let same = out[0].ids == want;
        let diff = out[0].logprobs.iter().zip(&wl).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        let sc = s.score_ids(&src, &want)?;
        let diff2 = sc.logprobs.iter().zip(&wl).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        let mut beam = String::new();
        if let Some(b) = j.get("beam4_ids") {
            let n = b[0].as_array().unwrap().len();
            let o = GenerateOptions { beams: 4, n_best: 4, length_penalty: LengthPenalty::HuggingFace { exponent: 1.0 }, max_new_tokens: Some(if forced {200} else {64}), ..Default::default() };
            let t = Instant::now();
            let out = s.generate_ids(&src, &o)?.finish();
            let _ = n;
            for (i, o) in out.iter().enumerate() {
                let w: Vec<u32> = b[i].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
                let mut w = w; let e = w.iter().position(|&x| x == 1).map_or(w.len(), |e| e + 1); w.truncate(e);
                let ws = j["beam4_scores"][i].as_f64().unwrap() as f32;
                beam += &format!(" {}{:.5}", o.ids == w, (o.score - ws).abs());
            }
            beam += &format!(" {:?}", t.elapsed());
        }
        println!("src {} tgt {} same {same} diff {diff} {diff2} {el:?} beams{beam}", src.len(), want.len());
    }
    Ok(())
}
