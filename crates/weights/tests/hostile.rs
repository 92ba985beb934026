//! Damaged and forged files: always an error that says something, never a panic or a large allocation.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use cardinal_weights::{ReadOptions, WeightsErrorKind, read, read_bytes};
use proptest::prelude::*;
use std::path::Path;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/weights");
    std::fs::read(folder.join(name)).unwrap()
}

/// One of each container, small, and one with many kinds of Python objects.
const FILES: [&str; 6] = [
    "zip.pth",
    "legacy.pth",
    "bf16.safetensors",
    "training_legacy.pth",
    "whole_model.pth",
    "strided_legacy.pth",
];

/// Reads `bytes` and checks that what comes back is of the order of what went in.
fn survives(bytes: &[u8]) -> Result<(), String> {
    let checkpoint = read_bytes("file", bytes, &ReadOptions::default()).map_err(|e| e.to_string())?;
    let held: usize = checkpoint.tensors.iter().map(|(_, tensor)| tensor.bytes().len()).sum();
    assert!(held <= 4 * bytes.len() + (1 << 20), "{held} bytes from {}", bytes.len());
    Ok(())
}

#[test]
fn every_truncation_is_an_error() {
    for file in FILES {
        let bytes = fixture(file);
        for len in 0..bytes.len() {
            assert!(survives(&bytes[..len]).is_err(), "{file} cut to {len}");
        }
    }
}

#[test]
fn flipped_bits_are_survived() {
    for file in FILES {
        let mut bytes = fixture(file);
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << (at % 8);
            let _ = survives(&bytes);
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn a_flipped_weight_is_noticed_where_there_is_a_checksum() {
    let mut bytes = fixture("zip.pth");
    let weight: [u8; 4] = read_bytes("file", &bytes, &ReadOptions::default())
        .unwrap()
        .tensors
        .get("conv.weight")
        .unwrap()
        .bytes()[..4]
        .try_into()
        .unwrap();
    let at = bytes.windows(4).position(|w| w == weight).unwrap();
    bytes[at] ^= 1;
    assert!(survives(&bytes).unwrap_err().contains("checksum"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = survives(&bytes);
    }

    #[test]
    fn arbitrary_pickles_are_survived(program in prop::collection::vec(opcode(), 0..200)) {
        let bytes = legacy(&[program.concat(), b".".to_vec()].concat(), &one_storage(4, 4));
        let _ = survives(&bytes);
    }

    #[test]
    fn arbitrary_patches_are_survived(
        file in 0..FILES.len(),
        patches in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9)), 1..6),
    ) {
        let mut bytes = fixture(FILES[file]);
        for (at, patch) in patches {
            let at = at.index(bytes.len());
            let end = (at + patch.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&patch[..end - at]);
        }
        let _ = survives(&bytes);
    }
}

/// Opcodes with plausible arguments, so that programs get further than one step.
fn opcode() -> impl Strategy<Value = Vec<u8>> {
    let bare =
        prop::sample::select(b"()]}tldaeusRbQ012N\x81\x85\x86\x87\x88\x89\x93\x94\x8f\x90\x91\x92".to_vec());
    prop_oneof![
        4 => bare.prop_map(|op| vec![op]),
        1 => (0u8..8).prop_map(|n| vec![b'q', n]),
        1 => (0u8..8).prop_map(|n| vec![b'h', n]),
        1 => any::<u8>().prop_map(|n| vec![b'K', n]),
        1 => any::<[u8; 4]>().prop_map(|n| [b"J".as_slice(), &n].concat()),
        1 => prop::sample::select(vec!["storage", "0", "cpu", "x"]).prop_map(text),
        1 => prop::sample::select(vec!["torch._utils\n_rebuild_tensor_v2\n", "torch\nFloatStorage\n", "collections\nOrderedDict\n"])
            .prop_map(|name| format!("c{name}").into_bytes()),
    ]
}

fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

/// A legacy file around one pickle and one list of storages.
fn legacy(pickle: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    bytes.extend(pickle);
    bytes.extend(rest);
    bytes
}

/// A pickle of `{"w": tensor}` over a storage of `len` floats.
fn one_tensor(len: u32, shape: u32, stride: u8) -> Vec<u8> {
    let mut p = b"}\x8c\x01wctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuJ".to_vec();
    p.extend(len.to_le_bytes());
    p.extend(b"tQK\x00(J");
    p.extend(shape.to_le_bytes());
    p.extend([b't', b'(', b'K', stride, b't', 0x89, b'N', b't', b'R', b's', b'.']);
    p
}

/// The list of storages, and one storage of `count` floats of which `data` are there.
fn one_storage(count: u64, data: usize) -> Vec<u8> {
    let mut rest = b"]\x8c\x010a.".to_vec();
    rest.extend(count.to_le_bytes());
    rest.extend(std::iter::repeat_n(0, 4 * data));
    rest
}

#[test]
fn the_forged_files_below_are_well_formed_but_for_their_lie() {
    survives(&legacy(&one_tensor(4, 4, 1), &one_storage(4, 4))).unwrap();
    survives(&legacy(&one_tensor(4, 1000, 0), &one_storage(4, 4))).unwrap();
}

#[test]
fn claimed_sizes_are_not_believed() {
    let case = |what: &str, pickle: &[u8], rest: &[u8], message: &str| {
        let error = survives(&legacy(pickle, rest)).unwrap_err();
        assert!(error.contains(message), "{what}: {error}");
    };
    let max = i32::MAX as u32;
    case("a tensor beyond its storage", &one_tensor(4, 5, 1), &one_storage(4, 4), "reaches beyond");
    case(
        "a storage beyond the file",
        &one_tensor(max, max, 1),
        &one_storage(max.into(), 4),
        "reaches beyond the end",
    );
    case("a count that overflows", &one_tensor(4, 4, 1), &one_storage(u64::MAX, 4), "reaches beyond the end");
    case("one number expanded to 8 GB", &one_tensor(4, max, 0), &one_storage(4, 4), "more than the file");
    case("a negative size", &one_tensor(u32::MAX, 4, 1), &one_storage(4, 4), "natural number");
}

#[test]
fn pickles_that_grow_are_stopped() {
    let million_lists = [vec![b']'; 2 << 20], b".".to_vec()].concat();
    assert!(survives(&legacy(&million_lists, b"")).unwrap_err().contains("save the state dict alone"));
    let deep = [vec![b']'; 500_000], vec![b'a'; 499_999], b".].".to_vec()].concat();
    assert!(survives(&legacy(&deep, b"")).unwrap_err().contains("no state dict"));
    let cyclic = b"}q\x00\x8c\x05modelh\x00s.].";
    assert!(survives(&legacy(cyclic, b"")).unwrap_err().contains("no state dict"));
    // A module whose children are the module itself, twice: 2^n names.
    let mut module =
        b"cmodule\nNet\n)\x81q\x00}(\x8c\x0b_parameters}\x8c\x08_buffers}\x8c\x08_modules}(".to_vec();
    module.extend(b"\x8c\x01ah\x00\x8c\x01bh\x00uub.].");
    assert!(survives(&legacy(&module, b"")).unwrap_err().contains("without end"));
    let long_name = [b"\x8d".as_slice(), &u64::MAX.to_le_bytes(), b"x."].concat();
    assert!(survives(&legacy(&long_name, b"")).unwrap_err().contains("ends within a value"));
}

#[test]
fn safetensors_headers_are_not_believed() {
    let file = |n: u64, json: &str| [&n.to_le_bytes(), json.as_bytes()].concat();
    let whole = |json: &str| file(json.len() as u64, json);
    for bytes in [
        file(90_000_000, "{}"),
        whole(r#"{"w":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}"#),
        whole(r#"{"w":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}"#),
        whole(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#),
        whole(
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}}"#,
        ),
        whole(&"{\"a\":".repeat(5000)),
    ] {
        assert!(survives(&bytes).unwrap_err().contains("damaged"));
    }
}

#[test]
fn what_a_file_is_instead_is_said() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x80\x04}.", "plain Python pickle"),
        (b"PK\x03\x04", "cut short"),
        (b"hello", "neither"),
    ];
    for (bytes, message) in cases {
        let error = survives(bytes).unwrap_err();
        assert!(error.starts_with("file: ") && error.contains(message), "{error}");
    }
}

#[test]
fn folders_and_absent_files_are_named() {
    let error = read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
    assert!(error.to_string().contains("this is a folder"), "{error}");
    let error = read(Path::new("absent/model.pth")).unwrap_err();
    assert!(matches!(error.kind, WeightsErrorKind::Io(_)) && error.place == "absent/model.pth");
}
