//! Mixtures of tasks: how often each is drawn, and which example comes next.
//!
//! Draw `i` of a run picks its task by a random number that belongs to (seed, i) alone, so that the order is the same
//! on every run; the state to resume from is the number of draws of each task.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    random::{Random, derive},
};

/// How rates are computed from the tasks' numbers of examples; a rate that a task names is used as it is (sections
/// 3.5.2 and
/// 3.5.3 of the T5 paper).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rates {
    /// `min(examples, limit)`.
    #[default]
    Proportional,
    /// `min(examples, limit)^(1 / temperature)`: 1 is proportional, large values approach equal rates.
    Temperature,
    /// Every task as often as the others.
    Equal,
    /// The rates that the tasks name.
    Fixed,
}

/// The knobs of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixing {
    pub rates: Rates,
    /// The artificial size limit K, for proportional rates and temperature; 0: none.
    pub limit: f64,
    pub temperature: f64,
}

impl Default for Mixing {
    fn default() -> Mixing {
        Mixing { rates: Rates::Proportional, limit: (1u64 << 19) as f64, temperature: 1.0 }
    }
}

impl Mixing {
    /// Checks the knobs.
    ///
    /// # Errors
    /// Where one is out of range, or there is a temperature that the kind of rates would not obey.
    pub fn check(&self) -> Result<()> {
        let Mixing { rates, limit, temperature } = *self;
        let bad = |what: String| Err(Error::Invalid(format!("mixture: {what}")));
        if !limit.is_finite() || limit < 0.0 {
            return bad(format!("limit: expected 0 or more, found {limit}"));
        }
        if !temperature.is_finite() || temperature <= 0.0 {
            return bad(format!("temperature: expected a number above 0, found {temperature}"));
        }
        if temperature != 1.0 && rates != Rates::Temperature {
            return bad(format!("temperature: expected 1 unless rates = \"temperature\", found {temperature}"));
        }
        let unused = limit != 0.0 && limit != Mixing::default().limit;
        if unused && matches!(rates, Rates::Equal | Rates::Fixed) {
            return bad(format!(
                "limit: expected 0 or none unless rates follow from numbers of examples, found {limit}"
            ));
        }
        Ok(())
    }
}

/// What a task brings to a mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Its number of examples, which limit and temperature apply to.
    Examples(f64),
    /// A rate given by hand, which they leave alone, as in the reference's mixtures.
    Rate(f64),
}

impl Size {
    /// The rate that a task names, or its number of examples: one without examples has no part, whatever its rate.
    pub fn of(rate: Option<f64>, examples: usize) -> Size {
        match rate {
            Some(rate) if examples > 0 => Size::Rate(rate),
            _ => Size::Examples(examples as f64),
        }
    }

    fn value(self) -> f64 {
        match self {
            Size::Examples(value) | Size::Rate(value) => value,
        }
    }
}

/// Probabilities from what the tasks bring. A size of 0 stays 0.
///
/// # Errors
/// Where no task has a size, a size is negative or not finite, or as [`Mixing::check`].
pub fn probabilities(sizes: &[Size], mixing: &Mixing) -> Result<Vec<f64>> {
    mixing.check()?;
    if let Some(bad) = sizes.iter().map(|size| size.value()).find(|value| !value.is_finite() || *value < 0.0) {
        return Err(Error::Invalid(format!("mixture: expected rates of 0 or more, found {bad}")));
    }
    let Mixing { rates, limit, temperature } = *mixing;
    let clip = |size: f64| if limit > 0.0 { size.min(limit) } else { size };
    let rate = |size: &Size| match (rates, *size) {
        (Rates::Equal, size) => f64::from(u8::from(size.value() > 0.0)),
        (Rates::Fixed, size) => size.value(),
        (_, Size::Rate(rate)) => rate,
        (Rates::Proportional, Size::Examples(count)) => clip(count),
        // Clipped first, then raised: the order matters where both are used.
        (Rates::Temperature, Size::Examples(count)) => clip(count).powf(1.0 / temperature),
    };
    let rates: Vec<f64> = sizes.iter().map(rate).collect();
    let sum: f64 = rates.iter().sum();
    if sum <= 0.0 {
        return Err(Error::Invalid("mixture: expected at least one task with a rate above 0, found none".into()));
    }
    Ok(rates.into_iter().map(|rate| rate / sum).collect())
}

/// One draw: which task, and how many draws of that task came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    pub task: usize,
    pub nth: u64,
}

/// The endless sequence of draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Upper bounds of the tasks' shares of `[0, 1)`.
    bounds: Vec<f64>,
    seed: u64,
    /// Draws so far, per task.
    drawn: Vec<u64>,
}

impl Mixture {
    /// A mixture at its start.
    pub fn new(probabilities: &[f64], seed: u64) -> Mixture {
        let mut sum = 0.0;
        let bounds = probabilities
            .iter()
            .map(|p| {
                sum += p;
                sum
            })
            .collect();
        Mixture { bounds, seed, drawn: vec![0; probabilities.len()] }
    }

    /// Draws so far, per task: the state to resume from.
    pub fn drawn(&self) -> &[u64] {
        &self.drawn
    }

    /// Continues after so many draws of each task.
    ///
    /// # Errors
    /// Where the number of tasks is another one.
    pub fn restore(&mut self, drawn: &[u64]) -> Result<()> {
        if drawn.len() != self.drawn.len() {
            return Err(Error::Invalid(format!(
                "mixture: expected the saved position of {} tasks, found {}: the tasks have changed since",
                self.drawn.len(),
                drawn.len()
            )));
        }
        self.drawn.copy_from_slice(drawn);
        Ok(())
    }

    /// The next draw.
    pub fn draw(&mut self) -> Draw {
        let number = self.drawn.iter().sum::<u64>();
        let place = Random::new(derive(self.seed, &[number])).uniform();
        // Rounding may leave the last bound just under 1; a task without a share is never drawn.
        let task = self.bounds.iter().position(|&bound| place < bound).unwrap_or_else(|| {
            (0..self.bounds.len()).rev().find(|&i| i == 0 || self.bounds[i] > self.bounds[i - 1]).unwrap_or(0)
        });
        let nth = self.drawn[task];
        self.drawn[task] += 1;
        Draw { task, nth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [Size; 3] = [Size::Examples(1e3), Size::Examples(1e5), Size::Examples(1e7)];

    fn close(actual: &[f64], expected: &[f64]) {
        for (a, e) in actual.iter().zip(expected) {
            // The references have six decimals.
            assert!((a - e).abs() < 6e-7, "{actual:?} {expected:?}");
        }
    }

    fn mixing(rates: Rates, limit: f64, temperature: f64) -> Mixing {
        Mixing { rates, limit, temperature }
    }

    #[test]
    fn rates_of_the_specification() {
        let k = |power: u32| (1u64 << power) as f64;
        let proportional = probabilities(&SIZES, &mixing(Rates::Proportional, k(19), 1.0)).unwrap();
        close(&proportional, &[0.001599, 0.159926, 0.838474]);
        for (temperature, expected) in [
            (2.0, [0.017607, 0.176073, 0.80632]),
            (4.0, [0.091496, 0.289335, 0.619169]),
            (8.0, [0.185885, 0.330556, 0.483558]),
        ] {
            close(&probabilities(&SIZES, &mixing(Rates::Temperature, k(21), temperature)).unwrap(), &expected);
        }
        close(&probabilities(&SIZES, &mixing(Rates::Equal, 0.0, 1.0)).unwrap(), &[1.0 / 3.0; 3]);
        close(
            &probabilities(&[Size::Rate(1.0), Size::Rate(3.0)], &mixing(Rates::Fixed, 0.0, 1.0)).unwrap(),
            &[0.25, 0.75],
        );
        let none = [Size::Examples(0.0), Size::Examples(3.0)];
        close(&probabilities(&none, &mixing(Rates::Equal, 0.0, 1.0)).unwrap(), &[0.0, 1.0]);
    }

    #[test]
    fn bad_knobs_are_errors() {
        assert!(probabilities(&[Size::Rate(0.0); 2], &mixing(Rates::Fixed, 0.0, 1.0)).is_err());
        assert!(probabilities(&[Size::Rate(1.0), Size::Rate(-1.0)], &mixing(Rates::Fixed, 0.0, 1.0)).is_err());
        assert!(probabilities(&SIZES, &mixing(Rates::Temperature, 0.0, 0.0)).is_err());
        assert!(probabilities(&SIZES, &mixing(Rates::Proportional, -1.0, 1.0)).is_err());
    }

    #[test]
    fn a_temperature_is_obeyed_or_refused() {
        for rates in [Rates::Proportional, Rates::Equal, Rates::Fixed] {
            let error = probabilities(&SIZES, &mixing(rates, 0.0, 2.0)).unwrap_err().to_string();
            assert_eq!(error, "mixture: temperature: expected 1 unless rates = \"temperature\", found 2");
        }
        assert!(probabilities(&SIZES, &mixing(Rates::Temperature, 0.0, 2.0)).is_ok());
    }

    #[test]
    fn a_limit_is_obeyed_or_refused() {
        for rates in [Rates::Equal, Rates::Fixed] {
            let error = probabilities(&SIZES, &mixing(rates, 1000.0, 1.0)).unwrap_err().to_string();
            let expected =
                "mixture: limit: expected 0 or none unless rates follow from numbers of examples, found 1000";
            assert_eq!(error, expected);
            assert!(mixing(rates, 0.0, 1.0).check().is_ok());
            assert!(Mixing { rates, ..Mixing::default() }.check().is_ok());
        }
    }

    #[test]
    fn rates_given_by_hand_are_left_alone() {
        // The released mixtures count QQP with 363,849 and MNLI with 392,702, whatever K.
        let sizes = [Size::Rate(363_849.0), Size::Rate(392_702.0), Size::Examples(1e6)];
        let shares = probabilities(&sizes, &mixing(Rates::Proportional, 65_536.0, 1.0)).unwrap();
        let sum = 363_849.0 + 392_702.0 + 65_536.0;
        close(&shares, &[363_849.0 / sum, 392_702.0 / sum, 65_536.0 / sum]);
        let shares = probabilities(&sizes, &mixing(Rates::Temperature, 65_536.0, 2.0)).unwrap();
        let sum = 363_849.0 + 392_702.0 + 256.0;
        close(&shares, &[363_849.0 / sum, 392_702.0 / sum, 256.0 / sum]);
    }

    #[test]
    fn the_order_is_the_same_on_every_run_and_resumes() {
        let shares = probabilities(&SIZES, &mixing(Rates::Proportional, 0.0, 1.0)).unwrap();
        let mut mixture = Mixture::new(&shares, 5);
        let draws: Vec<Draw> = (0..1000).map(|_| mixture.draw()).collect();
        let mut again = Mixture::new(&shares, 5);
        for draw in &draws[..600] {
            assert_eq!(again.draw(), *draw);
        }
        let mut resumed = Mixture::new(&shares, 5);
        resumed.restore(again.drawn()).unwrap();
        for draw in &draws[600..] {
            assert_eq!(resumed.draw(), *draw);
        }
        assert!(resumed.restore(&[1, 2]).is_err());
        assert_ne!(Mixture::new(&shares, 6).draw().nth, 1);
    }

    #[test]
    fn draws_follow_the_rates_and_count_up_per_task() {
        let mut mixture = Mixture::new(&[0.2, 0.0, 0.8], 1);
        let mut next = [0u64; 3];
        for _ in 0..20_000 {
            let draw = mixture.draw();
            assert_eq!(draw.nth, next[draw.task]);
            next[draw.task] += 1;
        }
        assert_eq!(next[1], 0);
        // Standard deviation 57.
        assert!(next[0].abs_diff(4000) < 285, "{next:?}");
    }
}
