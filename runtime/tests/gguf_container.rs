//! Every way a GGUF container can be wrong (docs/gguf.md 8, items 1 to 11 and 19), and what must be accepted.

mod common;

use common::{Raw, array, header, key_value, string, tensor};
use t5_runtime::gguf::{Array, File, TensorInfo, Value, ValueType, Writer};
use t5_runtime::storage::Bytes;
use t5_runtime::tensor::DType;

fn parse(bytes: Vec<u8>) -> Result<File, String> {
    File::parse("x.gguf", Bytes::from_vec(bytes)).map_err(|error| error.to_string())
}

/// Asserts that a file is refused with a message that names it and contains all of `parts`.
#[track_caller]
fn refused(bytes: Vec<u8>, parts: &[&str]) {
    let error = parse(bytes).expect_err("the file should be refused");
    for part in ["x.gguf"].iter().chain(parts) {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(!error.contains('\n'), "one sentence: {error}");
}

fn with_value(value: Vec<u8>) -> Vec<u8> {
    Raw { values: vec![value], ..Raw::default() }.bytes()
}

fn with_tensors(tensors: Vec<Vec<u8>>, data: usize) -> Vec<u8> {
    Raw { tensors, data: vec![0; data], ..Raw::default() }.bytes()
}

/// One F32 tensor of four values.
fn good() -> Vec<u8> {
    with_tensors(vec![tensor("a.weight", &[4], 0, 0)], 16)
}

#[test]
fn the_empty_file_of_both_versions_is_read() {
    let mut bytes = b"\x47\x47\x55\x46\x03\0\0\0".to_vec();
    bytes.extend([0; 16]);
    let file = parse(bytes.clone()).unwrap();
    assert_eq!((file.version(), file.tensors().len(), file.metadata().len()), (3, 0, 0));
    bytes[4] = 2;
    assert_eq!(parse(bytes).unwrap().version(), 2);
    assert_eq!(parse(header(3, 0, 0)).unwrap().alignment(), 32);
}

// Item 1.

#[test]
fn a_short_file_is_refused() {
    refused(vec![], &["not a GGUF file", "24 bytes", "found 0 bytes"]);
    refused(header(3, 0, 0)[..23].to_vec(), &["24 bytes", "found 23 bytes"]);
}

#[test]
fn another_magic_is_refused() {
    let mut bytes = header(3, 0, 0);
    bytes[..4].copy_from_slice(b"PK\x03\x04");
    refused(bytes, &["not a GGUF file", "PK\\x03\\x04"]);
}

#[test]
fn other_versions_and_big_endian_files_are_refused() {
    refused(header(1, 0, 0), &["version 2 or 3", "found 1"]);
    refused(header(4, 0, 0), &["version 2 or 3", "found 4"]);
    refused(header(3u32.swap_bytes(), 0, 0), &["little-endian", "big-endian"]);
}

// Item 2.

#[test]
fn counts_are_bounded_by_the_bytes_left() {
    refused(header(3, u64::MAX, 0), &["at most 0 tensors", &u64::MAX.to_string()]);
    refused(header(3, 0, 1 << 62), &["at most 0 key-values", "4611686018427387904"]);
    let mut bytes = header(3, 3, 0);
    bytes.extend([0; 64]);
    refused(bytes, &["at most 2 tensors", "found 3"]);
}

#[test]
fn a_file_cut_off_in_the_header_is_refused() {
    let bytes = good();
    for end in 24..bytes.len() {
        refused(bytes[..end].to_vec(), &[]);
    }
    refused(bytes[..40].to_vec(), &["at most 0 tensors in the 24 bytes left", "found 1"]);
    let text = key_value("k", 8, &string("value"));
    refused(
        with_value(text[..text.len() - 1].to_vec()),
        &["key-value 1 of 1", "k: ", "at most 4 bytes of a string", "found 5"],
    );
}

// Item 3.

#[test]
fn keys_are_checked() {
    refused(with_value(key_value("", 7, &[1, 0, 0, 0])), &["key-value 1 of 1", "1 to 65535 bytes", "found 0"]);
    refused(with_value(key_value("k".repeat(65536), 7, &[1])), &["1 to 65535 bytes", "found 65536"]);
    refused(with_value(key_value(b"\xff\xfe", 7, &[1, 0, 0, 0])), &["key-value 1 of 1", "expected UTF-8"]);
    let twice = vec![key_value("a.b", 7, &[1]), key_value("a.b", 7, &[0])];
    refused(Raw { values: twice, ..Raw::default() }.bytes(), &["a.b", "each key once"]);
}

#[test]
fn trailing_nuls_of_strings_are_dropped() {
    let file = parse(with_value(key_value("key\0", 8, &string("value\0\0")))).unwrap();
    assert_eq!(file.string("key").unwrap(), Some("value"));
    // In a list they are text, as of a piece of a vocabulary.
    let pieces = [string("\0"), string("b\0")].concat();
    let file = parse(with_value(key_value("key", 9, &array(8, 2, &pieces)))).unwrap();
    let strings: Vec<&str> = file.array("key").unwrap().unwrap().strings().unwrap().collect();
    assert_eq!(strings, ["\0", "b\0"]);
}

// Item 4.

#[test]
fn value_types_are_checked() {
    refused(with_value(key_value("k", 13, &[0; 8])), &["k: ", "value type from 0 to 12", "found 13"]);
    refused(with_value(key_value("k", 7, &[2])), &["k: ", "bool of 0 or 1", "found 2"]);
    refused(with_value(key_value("k", 9, &array(9, 0, &[]))), &["k: ", "not 9 (array)", "found 9"]);
    refused(with_value(key_value("k", 9, &array(13, 0, &[]))), &["element type", "found 13"]);
    refused(with_value(key_value("k", 9, &array(7, 2, &[1, 3]))), &["k: ", "bool of 0 or 1", "found 3"]);
}

// Item 5.

#[test]
fn array_lengths_are_checked() {
    refused(with_value(key_value("k", 9, &array(5, 3, &[0; 11]))), &["k: ", "at most 2 elements", "found 3"]);
    refused(with_value(key_value("k", 9, &array(10, u64::MAX / 4, &[0; 8]))), &["at most 1 elements"]);
    refused(with_value(key_value("k", 9, &array(8, 1 << 40, &[0; 80]))), &["at most 10 elements"]);
    let cut = [string("ab"), 9u64.to_le_bytes().to_vec()].concat();
    refused(with_value(key_value("k", 9, &array(8, 2, &cut))), &["k: ", "at most 0 bytes of a string", "found 9"]);
    refused(with_value(key_value("k", 9, &array(8, 1, &string(b"\xc3")))), &["k: ", "expected UTF-8"]);
}

// Item 6.

#[test]
fn the_alignment_is_checked() {
    for alignment in [0u32, 4, 24, 48, 1 << 21] {
        let bytes = with_value(key_value("general.alignment", 4, &alignment.to_le_bytes()));
        refused(bytes, &["general.alignment", "power of two from 8 to 1048576", &format!("found {alignment}")]);
    }
    refused(
        with_value(key_value("general.alignment", 8, &string("32"))),
        &["general.alignment", "whole number", "\"32\""],
    );
    for alignment in [8u32, 64, 1 << 20] {
        let raw = Raw {
            values: vec![key_value("general.alignment", 4, &alignment.to_le_bytes())],
            tensors: vec![tensor("a", &[1], 0, 0)],
            data: 1.5f32.to_le_bytes().to_vec(),
        };
        let file = parse(raw.bytes_aligned(alignment as usize)).unwrap();
        assert_eq!(&*file.tensors()[0].data, 1.5f32.to_le_bytes());
        let raw = Raw { tensors: vec![tensor("a", &[1], 0, 8 * u64::from(alignment) + 4)], ..raw };
        refused(raw.bytes_aligned(alignment as usize), &["tensor a", "offset"]);
    }
}

// Item 7.

#[test]
fn integers_of_any_width_are_accepted() {
    for value in [
        key_value("k", 0, &[7]),
        key_value("k", 1, &[7]),
        key_value("k", 2, &[7, 0]),
        key_value("k", 3, &[7, 0]),
        key_value("k", 4, &[7, 0, 0, 0]),
        key_value("k", 5, &[7, 0, 0, 0]),
        key_value("k", 10, &7u64.to_le_bytes()),
        key_value("k", 11, &7u64.to_le_bytes()),
    ] {
        let file = parse(with_value(value)).unwrap();
        assert_eq!(
            (file.u32("k").unwrap(), file.usize("k").unwrap(), file.unsigned("k").unwrap()),
            (Some(7), Some(7), Some(7))
        );
        assert_eq!(file.u32("absent").unwrap(), None);
    }
    let negative = parse(with_value(key_value("k", 5, &(-1i32).to_le_bytes()))).unwrap();
    assert_eq!(negative.unsigned("k").unwrap_err().to_string(), "x.gguf: k: expected a whole number, found -1");
    let wide = parse(with_value(key_value("k", 10, &(1u64 << 32).to_le_bytes()))).unwrap();
    assert_eq!(wide.unsigned("k").unwrap(), Some(1 << 32));
    assert!(wide.u32("k").unwrap_err().to_string().contains("below 2^32, found 4294967296"));
}

#[test]
fn values_of_another_type_are_refused_by_the_typed_getters() {
    let file = parse(with_value(key_value("k", 8, &string("text")))).unwrap();
    assert!(file.u32("k").unwrap_err().to_string().contains("k: expected a whole number below 2^32, found \"text\""));
    assert!(file.float("k").unwrap_err().to_string().contains("finite number"));
    assert!(file.boolean("k").unwrap_err().to_string().contains("true or false"));
    assert!(file.array("k").unwrap_err().to_string().contains("an array"));
    let file = parse(with_value(key_value("k", 6, &f32::NAN.to_le_bytes()))).unwrap();
    assert!(file.float("k").unwrap_err().to_string().contains("k: expected a finite number, found NaN"));
    assert!(file.string("k").unwrap_err().to_string().contains("a string"));
    let file = parse(with_value(key_value("k", 12, &0.5f64.to_le_bytes()))).unwrap();
    assert_eq!(file.float("k").unwrap(), Some(0.5));
}

// Item 8.

#[test]
fn tensor_names_are_checked() {
    refused(with_tensors(vec![tensor("", &[4], 0, 0)], 16), &["tensor info 1 of 1", "1 to 255 bytes", "found 0"]);
    let architecture = key_value("general.architecture", 8, &string("t5"));
    let long = Raw { values: vec![architecture], tensors: vec![tensor("n".repeat(64), &[4], 0, 0)], data: vec![0; 16] };
    refused(long.bytes(), &["1 to 63 bytes", "found 64"]);
    // Files with Hugging Face names have longer ones, and no architecture.
    parse(Raw { values: vec![], ..long }.bytes()).unwrap();
    refused(with_tensors(vec![tensor("n".repeat(256), &[4], 0, 0)], 16), &["1 to 255 bytes", "found 256"]);
    refused(with_tensors(vec![tensor(b"\x80", &[4], 0, 0)], 16), &["tensor info 1 of 1", "UTF-8"]);
    let twice = vec![tensor("a", &[4], 0, 0), tensor("a", &[4], 0, 32)];
    refused(with_tensors(twice, 48), &["tensor a", "each name once"]);
}

#[test]
fn extents_are_checked() {
    refused(with_tensors(vec![tensor("a.weight", &[], 0, 0)], 16), &["a.weight", "1 to 4 dimensions", "found 0"]);
    refused(with_tensors(vec![tensor("a", &[1; 5], 0, 0)], 16), &["1 to 4 dimensions", "found 5"]);
    refused(with_tensors(vec![tensor("a", &[4, 0], 0, 0)], 16), &["tensor a", "extents above 0", "[0, 4]"]);
    refused(with_tensors(vec![tensor("a", &[1 << 40, 1 << 40], 0, 0)], 16), &["tensor a", "overflows"]);
    refused(with_tensors(vec![tensor("a", &[u64::MAX], 0, 0)], 16), &["tensor a", "found 18446744073709551615 values"]);
    refused(with_tensors(vec![tensor("a", &[1 << 33, 1 << 33], 2, 0)], 16), &["tensor a", "overflows"]);
}

// Item 9.

#[test]
fn types_that_cannot_be_read_are_refused_by_name() {
    for (code, name) in
        [(10, "Q2_K"), (11, "Q3_K"), (20, "IQ4_NL"), (9, "Q8_1"), (28, "F64"), (39, "MXFP4"), (4, "Q4_2")]
    {
        refused(with_tensors(vec![tensor("a", &[256], code, 0)], 512), &["tensor a", "Q4_K", &format!("found {name}")]);
    }
    refused(with_tensors(vec![tensor("a", &[256], 99, 0)], 512), &["tensor a", "unknown type 99"]);
}

#[test]
fn blocks_must_fill_rows() {
    refused(with_tensors(vec![tensor("a", &[48, 2], 8, 0)], 512), &["tensor a", "q8_0 blocks of 32", "found 48"]);
    refused(with_tensors(vec![tensor("a", &[288], 12, 0)], 512), &["tensor a", "q4_k blocks of 256", "found 288"]);
}

// Item 10.

#[test]
fn offsets_are_checked() {
    refused(with_tensors(vec![tensor("a", &[4], 0, 16)], 48), &["tensor a", "offset that 32 divides", "found 16"]);
    refused(with_tensors(vec![tensor("a", &[4], 0, 0)], 15), &["tensor a", "16 bytes at offset 0", "15 bytes"]);
    refused(with_tensors(vec![tensor("a", &[4], 0, 1 << 40)], 16), &["tensor a", "cut off"]);
    refused(with_tensors(vec![tensor("a", &[4], 0, u64::MAX - 31)], 16), &["tensor a", "cut off"]);
}

#[test]
fn overlapping_tensors_are_refused_and_gaps_accepted() {
    let overlap = vec![tensor("b", &[9], 0, 32), tensor("a", &[9], 0, 0)];
    refused(with_tensors(overlap, 128), &["tensor b", "overlap", "those of a"]);
    let same = vec![tensor("a", &[4], 0, 0), tensor("b", &[4], 0, 0)];
    refused(with_tensors(same, 64), &["tensor b", "overlap", "those of a"]);
    let gap = parse(with_tensors(vec![tensor("b", &[4], 0, 96), tensor("a", &[4], 0, 0)], 112)).unwrap();
    assert_eq!(gap.tensors().len(), 2);
}

// Item 11.

#[test]
fn padding_after_the_last_tensor_may_be_missing() {
    let file = parse(good()).unwrap();
    assert_eq!((file.tensors()[0].shape.as_slice(), file.tensors()[0].data.len()), (&[4][..], 16));
    let mut header_only = with_tensors(vec![tensor("a", &[4], 0, 0)], 0);
    header_only.truncate(24 + 8 + 1 + 4 + 8 + 4 + 8);
    refused(header_only, &["cut off", "tensor data after the header"]);
}

// Item 19.

fn part(number: u16, count: u16, tensors: i32, names: &[&str]) -> Vec<u8> {
    let values = vec![
        key_value("split.no", 2, &number.to_le_bytes()),
        key_value("split.count", 2, &count.to_le_bytes()),
        key_value("split.tensors.count", 5, &tensors.to_le_bytes()),
    ];
    let tensors = names.iter().enumerate().map(|(i, name)| tensor(name, &[8], 0, 32 * i as u64)).collect();
    Raw { values, tensors, data: vec![number as u8; 32 * names.len()] }.bytes()
}

/// Opens `parts`, written as m-00001-of-0000N.gguf and so on.
fn open_split(parts: &[Vec<u8>], number: usize) -> Result<File, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = |i: usize| folder.path().join(format!("m-{:05}-of-{:05}.gguf", i + 1, parts.len()));
    for (i, part) in parts.iter().enumerate() {
        if !part.is_empty() {
            std::fs::write(path(i), part).unwrap();
        }
    }
    File::open(&path(number)).map_err(|error| error.to_string())
}

#[test]
fn split_files_are_read_as_one() {
    let parts = [part(0, 3, 4, &["a", "b"]), part(1, 3, 4, &["c"]), part(2, 3, 4, &["d"])];
    let file = open_split(&parts, 0).unwrap();
    let names: Vec<_> = file.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.data[0])).collect();
    assert_eq!(names, [("a", 0), ("b", 0), ("c", 1), ("d", 2)]);
    assert!(file.tensors()[3].file.ends_with("m-00003-of-00003.gguf"));
}

#[test]
fn faults_of_split_files_are_refused() {
    let error = |parts: &[Vec<u8>], number| open_split(parts, number).unwrap_err();
    let (first, second) = (part(0, 2, 2, &["a"]), part(1, 2, 2, &["b"]));
    assert!(
        error(&[first.clone(), second.clone()], 1).contains("part 2 of 2: expected the first, m-00001-of-00002.gguf")
    );
    assert!(error(&[first.clone(), vec![]], 0).contains("m-00002-of-00002.gguf: No such file"));
    let other_count = error(&[first.clone(), part(1, 3, 2, &["b"])], 0);
    assert!(other_count.contains("m-00002-of-00002.gguf: split.count: expected 2, found 3"), "{other_count}");
    let other_number = error(&[first.clone(), part(0, 2, 2, &["b"])], 0);
    assert!(other_number.contains("split.no: expected 1, found 0"), "{other_number}");
    let twice = error(&[first.clone(), part(1, 2, 2, &["a"])], 0);
    assert!(twice.contains("tensor a: expected each name once"), "{twice}");
    let sum = error(&[first.clone(), part(1, 2, 2, &["b", "c"])], 0);
    assert!(sum.contains("split.tensors.count: expected 2 tensors in 2 files, found 3"), "{sum}");
    let plain = error(&[first, good()], 0);
    assert!(plain.contains("split.count: expected 2, found nothing"), "{plain}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.gguf");
    std::fs::write(&path, part(0, 2, 2, &["a"])).unwrap();
    let error = File::open(&path).unwrap_err().to_string();
    assert!(error.contains("renamed.gguf: expected a name that ends in -00001-of-00002.gguf"), "{error}");
}

// The writer.

fn info(name: &str, dtype: DType, shape: &[usize]) -> TensorInfo {
    TensorInfo { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

#[test]
fn what_is_written_is_read_back_byte_for_byte() {
    let metadata: Vec<(String, Value)> = [
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-3)),
        ("u16", Value::U16(65535)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(-70000)),
        ("f32", Value::F32(1e-6)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("▁Straße".to_owned())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(0.1)),
        ("strings", Value::Array(Array::of_strings(["<pad>", "", "▁"]))),
        ("floats", Value::Array(Array::of_floats([0.0, -1.5]))),
        ("integers", Value::Array(Array::of_i32([3, 2, 1]))),
        ("ids", Value::Array(Array::of_u32([u32::MAX]))),
        ("bytes", Value::Array(Array::of_bytes(vec![0, 0xB4, 2, 0]))),
        ("nothing", Value::Array(Array::of_strings([""; 0]))),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    let tensors = [info("a", DType::F16, &[3, 5]), info("b", DType::Q8_0, &[2, 64]), info("c", DType::F32, &[1])];
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| (0..tensor.size().unwrap()).map(|i| i as u8).collect()).collect();
    let write = |piece: usize| {
        let mut writer = Writer::new("x.gguf".as_ref(), Vec::new(), &metadata, &tensors).unwrap();
        for (tensor, data) in tensors.iter().zip(&data) {
            for piece in data.chunks(piece) {
                writer.append(&tensor.name, piece).unwrap();
            }
        }
        writer.finish().unwrap()
    };
    let bytes = write(usize::MAX);
    assert_eq!(bytes, write(7), "pieces make no difference");
    assert!(bytes.len().is_multiple_of(32), "the last tensor is padded, too");

    let file = parse(bytes.clone()).unwrap();
    assert_eq!(file.metadata(), metadata);
    assert_eq!(file.array("strings").unwrap().unwrap().strings().unwrap().collect::<Vec<_>>(), ["<pad>", "", "▁"]);
    assert_eq!(file.array("floats").unwrap().unwrap().floats().unwrap().collect::<Vec<_>>(), [0.0, -1.5]);
    assert_eq!(file.array("integers").unwrap().unwrap().integers(), Some(vec![3, 2, 1]));
    assert_eq!(file.array("bytes").unwrap().unwrap().bytes(), Some(&[0, 0xB4, 2, 0][..]));
    assert_eq!(file.array("bytes").unwrap().unwrap().element(), ValueType::U8);
    for ((read, tensor), data) in file.tensors().iter().zip(&tensors).zip(&data) {
        assert_eq!(
            (&read.name, read.dtype, &read.shape, &read.data[..]),
            (&tensor.name, tensor.dtype, &tensor.shape, &data[..])
        );
        let offset = read.data.as_ptr() as usize - file.tensors()[0].data.as_ptr() as usize;
        assert!(offset.is_multiple_of(32));
    }
}

#[test]
fn the_bytes_of_a_small_file_are_those_of_the_specification() {
    let metadata = [("general.architecture".to_owned(), Value::String("t5".to_owned()))];
    let mut writer = Writer::new("x.gguf".as_ref(), Vec::new(), &metadata, &[info("w", DType::F16, &[2, 3])]).unwrap();
    writer.append("w", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).unwrap();
    let mut expected = Raw {
        values: vec![key_value("general.architecture", 8, &string("t5"))],
        tensors: vec![tensor("w", &[3, 2], 1, 0)],
        data: (1..=12).collect(),
    }
    .bytes();
    expected.resize(expected.len().next_multiple_of(32), 0);
    assert_eq!(writer.finish().unwrap(), expected);
}

#[test]
fn the_writer_refuses_what_a_reader_would() {
    let new = |metadata: &[(&str, Value)], tensors: &[TensorInfo]| {
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
        Writer::new("x.gguf".as_ref(), Vec::new(), &metadata, tensors).map(|_| ()).unwrap_err().to_string()
    };
    assert!(new(&[("", Value::U8(1))], &[]).contains("1 to 65535 bytes"));
    assert!(new(&[("k", Value::U8(1)), ("k", Value::U8(2))], &[]).contains("k: expected a key"));
    assert!(new(&[("general.alignment", Value::U32(64))], &[]).contains("general.alignment: expected 32, found 64"));
    assert!(new(&[], &[info(&"n".repeat(64), DType::F32, &[1])]).contains("1 to 63 bytes"));
    assert!(new(&[], &[info("n", DType::F32, &[1]), info("n", DType::F32, &[1])]).contains("tensor n"));
    assert!(new(&[], &[info("n", DType::Q8_0, &[2, 33])]).contains("suit q8_0, found [2, 33]"));
    assert!(new(&[], &[info("n", DType::F32, &[0, 3])]).contains("found [0, 3]"));
    assert!(new(&[], &[info("n", DType::F32, &[])]).contains("1 to 4 extents"));
    assert!(new(&[], &[info("n", DType::F32, &[1; 5])]).contains("1 to 4 extents"));
}

#[test]
fn the_writer_holds_its_caller_to_the_header() {
    let start = || {
        let tensors = [info("a", DType::F32, &[2]), info("b", DType::F32, &[1])];
        Writer::new("x.gguf".as_ref(), Vec::new(), &[], &tensors).unwrap()
    };
    assert!(start().append("b", &[0; 4]).unwrap_err().to_string().contains("tensor b: expected data of a"));
    assert!(
        start()
            .append("a", &[0; 9])
            .unwrap_err()
            .to_string()
            .contains("tensor a: expected at most 8 more bytes, found 9")
    );
    let mut writer = start();
    writer.append("a", &[0; 5]).unwrap();
    assert!(writer.append("a", &[0; 4]).unwrap_err().to_string().contains("at most 3 more bytes"));
    assert!(writer.finish().unwrap_err().to_string().contains("tensor a: expected 8 bytes, found 5"));
    let mut writer = start();
    writer.append("a", &[0; 8]).unwrap();
    writer.append("b", &[0; 4]).unwrap();
    assert!(writer.append("b", &[0; 4]).unwrap_err().to_string().contains("no more tensors"));
}

#[test]
fn a_failing_output_is_an_error_that_names_the_file() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let tensors = [info("a", DType::F32, &[100])];
    assert!(
        Writer::new("x.gguf".as_ref(), Full(10), &[], &tensors)
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .starts_with("x.gguf: ")
    );
    let mut writer = Writer::new("x.gguf".as_ref(), Full(200), &[], &tensors).unwrap();
    assert!(writer.append("a", &[0; 400]).unwrap_err().to_string().starts_with("x.gguf: "));
}
