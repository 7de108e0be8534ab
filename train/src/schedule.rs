//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};

/// The curve after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// `peak * sqrt(warmup / step)`: the paper's pre-training with peak 0.01 and a constant warm-up of 10,000.
    InverseSquareRoot,
    Constant,
    /// Falls to `final_rate` at the last step.
    Linear,
    /// Falls to `final_rate` along half a cosine.
    Cosine,
}

/// The rate during warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// The peak rate from the first step on, as the paper.
    Constant,
    /// From near zero to the peak.
    Linear,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub kind: Shape,
    /// The largest rate. For Adafactor with parameter scaling it is relative to the parameters' RMS.
    pub peak_rate: f64,
    pub warmup_steps: u64,
    pub warmup: Warmup,
    /// Where linear and cosine schedules end.
    pub final_rate: f64,
    /// How often linear and cosine schedules fall, each time from the peak: warm restarts (Loshchilov and Hutter 2017).
    pub cycles: u32,
    /// How much longer each fall is than the one before.
    pub cycle_growth: f64,
}

impl Schedule {
    /// The rate of a step, counted from 0, of `steps` in all.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return match self.warmup {
                Warmup::Constant => self.peak_rate,
                Warmup::Linear => self.peak_rate * (step + 1) as f64 / self.warmup_steps as f64,
            };
        }
        let length = steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = self.in_cycle(((step - self.warmup_steps) as f64 / length).min(1.0));
        match self.kind {
            Shape::Constant => self.peak_rate,
            Shape::InverseSquareRoot => {
                let warmup = self.warmup_steps.max(1) as f64;
                self.peak_rate * (warmup / (step as f64).max(warmup)).sqrt()
            }
            Shape::Linear => self.peak_rate + (self.final_rate - self.peak_rate) * progress,
            Shape::Cosine => {
                let height = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                self.final_rate + (self.peak_rate - self.final_rate) * height
            }
        }
    }

    /// The share of the cycle under way that is over, where `progress` of all cycles is: 1 at the end of all.
    fn in_cycle(&self, progress: f64) -> f64 {
        let lengths = (0..self.cycles).map(|cycle| self.cycle_growth.powi(cycle as i32));
        let mut left = progress * lengths.clone().sum::<f64>();
        for (cycle, length) in (1..).zip(lengths) {
            // Steps at the border of two cycles begin the second, however their places were rounded.
            if cycle == self.cycles || left < length * (1.0 - 1e-9) {
                return (left / length).clamp(0.0, 1.0);
            }
            left -= length;
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: Shape, warmup: Warmup) -> Schedule {
        Schedule {
            kind,
            peak_rate: 0.01,
            warmup_steps: 10_000,
            warmup,
            final_rate: 0.001,
            cycles: 1,
            cycle_growth: 1.0,
        }
    }

    #[test]
    fn the_paper_s_rates() {
        // docs/t5.md 6.1.
        let paper = schedule(Shape::InverseSquareRoot, Warmup::Constant);
        for (step, expected) in
            [(0, 0.01), (10_000, 0.01), (40_000, 0.005), (262_144, 0.001953), (524_288, 0.001381), (1_000_000, 0.001)]
        {
            assert!((paper.rate(step, 1_000_000) - expected).abs() < 5e-7, "step {step}");
        }
    }

    #[test]
    fn ramps_and_ends() {
        for kind in [Shape::Linear, Shape::Cosine] {
            let schedule = schedule(kind, Warmup::Linear);
            assert!((schedule.rate(0, 20_000) - 1e-6).abs() < 1e-12);
            assert!((schedule.rate(4_999, 20_000) - 0.005).abs() < 1e-12);
            assert!((schedule.rate(10_000, 20_000) - 0.01).abs() < 1e-12);
            assert!((schedule.rate(15_000, 20_000) - 0.0055).abs() < 1e-12);
            assert!((schedule.rate(20_000, 20_000) - 0.001).abs() < 1e-12);
            assert!((schedule.rate(30_000, 20_000) - 0.001).abs() < 1e-12);
        }
        let cosine = schedule(Shape::Cosine, Warmup::Linear);
        assert!((cosine.rate(12_500, 20_000) - (0.001 + 0.009 * 0.853_553_39)).abs() < 1e-9);
        assert_eq!(schedule(Shape::Constant, Warmup::Constant).rate(5, 10), 0.01);
        let none = Schedule { warmup_steps: 0, ..cosine };
        assert!((none.rate(0, 0) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn falls_begin_again() {
        let thrice = Schedule { cycles: 3, ..schedule(Shape::Linear, Warmup::Linear) };
        let rates = [10_000, 11_500, 12_999, 13_000, 14_500, 16_000, 17_500, 19_000, 30_000];
        let expected = [0.01, 0.0055, 0.001_003, 0.01, 0.0055, 0.01, 0.0055, 0.001, 0.001];
        for (step, expected) in rates.into_iter().zip(expected) {
            assert!((thrice.rate(step, 19_000) - expected).abs() < 1e-9, "step {step}: {}", thrice.rate(step, 19_000));
        }
        // Falls of 1,000, 2,000 and 4,000 steps.
        let longer = Schedule { cycle_growth: 2.0, kind: Shape::Cosine, ..thrice };
        for (step, expected) in [(10_500, 0.0055), (11_000, 0.01), (12_000, 0.0055), (13_000, 0.01), (15_000, 0.0055)] {
            assert!((longer.rate(step, 17_000) - expected).abs() < 1e-9, "step {step}");
        }
    }
}
