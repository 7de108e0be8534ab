//! Initial values of the parameters (docs/t5.md 1.5): three published schemes that differ in the feed-forward, the
//! relative-position tables and the head.

use serde::{Deserialize, Serialize};
use t5_runtime::config::T5Config;
use t5_runtime::schema::{Role, TensorSpec};

use crate::random::splitmix64;

/// Whose initial values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Mesh TensorFlow, which trained the published models: truncated normals not re-scaled after the cut.
    Mesh,
    /// T5X: truncated normals re-scaled so that their standard deviation is the nominal one.
    T5x,
    /// transformers: plain normals everywhere; an untied head starts at N(0, 1), so its first loss is very large.
    Hf,
}

enum Distribution {
    Zero,
    One,
    Normal(f64),
    /// Nominal standard deviation, cut at twice that.
    Truncated(f64),
    Uniform(f64),
}

/// The standard deviation of a standard normal cut at ±2.
const TRUNCATED_DEVIATION: f64 = 0.879_596_566_170_685_9;

fn distribution(scheme: Scheme, config: &T5Config, role: Role) -> Distribution {
    use Distribution::{Normal, One, Truncated, Uniform, Zero};
    let (d, f) = (config.d_model as f64, config.d_ff as f64);
    let feed_forward = |fan_in: f64| match scheme {
        Scheme::Mesh => Truncated(fan_in.powf(-0.5)),
        Scheme::T5x => Truncated(fan_in.powf(-0.5) / TRUNCATED_DEVIATION),
        Scheme::Hf => Normal(fan_in.powf(-0.5)),
    };
    match role {
        Role::AttentionNorm
        | Role::CrossAttentionNorm
        | Role::FeedForwardNorm
        | Role::FinalNorm
        | Role::AdapterNorm => One,
        Role::AdapterDown => Normal(d.powf(-0.5)),
        // So that adapters change nothing at first.
        Role::AdapterUp => Zero,
        Role::TokenEmbedding => Normal(1.0),
        Role::SelfQ | Role::CrossQ => Normal((d * config.d_kv as f64).powf(-0.5)),
        Role::SelfK | Role::SelfV | Role::CrossK | Role::CrossV => Normal(d.powf(-0.5)),
        Role::SelfO | Role::CrossO => Normal((config.inner_dim() as f64).powf(-0.5)),
        Role::Wi | Role::Wi0 | Role::Wi1 => feed_forward(d),
        Role::Wo => feed_forward(f),
        Role::RelativeBias => match scheme {
            Scheme::Hf => Normal(d.powf(-0.5)),
            Scheme::Mesh | Scheme::T5x => {
                let sides = config.num_heads + config.relative_attention_num_buckets;
                Uniform((6.0 / sides as f64).sqrt())
            }
        },
        Role::OutputHead => match scheme {
            Scheme::Hf => Normal(1.0),
            Scheme::Mesh => Truncated(d.powf(-0.5)),
            Scheme::T5x => Truncated(d.powf(-0.5) / TRUNCATED_DEVIATION),
        },
    }
}

/// The initial values of one tensor. They depend on the seed and the tensor's name only.
pub fn values(scheme: Scheme, config: &T5Config, spec: &TensorSpec, seed: u64) -> Vec<f32> {
    let count = spec.shape.iter().product();
    let key = spec.hf_name.bytes().fold(splitmix64(seed), |key, byte| splitmix64(key ^ byte as u64));
    let mut counter = 0u64;
    // Uniform in (0, 1), 53 bits.
    let mut uniform = move || {
        counter += 1;
        ((splitmix64(key.wrapping_add(counter)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut spare = None;
    // Box and Muller's transform gives two normals at a time.
    let mut normal = |uniform: &mut dyn FnMut() -> f64| {
        spare.take().unwrap_or_else(|| {
            let radius = (-2.0 * uniform().ln()).sqrt();
            let angle = std::f64::consts::TAU * uniform();
            spare = Some(radius * angle.sin());
            radius * angle.cos()
        })
    };
    let factor = config.initializer_factor as f64;
    let distribution = distribution(scheme, config, spec.id.role);
    (0..count)
        .map(|_| {
            let value = match distribution {
                Distribution::Zero => 0.0,
                Distribution::One => 1.0,
                Distribution::Normal(deviation) => deviation * normal(&mut uniform),
                Distribution::Uniform(limit) => limit * (2.0 * uniform() - 1.0),
                Distribution::Truncated(deviation) => loop {
                    let value = normal(&mut uniform);
                    if value.abs() <= 2.0 {
                        break deviation * value;
                    }
                },
            };
            (factor * value) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_the_specification_s() {
        let config = T5Config::from_json(
            "test",
            r#"{"vocab_size": 2000, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 1, "num_heads": 8,
                "tie_word_embeddings": false}"#,
        )
        .unwrap();
        let table = t5_runtime::schema::tensors(&config);
        let deviation = |scheme: Scheme, role: Role| {
            let spec = table.iter().find(|spec| spec.id.role == role).unwrap();
            let values = values(scheme, &config, spec, 1);
            let mean = values.iter().map(|&v| v as f64).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / values.len() as f64;
            // Five standard errors of the deviation, relative.
            (square.sqrt(), mean, 5.0 / (2.0 * values.len() as f64).sqrt())
        };
        for scheme in [Scheme::Mesh, Scheme::T5x, Scheme::Hf] {
            let cut = if scheme == Scheme::Mesh { TRUNCATED_DEVIATION } else { 1.0 };
            let expected = [
                (Role::TokenEmbedding, 1.0),
                (Role::SelfQ, 0.005_524),
                (Role::SelfK, 0.044_194),
                (Role::CrossV, 0.044_194),
                (Role::SelfO, 0.044_194),
                (Role::Wi, 0.044_194 * cut),
                (Role::Wo, 0.022_097 * cut),
                (Role::OutputHead, if scheme == Scheme::Hf { 1.0 } else { 0.044_194 * cut }),
                (Role::RelativeBias, if scheme == Scheme::Hf { 0.044_194 } else { 0.3873 / 3f64.sqrt() }),
            ];
            for (role, expected) in expected {
                let (found, mean, tolerance) = deviation(scheme, role);
                assert!((found / expected - 1.0).abs() < tolerance + 1e-4, "{scheme:?} {role:?}: {found} {expected}");
                assert!(mean.abs() < 3.0 * tolerance * expected, "{scheme:?} {role:?}: mean {mean}");
            }
            assert_eq!(deviation(scheme, Role::FinalNorm), (1.0, 1.0, 5.0 / 1024f64.sqrt()));
        }
    }
}
