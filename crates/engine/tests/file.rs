//! The portable file: what comes back, and that no damaged or forged file does more than give an error.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;

use cardinal_engine::graph::{Graph, Op, Package, Source};
use cardinal_engine::{Activation, EngineError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::time::Instant;

fn small() -> Package {
    let graph = |side: usize| {
        let text = format!(
            "graph net batch=free\ninput %x [1, 2, {side}, {side}]\nconst @conv.weight [4, 2, 1, 1]\n\
             const @conv.bias [4] = [1, -0, NaN, inf]\nconst @copy.bias [4] = [1, -0, NaN, inf]\n\
             %0 = conv2d(%x, @conv.weight, bias=@conv.bias)  # conv\n%1 = global_avg_pool(%0)\n\
             const @size [1, 4, 1, 1] = {side}\n%y = mul(%1, @size)\noutput %y\n"
        );
        let mut graph = Graph::parse(&text).unwrap();
        graph.prune();
        graph
    };
    let metadata = BTreeMap::from([("classes".to_owned(), "cat\n\"dog\"\nœuf".to_owned())]);
    Package { graphs: vec![graph(8), graph(12)], metadata }
}

fn bytes(package: &Package) -> Vec<u8> {
    let mut bytes = Vec::new();
    package.write(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Package, String> {
    Package::read(&mut Cursor::new(bytes), bytes.len() as u64).map_err(|error| error.to_string())
}

/// Equal, with numbers compared bit by bit.
fn assert_same(a: &Package, b: &Package) {
    assert_eq!(a.metadata, b.metadata);
    assert_eq!(a.graphs.len(), b.graphs.len());
    for (a, b) in a.graphs.iter().zip(&b.graphs) {
        assert_eq!((&a.name, a.batch, &a.nodes), (&b.name, b.batch, &b.nodes));
        assert_eq!((&a.inputs, &a.outputs, a.values.len()), (&b.inputs, &b.outputs, b.values.len()));
        for (a, b) in a.values.iter().zip(&b.values) {
            assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
            let bits = |source: &Source| match source {
                Source::Constant(constant) => constant.data.iter().map(|x| x.to_bits()).collect(),
                Source::Input | Source::Node => Vec::new(),
            };
            assert_eq!(bits(&a.source), bits(&b.source));
        }
    }
}

#[test]
fn a_package_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    small().save(&path).unwrap();
    let back = Package::load(&path).unwrap();
    assert_same(&back, &small());
    assert_eq!(bytes(&back), std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
}

#[test]
fn equal_constants_are_stored_once_and_shared() {
    let bytes = bytes(&small());
    let package = read(&bytes).unwrap();
    let data = |graph: usize, name: &str| {
        let value = package.graphs[graph].values.iter().find(|value| value.name == name).unwrap();
        value.constant().unwrap().clone()
    };
    assert!(std::sync::Arc::ptr_eq(&data(0, "conv.weight"), &data(1, "conv.weight")));
    // Of equal names, but not equal.
    assert_eq!((data(0, "size")[0], data(1, "size")[0]), (8.0, 12.0));
    let header = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(header.matches("\"dtype\"").count(), 4, "conv.weight, conv.bias, size, size#2: {header}");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = bytes(&small());
    for end in (0..bytes.len()).step_by(97).chain([1, 7, 8, 9, bytes.len() - 4, bytes.len() - 1]) {
        read(&bytes[..end]).unwrap_err();
        // A reader that ends before the length it promised.
        Package::read(&mut Cursor::new(&bytes[..end]), bytes.len() as u64).unwrap_err();
    }
    read(&[bytes, vec![0]].concat()).unwrap_err();
}

#[test]
fn every_flipped_byte_is_an_error() {
    let bytes = bytes(&small());
    let mut dice = random::Dice(7);
    for _ in 0..1000 {
        let mut damaged = bytes.clone();
        let place = dice.below(bytes.len());
        damaged[place] ^= 1 + dice.below(255) as u8;
        match read(&damaged) {
            Err(_) => {}
            // Another kind of white space behind the header says the same.
            Ok(package) => assert_same(&package, &small()),
        }
    }
}

/// A file with this header and `data` bytes of zeros.
fn forged(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn forged_headers_are_errors() {
    let check = |bytes: &[u8], message: &str| {
        let error = read(bytes).unwrap_err();
        assert!(error.contains(message), "`{error}` does not say `{message}`");
    };
    for size in [17, 100_000_001, u64::from(u32::MAX), 1 << 40, u64::MAX] {
        let mut bytes = forged("{}", 14);
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        check(&bytes, &format!("its header claims {size} bytes of 16"));
    }
    check(b"", "a file of 0 bytes");
    check(&forged("{}", 0), "it holds no graph");
    check(&forged("[]", 0), "its header is invalid");
    check(&forged(&"[".repeat(1000), 0), "its header is invalid");
    check(&forged(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), "its header is invalid");

    let with = |tensor: &str, data: usize| {
        let own = "{\"format\":\"cardinal-graph\",\"version\":\"1\",\"graph.0\":\"\"}";
        forged(&format!("{{\"__metadata__\":{own},{tensor}}}"), data)
    };
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
    };
    check(&with(&tensor("F32", "[2]", "[0,8]"), 8), "its checksum is another");
    check(&with(&tensor("F16", "[4]", "[0,8]"), 8), "its numbers are F16, not F32");
    check(&with(&tensor("F32", "[2]", "[0,6]"), 6), "6 bytes for shape [2]");
    check(&with(&tensor("F32", "[2]", "[4,12]"), 12), "lies at 4..12, where 0 is the next free byte");
    check(&with(&tensor("F32", "[2]", "[0,8]"), 12), "describes 8 bytes of data, 12 are there");
    check(&with(&tensor("F32", "[2]", "[0,18446744073709551615]"), 8), "bytes of data");
    check(&with(&tensor("F32", "[2]", "[8,0]"), 8), "lies at 8..0");
    check(&with(&tensor("F32", "[2]", "[0,-8]"), 8), "its header is invalid");
    check(&with(&tensor("F32", "[2]", "[0]"), 8), "its header is invalid");
    check(&with(&tensor("F32", "[1e30]", "[0,8]"), 8), "its header is invalid");
    check(&with(&tensor("F32", "[4294967296,4294967296,2]", "[0,8]"), 8), "8 bytes for shape");
    check(&with(&tensor("F32", "[4611686018427387904]", "[0,8]"), 8), "8 bytes for shape");
    check(&with(&tensor("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4), "up to 8 sizes");
    let (a, b) =
        (tensor("F32", "[2]", "[0,8]"), tensor("F32", "[2]", "[4,12]").replacen("\"a\"", "\"b\"", 1));
    check(&with(&format!("{a},{b}"), 12), "tensor `b` lies at 4..12, where 8 is the next free byte");
    check(&with(&format!("{a},{a}"), 8), "`a` is there twice");
    check(&with(&format!("{a},\"__metadata__\":{{}}"), 8), "`__metadata__` is there twice");
    check(&with(&a.replace("\"dtype\"", "\"dtype\":\"F32\",\"dtype\""), 8), "duplicate field `dtype`");
    check(&with(&a.replace("\"dtype\"", "\"more\":1,\"dtype\""), 8), "unknown field `more`");
    let metadata = |text: &str| forged(&format!("{{\"__metadata__\":{text}}}"), 0);
    check(
        &metadata("{\"format\":\"cardinal-graph\",\"version\":\"2\"}"),
        "it has version 2 of the format; this program reads 1",
    );
    check(&metadata("{\"format\":\"cardinal-graph\"}"), "it has no `version`");
    check(&metadata("{\"format\":\"pt\"}"), "its format is `pt`, not `cardinal-graph`");
    check(&metadata("{\"format\":\"pt\",\"format\":\"pt\"}"), "`format` is there twice");
    check(&metadata("{\"format\":1}"), "its header is invalid");
}

/// The bytes of [`small`] with `from` in the header replaced and the checksum of the result: a careful forgery.
fn reforged(from: &str, to: &str) -> Result<Package, String> {
    let bytes = bytes(&small());
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + size]).unwrap();
    assert!(header.contains(from), "{header}");
    let rebuild = |header: &str| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(&bytes[8 + size..]);
        file
    };
    // The right checksum is found as the reader would compute it.
    let header = header.replace(from, to);
    let checksum = checksum(&header, &bytes[8 + size..]);
    let at = header.find("\"checksum\":\"").unwrap() + 12;
    read(&rebuild(&format!("{}{checksum}{}", &header[..at], &header[at + 8..])))
}

/// The checksum as the format's description has it, computed from the header's JSON alone.
fn checksum(header: &str, data: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_str(header).unwrap();
    let mut hashed = Vec::new();
    let mut add = |bytes: &[u8]| {
        hashed.extend((bytes.len() as u64).to_le_bytes());
        hashed.extend(bytes);
    };
    let json: BTreeMap<_, _> = json.as_object().unwrap().iter().collect();
    let metadata: BTreeMap<_, _> = json[&"__metadata__".to_owned()].as_object().unwrap().iter().collect();
    for (key, value) in metadata.into_iter().filter(|(key, _)| *key != "checksum") {
        add(key.as_bytes());
        add(value.as_str().unwrap().as_bytes());
    }
    for (name, tensor) in json.into_iter().filter(|(name, _)| *name != "__metadata__") {
        let numbers = |key: &str| -> Vec<u64> {
            tensor[key].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
        };
        let offsets = numbers("data_offsets");
        add(name.as_bytes());
        add(&numbers("shape").iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<_>>());
        add(&crc(&data[offsets[0] as usize..offsets[1] as usize]).to_le_bytes());
    }
    format!("{:08x}", crc(&hashed))
}

/// CRC-32, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn graphs_that_do_not_fit_are_errors_even_with_the_right_checksum() {
    assert_same(&reforged("net", "net").unwrap(), &small());
    let check = |from: &str, to: &str, message: &str| {
        let error = reforged(from, to).unwrap_err();
        assert!(error.contains(message), "`{error}` does not say `{message}`");
    };
    check("conv2d(", "conv9d(", "graph 0: line 6: there is no operator `conv9d`");
    check("from \\\"conv.weight\\\"", "from \\\"none\\\"", "the file has no tensor `none`");
    check(
        "@conv.weight [4, 2, 1, 1]",
        "@conv.weight [8, 2, 1, 1]",
        "has shape [4, 2, 1, 1], not [8, 2, 1, 1]",
    );
    check("graph.1", "graph.2", "its graphs are not `graph.0`, `graph.1` and so on");
    check("[1, 2, 8, 8]", "[1, 2, 4294967296, 8]", "too many elements");
    check("[1, 2, 8, 8]", "[1, 2, 0, 8]", "has a size of zero");
    check("batch=free", "batch=0", "a batch of Fixed(0)");
    check("output %y", "output %x9", "is not defined above");
    check("  # conv", " padding=4294967296  # conv", "padding");
}

#[test]
fn hostile_texts_take_no_time_and_memory() {
    let start = Instant::now();
    let package = |text: String| {
        let own = serde_json::json!({"format": "cardinal-graph", "version": "1", "graph.0": text});
        let header = serde_json::json!({"__metadata__": own}).to_string();
        let sum = checksum(&header, &[]);
        forged(
            &header.replacen(
                "{\"__metadata__\":{",
                &format!("{{\"__metadata__\":{{\"checksum\":\"{sum}\","),
                1,
            ),
            0,
        )
    };
    let check = |text: String, message: &str| {
        let error = read(&package(text)).unwrap_err();
        assert!(error.contains(message), "`{error}` does not say `{message}`");
    };
    check("\n".repeat(300_000), "its graphs have 300000 lines");
    check(" ".repeat(17 << 20), "its graphs have 17825792 bytes");
    check(format!("input %x [{}1]", "1, ".repeat(100_000)), "a list has more than 16 numbers");
    check("input %x [1, 1]\n%0 = concat(".to_owned() + &"%x, ".repeat(100_000), "more than 1024 inputs");
    let keys: String = (0..100_000).map(|i| format!(" a{i}")).collect();
    check(format!("input %x [1, 1]\n%0 = relu(%x){keys}"), "more than 16 attributes");
    // Shapes that double from node to node.
    let doubling: String = (1..60).map(|i| format!("%{i} = concat(%{}, %{})\n", i - 1, i - 1)).collect();
    check(format!("input %0 [1, 1, 1, 1]\n{doubling}"), "too many elements");
    let padding: String = (1..9).map(|i| format!("%{i} = pad(%{}) padding=100000\n", i - 1)).collect();
    check(format!("input %0 [1, 1, 1, 1]\n{padding}"), "padding");
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let check = |result: Result<(), EngineError>, name: &str| {
        let error = result.unwrap_err().to_string();
        let path = folder.path().join(name);
        assert!(error.starts_with(path.to_str().unwrap().trim_end_matches('/')), "{error}");
    };
    check(Package::load(folder.path().join("none")).map(drop), "none");
    check(Package::load(folder.path()).map(drop), "");
    check(small().save(folder.path().join("none/net")), "none/net");
    check(small().save(folder.path().join("..")), "..");
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    check(small().save(folder.path().join("sub")), "sub");
    std::fs::write(folder.path().join("text"), "a text").unwrap();
    check(Package::load(folder.path().join("text")).map(drop), "text");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let mut own = small();
    own.metadata.insert("graph.7".into(), String::new());
    let error = |package: &Package| package.write(&mut Vec::new()).unwrap_err().to_string();
    assert_eq!(error(&own), "the metadata key `graph.7` is the format's own");
    assert_eq!(error(&Package::default()), "there is no graph to write");
    let mut broken = small();
    broken.graphs[1].outputs.clear();
    assert_eq!(error(&broken), "graph 1: net: the graph has no output");
}

/// A disk that is full after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(std::io::Error::other("no space left")) } else { Ok(taken) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let size = bytes(&small()).len();
    for space in (0..size).step_by(13) {
        assert_eq!(small().write(&mut Full(space)).unwrap_err().to_string(), "no space left");
    }
    small().write(&mut Full(size)).unwrap();
}

#[test]
fn a_hundred_megabytes_load_quickly() {
    let mut graph = Graph::new("large");
    let mut x = graph.input("x", [1, 1 << 10]);
    for i in 0..25 {
        let data: Vec<_> = (0..1 << 20).map(|k| (k * 31 + i) as f32).collect();
        let weight = graph.constant(format!("w{i}"), [1 << 10, 1 << 10], data).unwrap();
        let linear = Op::Linear { bias: false, activation: Activation::Relu };
        x = graph.push("", linear, &[x, weight]).unwrap();
    }
    graph.output(x);
    graph.prune();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let package = Package { graphs: vec![graph], ..Package::default() };
    let start = Instant::now();
    package.save(&path).unwrap();
    let saved = start.elapsed();
    let start = Instant::now();
    let back = Package::load(&path).unwrap();
    let loaded = start.elapsed();
    assert_same(&back, &package);
    // 0.3 s on an idle machine is the target; tests share theirs.
    assert!(cfg!(debug_assertions) || loaded.as_secs_f64() < 3.0, "saved in {saved:?}, loaded in {loaded:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_graphs_come_back(seed: u64) {
        let mut graphs = vec![random::graph(seed, 12), random::graph(!seed, 6)];
        graphs.iter_mut().for_each(Graph::prune);
        let package = Package { graphs, metadata: BTreeMap::new() };
        assert_same(&read(&bytes(&package)).unwrap(), &package);
    }

    #[test]
    fn noise_behind_a_length_is_an_error(noise: Vec<u8>) {
        let mut bytes = (noise.len() as u64).to_le_bytes().to_vec();
        bytes.extend(noise);
        prop_assert!(read(&bytes).is_err());
    }
}
