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
        let progress = ((step - self.warmup_steps) as f64 / length).min(1.0);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: Shape, warmup: Warmup) -> Schedule {
        Schedule { kind, peak_rate: 0.01, warmup_steps: 10_000, warmup, final_rate: 0.001 }
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
}
