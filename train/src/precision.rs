//! Which precision a run's products have where its configuration leaves that open: the fastest, by a measurement.

use std::path::Path;
use std::time::Instant;

use crate::Result;
use crate::config::{Config, DeviceChoice, PrecisionChoice};
use crate::kernels::{Precision, Product};
use crate::ops::Linear;

/// Rows of the measured products: tokens of a batch of usual size.
const ROWS: usize = 1024;

/// Times that each precision is measured, in turns.
const TURNS: usize = 5;

/// bf16 has to be so much faster than f32 to be taken. Results of the two differ, so a choice should not hang on noise.
const WORTH: f64 = 1.1;

/// Replaces `run.precision = "auto"` by what a run is to use, and says in one line what and why; nothing where the
/// configuration has said it. A run that is continued keeps what it began with.
///
/// # Errors
/// Where the configuration of the run that is continued cannot be read.
pub fn settle(config: &mut Config, d_model: usize, d_ff: usize) -> Result<Option<String>> {
    if config.run.precision != PrecisionChoice::Auto {
        return Ok(None);
    }
    if let Some(begun) = Config::kept(Path::new(&config.run.output))?
        && begun.run.precision != PrecisionChoice::Auto
    {
        config.run.precision = begun.run.precision;
        return Ok(Some(format!("precision: {}, as this run began", name(begun.run.precision.precision()))));
    }
    let (precision, why) = match config.run.device {
        DeviceChoice::Cpu => measured(d_model, d_ff),
        DeviceChoice::Cuda => {
            (Precision::F32, "not measured on a GPU; run.precision = \"bf16\" may be faster".to_owned())
        }
    };
    config.run.precision = precision.into();
    Ok(Some(format!("precision: {} ({why})", name(precision))))
}

fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// The faster precision, and the figures.
fn measured(d_model: usize, d_ff: usize) -> (Precision, String) {
    if !Precision::Bf16.is_available() {
        return (Precision::F32, "this processor has no bf16 products".to_owned());
    }
    let products = Products::new(d_model, d_ff);
    let [mut f32, mut bf16] = [f64::INFINITY; 2];
    for _ in 0..TURNS {
        f32 = f32.min(products.seconds(Precision::F32));
        bf16 = bf16.min(products.seconds(Precision::Bf16));
    }
    let precision = if bf16 * WORTH < f32 { Precision::Bf16 } else { Precision::F32 };
    let part = |precision: Precision, seconds: f64| {
        format!("{} {:.2} ms on {}", name(precision), seconds * 1e3, precision.unit())
    };
    let why = format!(
        "[{ROWS}, {d_model}] x [{d_model}, {d_ff}] and its gradients: {}, {}",
        part(Precision::F32, f32),
        part(Precision::Bf16, bf16)
    );
    (precision, why)
}

/// The three products of a feed-forward layer's first half.
struct Products {
    d_model: usize,
    d_ff: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    y: Vec<f32>,
}

impl Products {
    fn new(d_model: usize, d_ff: usize) -> Products {
        let values = |count: usize| (0..count).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect();
        Products { d_model, d_ff, x: values(ROWS * d_model), w: values(d_ff * d_model), y: values(ROWS * d_ff) }
    }

    fn seconds(&self, precision: Precision) -> f64 {
        let linear = Linear { m: ROWS, n: self.d_ff, k: self.d_model, precision };
        let [mut y, mut dx, mut dw] = [&self.y, &self.x, &self.w].map(|like| vec![0.0; like.len()]);
        let started = Instant::now();
        linear.forward(&self.x, &self.w, &mut y);
        linear.input_gradient(Product::Set, &self.y, &self.w, &mut dx);
        linear.weight_gradient(&self.y, &self.x, &mut dw);
        let seconds = started.elapsed().as_secs_f64();
        std::hint::black_box((y, dx, dw));
        seconds
    }
}
