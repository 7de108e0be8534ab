//! Files of states: NumPy's and safetensors, written front to back as the states come.

use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use t5_runtime::output::OutputFile;

use super::args::StatesType;
use super::usage;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Npy,
    Safetensors,
}

impl Format {
    /// By the name of the file; a type that the format has.
    pub fn of(path: &Path, dtype: StatesType) -> anyhow::Result<Format> {
        let is = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension));
        if is("safetensors") {
            Ok(Format::Safetensors)
        } else if !is("npy") {
            Err(usage(format!("--output: expected a name with .npy or .safetensors, found {}", path.display())))
        } else if dtype == StatesType::Bf16 {
            Err(usage(
                "--dtype: expected f32 or f16 in a .npy file, found bf16, which NumPy lacks; .safetensors has it",
            ))
        } else {
            Ok(Format::Npy)
        }
    }
}

/// A text's states in a file.
pub struct Item {
    /// Where the text stands, for messages.
    pub place: String,
    pub name: String,
    /// Vectors, and how many of them are no padding.
    pub rows: usize,
    pub real: usize,
}

/// A file on its way.
pub struct StatesFile {
    out: BufWriter<OutputFile>,
    dtype: StatesType,
    /// Of safetensors: behind the states, whether each row is one of the text.
    masks: Vec<u8>,
    bytes: Vec<u8>,
}

impl StatesFile {
    /// Begins a file of these items, whose vectors have `width` values. A pooled one has one vector.
    pub fn create(
        path: &Path,
        format: Format,
        dtype: StatesType,
        items: &[Item],
        pooled: bool,
        width: usize,
    ) -> anyhow::Result<StatesFile> {
        let mut masks = Vec::new();
        let header = match format {
            Format::Npy => npy_header(dtype, items, pooled, width)?,
            Format::Safetensors => {
                if !pooled {
                    for item in items {
                        masks.extend((0..item.rows).map(|row| u8::from(row < item.real)));
                    }
                }
                safetensors_header(dtype, items, pooled, width)?
            }
        };
        let mut out = BufWriter::new(OutputFile::create(path)?);
        out.write_all(&header).with_context(|| path.display().to_string())?;
        Ok(StatesFile { out, dtype, masks, bytes: Vec::new() })
    }

    /// Writes the next item's states.
    pub fn append(&mut self, item: &Item, values: &[f32]) -> anyhow::Result<()> {
        self.bytes.clear();
        for &value in values {
            match self.dtype {
                StatesType::F32 => self.bytes.extend(value.to_le_bytes()),
                StatesType::Bf16 => self.bytes.extend(bf16::from_f32(value).to_le_bytes()),
                StatesType::F16 => {
                    let half = f16::from_f32(value);
                    if half.is_infinite() && value.is_finite() {
                        bail!(
                            "{}: expected states that f16 can hold, found {value}: use --dtype f32 or bf16",
                            item.place
                        );
                    }
                    self.bytes.extend(half.to_le_bytes());
                }
            }
        }
        Ok(self.out.write_all(&self.bytes)?)
    }

    /// Completes the file.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.out.write_all(&self.masks)?;
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(file.commit()?)
    }
}

impl StatesType {
    fn safetensors(self) -> Dtype {
        match self {
            StatesType::F32 => Dtype::F32,
            StatesType::F16 => Dtype::F16,
            StatesType::Bf16 => Dtype::BF16,
        }
    }

    fn bytes(self) -> usize {
        if self == StatesType::F32 { 4 } else { 2 }
    }
}

/// NumPy's format 1.0: magic, version, the length of a Python dictionary, and it, to a multiple of 64 bytes.
fn npy_header(dtype: StatesType, items: &[Item], pooled: bool, width: usize) -> anyhow::Result<Vec<u8>> {
    let count = items.len();
    let shape = if pooled {
        format!("({count}, {width})")
    } else {
        let rows = items.first().map_or(0, |first| first.rows);
        if let (Some(first), Some(other)) = (items.first(), items.iter().find(|item| item.rows != rows)) {
            let Item { place, rows: found, .. } = other;
            bail!(
                "--output: expected texts of one length in a .npy file, found {rows} tokens in {} and {found} in \
                 {place}; --pad-to makes them equal, and a .safetensors file takes any",
                first.place
            );
        }
        format!("({count}, {rows}, {width})")
    };
    let descr = if dtype == StatesType::F16 { "<f2" } else { "<f4" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let start = b"\x93NUMPY\x01\x00";
    let length = (start.len() + 2 + text.len() + 1).next_multiple_of(64) - start.len() - 2;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    Ok([start, &(length as u16).to_le_bytes()[..], text.as_bytes()].concat())
}

/// The length of a JSON object, and it: all states in order, then all masks.
fn safetensors_header(dtype: StatesType, items: &[Item], pooled: bool, width: usize) -> anyhow::Result<Vec<u8>> {
    let mut tensors = Vec::with_capacity(2 * items.len());
    let mut names = HashSet::new();
    let mut at = 0;
    let mut add = |item: &Item, name: String, dtype: Dtype, shape: Vec<usize>, bytes: usize| {
        if name == "__metadata__" || !names.insert(name.clone()) {
            bail!("{}: expected a name that no other tensor of the file has, found {name:?}", item.place);
        }
        tensors.push((name, TensorInfo { dtype, shape, data_offsets: (at, at + bytes) }));
        at += bytes;
        Ok(())
    };
    for item in items {
        let shape = if pooled { vec![width] } else { vec![item.rows, width] };
        add(item, item.name.clone(), dtype.safetensors(), shape, item.rows * width * dtype.bytes())?;
    }
    for item in items.iter().filter(|_| !pooled) {
        add(item, format!("{}.mask", item.name), Dtype::BOOL, vec![item.rows], item.rows)?;
    }
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut json = serde_json::to_vec(&Metadata::new(Some(about), tensors).context("a file of states")?)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}
