//! Bucketing: which examples of similar lengths share a batch.

use crate::tasks::Example;

/// Groups that hold so many batches' tokens or fewer are cut into batches along one length.
const BATCHES_PER_GROUP: usize = 6;

/// Divides examples into batches of similar lengths whose slots, padding counted, are at most `tokens`: halves along
/// the length that wastes more until a group holds a few batches, which then get equal shares.
pub fn divide(examples: &mut [&Example], tokens: usize, emit: &mut impl FnMut(&[&Example])) {
    let lengths: [fn(&Example) -> usize; 2] = [|e| e.inputs.len(), |e| e.targets.len()];
    let waste = lengths.map(|len| {
        let longest = examples.iter().map(|e| len(e)).max().unwrap_or(0);
        examples.iter().map(|e| longest - len(e)).sum::<usize>()
    });
    let (first, second) = if waste[0] >= waste[1] { (0, 1) } else { (1, 0) };
    examples.sort_by_key(|e| (lengths[first](e), lengths[second](e)));
    let used = |part: &[&Example]| part.iter().map(|e| e.inputs.len() + e.targets.len()).sum::<usize>();
    let total = used(examples);
    if total > BATCHES_PER_GROUP * tokens {
        let (mut at, mut sum) = (0, 0);
        while at + 1 < examples.len() && sum < total / 2 {
            sum += used(&examples[at..=at]);
            at += 1;
        }
        let (left, right) = examples.split_at_mut(at);
        divide(left, tokens, emit);
        divide(right, tokens, emit);
        return;
    }
    // The fewest equal shares that fit; one example a batch always does.
    let fits = |part: &[&Example]| {
        let longest = lengths.map(|len| part.iter().map(|e| len(e)).max().unwrap_or(0));
        part.len() * (longest[0] + longest[1]) <= tokens
    };
    for parts in total.div_ceil(tokens).max(1)..=examples.len() {
        let mut shares: Vec<&[&Example]> = Vec::with_capacity(parts);
        let (mut start, mut sum) = (0, 0);
        for end in 1..=examples.len() {
            sum += used(&examples[end - 1..end]);
            let part = shares.len() + 1;
            if sum * parts >= total * part || examples.len() - end == parts - part {
                shares.push(&examples[start..end]);
                start = end;
            }
        }
        if parts == examples.len() || shares.iter().all(|share| fits(share)) {
            shares.into_iter().filter(|share| !share.is_empty()).for_each(emit);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::batch::Batch;
    use crate::random::Random;

    fn examples(count: usize) -> Vec<Example> {
        let mut random = Random::new(4);
        (0..count)
            .map(|_| {
                // Two tasks of different shapes, as sentences and pronunciations.
                let (enc, dec) = if random.chance(0.8) {
                    let enc = random.between(8, 40);
                    (enc, (enc * 2 / 3 + random.below(8)).max(2))
                } else {
                    (random.between(4, 9), random.between(4, 30))
                };
                Example { inputs: vec![5; enc], targets: vec![6; dec] }
            })
            .collect()
    }

    #[test]
    fn buckets_hold_every_example_once_and_fill_their_slots() {
        for (count, tokens, wanted) in [(3000, 1100, 0.9), (3000, 4096, 0.88), (7, 4096, 0.0), (1, 200, 0.0)] {
            let examples = examples(count);
            let mut all: Vec<&Example> = examples.iter().collect();
            let (mut seen, mut used, mut slots, mut batches) = (0, 0, 0, 0);
            divide(&mut all, tokens, &mut |group| {
                let rows: Vec<Vec<&Example>> = group.iter().map(|&e| vec![e]).collect();
                let batch = Batch::of_rows(&rows, 0, 0);
                let size = batch.encoder_ids.len() + batch.decoder_target_ids.len();
                assert!(size <= tokens && !group.is_empty());
                seen += group.len();
                used += batch.tokens();
                slots += size;
                batches += 1;
            });
            assert_eq!(seen, count);
            let fill = used as f64 / slots as f64;
            println!("{count} examples, {tokens} slots: {fill:.3} filled, {} tokens a batch", used / batches);
            assert!(fill >= wanted, "{count} {tokens}: {fill}");
            if wanted > 0.0 {
                assert!(used / batches > tokens * 7 / 10, "{count} {tokens}: {} tokens a batch", used / batches);
            }
        }
    }
}
