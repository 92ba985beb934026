//! What a client asks for: JSON, with the numbers in it or behind it.
//!
//! What a body can make the parser take is bounded by a small multiple of the body: nothing is kept as a tree, unknown
//! fields are skipped, and lists that should be short must be.

use super::super::http::body::Body;
use super::super::http::picture;
use super::super::live::Live;
use super::super::refusal::Refusal;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The name of the tensor of normalised pixels.
pub(super) const TENSOR: &str = "input";
/// The name of the list of image files.
const FILES: &str = "image";
/// Length of the JSON part, where binary tensors follow it.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A checked request.
pub(super) struct Inference {
    pub(super) id: Option<String>,
    /// Normalised, `[3, h, w]` each.
    pub(super) images: Vec<Vec<f32>>,
    pub(super) outputs: Outputs,
}

/// The outputs that are asked for, in their order; all of them if there is no list.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) list: Option<Vec<Output>>,
    /// Whether they are binary unless they say otherwise.
    pub(super) binary: bool,
}

#[derive(Deserialize)]
struct Head {
    id: Option<String>,
    #[serde(default)]
    parameters: HeadParameters,
    inputs: Few<Input>,
    outputs: Option<Few<Output>>,
}

#[derive(Deserialize, Default)]
struct HeadParameters {
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Few<usize>,
    datatype: String,
    #[serde(default)]
    parameters: InputParameters,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize, Default)]
struct InputParameters {
    binary_data_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Output {
    pub(super) name: String,
    #[serde(default)]
    pub(super) parameters: OutputParameters,
}

#[derive(Debug, Deserialize, Default)]
pub(super) struct OutputParameters {
    pub(super) binary_data: Option<bool>,
    /// Instead of numbers, that many `value:class:name`.
    pub(super) classification: Option<usize>,
}

/// Reads a request; images are decoded within `pixels` pixels.
pub(super) fn read(body: &Body, live: &Live, pixels: u64) -> Result<Inference, Refusal> {
    let (head, binary) = parts(body)?;
    let head: Head = serde_json::from_slice(head)
        .map_err(|error| Refusal::bad(format!("not an inference request: {error}")))?;
    let mut inputs = head.inputs.0;
    let (Some(input), None) = (inputs.pop(), inputs.pop()) else {
        return Err(Refusal::bad(format!("one input is needed: '{TENSOR}' (FP32) or '{FILES}' (BYTES)")));
    };
    if ![TENSOR, FILES].contains(&input.name.as_str()) {
        let name: String = input.name.chars().take(64).collect();
        return Err(Refusal::bad(format!("there is no input '{name}'; there is '{TENSOR}', or '{FILES}'")));
    }
    let images = match input.datatype.as_str() {
        "FP32" => tensor(input, binary, live)?,
        "BYTES" => files(&input, binary, live, pixels)?,
        other => {
            let other: String = other.chars().take(16).collect();
            return Err(Refusal::bad(format!("datatype {other} is not taken; FP32 and BYTES are")));
        }
    };
    let outputs =
        Outputs { list: head.outputs.map(|outputs| outputs.0), binary: head.parameters.binary_data_output };
    Ok(Inference { id: head.id, images, outputs })
}

/// The JSON and what is behind it.
fn parts(body: &Body) -> Result<(&[u8], &[u8]), Refusal> {
    let Some(length) = body.headers.get(HEADER_LENGTH) else { return Ok((&body.bytes, &[])) };
    let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    let parts = length.and_then(|length| body.bytes.split_at_checked(length));
    parts.ok_or_else(|| {
        Refusal::bad("Inference-Header-Content-Length is not the length of a part of the body")
    })
}

/// The binary data of the one input: all of it.
fn binary_of(input: &Input, binary: &[u8]) -> Result<bool, Refusal> {
    match input.parameters.binary_data_size {
        Some(size) if size != binary.len() => Err(Refusal::bad(format!(
            "binary_data_size is {size}, but {} bytes follow the JSON",
            binary.len()
        ))),
        Some(_) if !matches!(input.data, Data::None) => {
            Err(Refusal::bad("the input has both data and binary_data_size"))
        }
        Some(_) => Ok(true),
        None if !binary.is_empty() => {
            Err(Refusal::bad("the input has no binary_data_size, but bytes follow"))
        }
        None => Ok(false),
    }
}

/// Splits `[n, 3, h, w]` into images.
fn tensor(input: Input, binary: &[u8], live: &Live) -> Result<Vec<Vec<f32>>, Refusal> {
    let (height, width) = live.preprocess.size;
    let image = live.preprocess.output_len();
    let wrong = |what: String| Refusal::bad(format!("input '{}': {what}", input.name));
    let count = match *input.shape.0.as_slice() {
        [n, 3, h, w] if (h, w) == (height as usize, width as usize) && n > 0 => n.checked_mul(image),
        _ => None,
    };
    let count = count.ok_or_else(|| {
        wrong(format!("shape {:?} is not taken; [n, 3, {height}, {width}] is", input.shape.0))
    })?;
    let numbers = if binary_of(&input, binary)? {
        let (numbers, rest) = binary.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(wrong("its bytes are no whole FP32 numbers".into()));
        }
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    } else {
        match input.data {
            Data::Numbers(numbers) => numbers,
            Data::None => Vec::new(),
            Data::Texts(_) => return Err(wrong("its data are no numbers".into())),
        }
    };
    if numbers.len() != count {
        return Err(wrong(format!("shape {:?} needs {count} numbers, not {}", input.shape.0, numbers.len())));
    }
    if !numbers.iter().all(|number| number.is_finite()) {
        return Err(wrong("a number is not finite".into()));
    }
    Ok(numbers.chunks_exact(image).map(<[f32]>::to_vec).collect())
}

/// Decodes image files: base64 in JSON, or each behind its length in 4 bytes, little-endian.
fn files(input: &Input, mut binary: &[u8], live: &Live, pixels: u64) -> Result<Vec<Vec<f32>>, Refusal> {
    let expected = match *input.shape.0.as_slice() {
        [n] | [n, 1] if n > 0 => n,
        _ => {
            let text = format!("input '{}': shape {:?} is not taken; [n] is", input.name, input.shape.0);
            return Err(Refusal::bad(text));
        }
    };
    let decode = |bytes: &[u8]| picture::input(live, pixels, bytes).map(|(_, input)| input);
    let mut images = Vec::new();
    let mut add = |bytes: &[u8]| {
        // One more than the slots is refused when they are counted; no more are decoded for that.
        live.fits(images.len())?;
        images.push(decode(bytes)?);
        Ok::<_, Refusal>(())
    };
    if binary_of(input, binary)? {
        while let Some((length, rest)) = binary.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (file, rest) = rest.split_at_checked(length).ok_or_else(|| {
                Refusal::bad(format!("input '{}': a length goes beyond the end", input.name))
            })?;
            add(file)?;
            binary = rest;
        }
    } else if let Data::Texts(texts) = &input.data {
        for text in texts {
            add(&picture::base64(text)?)?;
        }
    }
    if images.len() != expected || !binary.is_empty() && binary.len() < 4 {
        let text = format!("input '{}': shape {:?}, but {} files", input.name, input.shape.0, images.len());
        return Err(Refusal::bad(text));
    }
    Ok(images)
}

/// A list of at most [`MOST`] entries.
#[derive(Debug)]
struct Few<T>(Vec<T>);

const MOST: usize = 16;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(entry);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(List(PhantomData)).map(Few)
    }
}

/// Numbers or texts, in one list or in lists of lists, which is the same.
#[derive(Debug, Default, PartialEq)]
enum Data {
    #[default]
    None,
    Numbers(Vec<f32>),
    Texts(Vec<String>),
}

/// Lists in lists, at most; a tensor of images needs four.
const DEEPEST: usize = 8;
/// Files of one request, at most: a text takes more memory than the few bytes of an empty one.
const MOST_TEXTS: usize = 4096;

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Data::None;
        Collect { data: &mut data, depth: 0 }.deserialize(deserializer)?;
        // An empty list is data too.
        Ok(if data == Data::None { Data::Numbers(Vec::new()) } else { data })
    }
}

/// Adds what it meets to `data`.
struct Collect<'a> {
    data: &'a mut Data,
    depth: usize,
}

impl Collect<'_> {
    fn number<E: Error>(self, number: f32) -> Result<(), E> {
        match self.data {
            Data::None => *self.data = Data::Numbers(vec![number]),
            Data::Numbers(numbers) => numbers.push(number),
            Data::Texts(_) => return Err(E::custom("numbers among texts")),
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, or base64 texts, in a list")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(number as f32)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(number as f32)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(number as f32)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.data {
            Data::None => *self.data = Data::Texts(vec![text.to_owned()]),
            Data::Texts(texts) if texts.len() < MOST_TEXTS => texts.push(text.to_owned()),
            Data::Texts(_) => return Err(E::custom("too many texts")),
            Data::Numbers(_) => return Err(E::custom("texts among numbers")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.depth == DEEPEST {
            return Err(A::Error::custom("lists too deep"));
        }
        let Self { data, depth } = self;
        while seq.next_element_seed(Collect { data, depth: depth + 1 })?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Result<Data, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nested_lists_are_flat() {
        let flat = Data::Numbers(vec![1.0, -2.0, 0.5]);
        assert_eq!(data("[1,-2,0.5]").unwrap(), flat);
        assert_eq!(data("[[[1],[-2]],[[5e-1]]]").unwrap(), flat);
        assert_eq!(data("[\"a\",[\"b\"]]").unwrap(), Data::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(data("[]").unwrap(), Data::Numbers(vec![]));
    }

    #[test]
    fn what_is_no_data_is_refused() {
        for text in ["[1,\"a\"]", "[\"a\",1]", "[null]", "{}", "[{}]", "[true]", "[[[[[[[[[1]]]]]]]]]"] {
            assert!(data(text).is_err(), "{text}");
        }
        assert!(data(&format!("[{}\"\"]", "\"\",".repeat(MOST_TEXTS))).unwrap_err().contains("too many"));
        let many = format!(
            "{{\"inputs\":[{}]}}",
            vec!["{\"name\":\"a\",\"shape\":[1],\"datatype\":\"\"}"; 17].join(",")
        );
        assert!(serde_json::from_str::<Head>(&many).err().unwrap().to_string().contains("at most 16"));
    }
}
