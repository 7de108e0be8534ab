//! What was stored and how far it is from what was read.

use std::fmt;

use serde_json::{Value, json};
use t5_runtime::schema::Role;
use t5_runtime::tensor::DType;

use crate::policy::role_pattern;

/// Differences between values as they were read and as they were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Number of values.
    pub values: u64,
    /// Largest absolute difference.
    pub max: f32,
    /// Sum of squared differences.
    pub squared_error: f64,
    /// Sum of squared values, as they were read.
    pub squared: f64,
}

impl Errors {
    /// Compares values with what became of them.
    pub fn add(&mut self, read: &[f32], stored: &[f32]) {
        self.values += read.len() as u64;
        for (read, stored) in read.iter().zip(stored) {
            let error = (read - stored).abs();
            self.max = self.max.max(error);
            self.squared_error += f64::from(error) * f64::from(error);
            self.squared += f64::from(*read) * f64::from(*read);
        }
    }

    /// As if everything had been added to one.
    pub fn merge(&mut self, other: &Errors) {
        self.values += other.values;
        self.max = self.max.max(other.max);
        self.squared_error += other.squared_error;
        self.squared += other.squared;
    }

    /// Root of the mean squared difference.
    pub fn rms(&self) -> f64 {
        if self.values == 0 { 0.0 } else { (self.squared_error / self.values as f64).sqrt() }
    }

    /// The same in parts of the root of the mean squared value; 0 where all values are 0.
    pub fn relative_rms(&self) -> f64 {
        if self.squared == 0.0 { 0.0 } else { (self.squared_error / self.squared).sqrt() }
    }
}

/// One tensor of the new file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Hugging Face name.
    pub name: String,
    /// Name in the new file.
    pub gguf_name: String,
    /// What it does.
    pub role: Role,
    /// Hugging Face order.
    pub shape: Vec<usize>,
    /// Type it was read as.
    pub from: DType,
    /// Type it was stored as.
    pub to: DType,
    /// How many neighbouring values share a scale in every row, where it is Q8_0.
    pub scale_run: Option<usize>,
    /// Size as it was read.
    pub bytes_before: u64,
    /// Size as it was stored.
    pub bytes_after: u64,
    /// What storing changed.
    pub errors: Errors,
}

/// All tensors of one role.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleReport {
    /// What they do.
    pub role: Role,
    /// How many there are.
    pub count: usize,
    /// The types they were stored as, each once, in order of appearance.
    pub types: Vec<DType>,
    /// As `types`: how many neighbouring values share a scale, where it is Q8_0.
    pub scale_runs: Vec<usize>,
    /// Their size as they were read.
    pub bytes_before: u64,
    /// Their size as they were stored.
    pub bytes_after: u64,
    /// What storing changed.
    pub errors: Errors,
}

/// Every tensor of the new file, in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One entry for each tensor.
    pub tensors: Vec<TensorReport>,
}

impl Report {
    /// Tensor bytes of the checkpoint.
    pub fn bytes_before(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes_before).sum()
    }

    /// Tensor bytes of the new file, without padding and metadata.
    pub fn bytes_after(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes_after).sum()
    }

    /// Sums per role, in the order of [`Role::ALL`].
    pub fn roles(&self) -> Vec<RoleReport> {
        let mut roles = Vec::new();
        for role in Role::ALL {
            let mut sum = RoleReport {
                role,
                count: 0,
                types: Vec::new(),
                scale_runs: Vec::new(),
                bytes_before: 0,
                bytes_after: 0,
                errors: Errors::default(),
            };
            for tensor in self.tensors.iter().filter(|tensor| tensor.role == role) {
                sum.count += 1;
                if !sum.types.contains(&tensor.to) {
                    sum.types.push(tensor.to);
                }
                sum.scale_runs.extend(tensor.scale_run.filter(|run| !sum.scale_runs.contains(run)));
                sum.bytes_before += tensor.bytes_before;
                sum.bytes_after += tensor.bytes_after;
                sum.errors.merge(&tensor.errors);
            }
            if sum.count > 0 {
                roles.push(sum);
            }
        }
        roles
    }

    /// `{"bytes_before", "bytes_after", "roles": [...], "tensors": [...]}`; errors are `max_error`, `rms_error` and
    /// `relative_rms_error` (in parts of the values' own root mean square).
    pub fn to_json(&self) -> Value {
        fn with_errors(mut json: Value, bytes: (u64, u64), errors: &Errors) -> Value {
            json["bytes_before"] = bytes.0.into();
            json["bytes_after"] = bytes.1.into();
            json["max_error"] = errors.max.into();
            json["rms_error"] = errors.rms().into();
            json["relative_rms_error"] = errors.relative_rms().into();
            json
        }
        let roles = self.roles().into_iter().map(|sum| {
            let types: Vec<_> = sum.types.iter().map(|dtype| dtype.name()).collect();
            let json = json!({
                "role": role_pattern(sum.role),
                "count": sum.count,
                "types": types,
                "scale_runs": sum.scale_runs,
            });
            with_errors(json, (sum.bytes_before, sum.bytes_after), &sum.errors)
        });
        let tensors = self.tensors.iter().map(|tensor| {
            let json = json!({
                "name": tensor.name,
                "gguf_name": tensor.gguf_name,
                "role": role_pattern(tensor.role),
                "shape": tensor.shape,
                "from": tensor.from.name(),
                "to": tensor.to.name(),
                "scale_run": tensor.scale_run,
            });
            with_errors(json, (tensor.bytes_before, tensor.bytes_after), &tensor.errors)
        });
        json!({
            "bytes_before": self.bytes_before(),
            "bytes_after": self.bytes_after(),
            "roles": roles.collect::<Vec<_>>(),
            "tensors": tensors.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    /// A table with one line per role; "a scale" says how many values share one in Q8_0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; 8]| {
            let [role, count, dtype, run, before, after, max, rms] = cells;
            let line = format!("{role:<22}{count:>7}  {dtype:<10}{run:<8}{before:>11}{after:>11}{max:>11}{rms:>11}");
            writeln!(f, "{}", line.trim_end())
        };
        row(["role", "tensors", "type", "a scale", "before", "after", "max error", "RMS error"])?;
        for sum in self.roles() {
            let types: Vec<_> = sum.types.iter().map(|dtype| dtype.name()).collect();
            let runs: Vec<_> = sum.scale_runs.iter().map(usize::to_string).collect();
            row([
                sum.role.name(),
                &sum.count.to_string(),
                &types.join(","),
                &runs.join(","),
                &size(sum.bytes_before),
                &size(sum.bytes_after),
                &small(f64::from(sum.errors.max)),
                &small(sum.errors.rms()),
            ])?;
        }
        let (before, after) = (size(self.bytes_before()), size(self.bytes_after()));
        row(["all", &self.tensors.len().to_string(), "", "", &before, &after, "", ""])
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn small(error: f64) -> String {
    if error == 0.0 { "0".to_owned() } else { format!("{error:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_add_up() {
        let mut first = Errors::default();
        first.add(&[3.0, -4.0], &[3.0, -4.5]);
        let mut second = Errors::default();
        second.add(&[0.0], &[0.25]);
        let mut all = Errors::default();
        all.add(&[3.0, -4.0, 0.0], &[3.0, -4.5, 0.25]);
        first.merge(&second);
        assert_eq!(first, all);
        assert_eq!(all.max, 0.5);
        assert_eq!(all.rms(), ((0.25 + 0.0625) / 3.0_f64).sqrt());
        assert_eq!(all.relative_rms(), (0.3125_f64 / 25.0).sqrt());
        assert_eq!((Errors::default().rms(), Errors::default().relative_rms()), (0.0, 0.0));
    }

    #[test]
    fn one_line_per_role() {
        let tensor = |name: &str, role, to, bytes_after| TensorReport {
            name: name.to_owned(),
            gguf_name: name.to_owned(),
            role,
            shape: vec![2, 32],
            from: DType::F32,
            to,
            scale_run: (to == DType::Q8_0).then_some(32),
            bytes_before: 256,
            bytes_after,
            errors: Errors { values: 64, max: 0.125, squared_error: 1.0, squared: 16.0 },
        };
        let report = Report {
            tensors: vec![
                tensor("b", Role::Wo, DType::Q8_0, 68),
                tensor("a", Role::TokenEmbedding, DType::F16, 128),
                tensor("c", Role::Wo, DType::F16, 128),
            ],
        };
        let roles = report.roles();
        assert_eq!(
            roles.iter().map(|sum| (sum.role, sum.count)).collect::<Vec<_>>(),
            [(Role::TokenEmbedding, 1), (Role::Wo, 2)]
        );
        assert_eq!(roles[1].types, [DType::Q8_0, DType::F16]);
        assert_eq!((roles[1].bytes_before, roles[1].bytes_after), (512, 196));
        assert_eq!(roles[1].errors.values, 128);
        let table = report.to_string();
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("feed-forward wo             2  q8_0,f16  32 "), "{table}");
        let json = report.to_json();
        assert_eq!(json["bytes_after"], 324);
        assert_eq!(json["roles"][1]["types"], json!(["q8_0", "f16"]));
        assert_eq!(json["tensors"][0]["relative_rms_error"], 0.25);
        assert_eq!(json["tensors"][0]["shape"], json!([2, 32]));
        assert_eq!((&json["tensors"][0]["scale_run"], &json["tensors"][1]["scale_run"]), (&json!(32), &Value::Null));
    }
}
