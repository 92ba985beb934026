//! NumPy files: what NumPy writes, what it may not, and writing whole or not at all.

use std::path::{Path, PathBuf};

use cardinal_data::{DataErrorKind, NpyArray, read_npy, read_npy_from, write_npy};

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npy-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the folder is ours");
    path
}

fn file(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
    let length = (header.len() as u32).to_le_bytes();
    let length = if version == 1 { &length[..2] } else { &length[..] };
    [b"\x93NUMPY", &[version, 0][..], length, header.as_bytes(), values].concat()
}

fn read(bytes: &[u8]) -> Result<NpyArray, DataErrorKind> {
    read_npy_from(bytes, "input").map_err(|error| error.kind)
}

fn header(descr: &str, order: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
}

#[test]
fn what_is_written_is_read_back() {
    let folder = folder("round-trip");
    for shape in [&[][..], &[0], &[5], &[2, 3], &[1, 3, 2, 2], &[3, 0, 7]] {
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.1 - 1.0).collect();
        let path = folder.join("a.npy");
        write_npy(&path, shape, &data).expect("the folder is ours");
        assert_eq!(read_npy(&path).expect("just written"), NpyArray { shape: shape.to_vec(), data });
    }
    assert_eq!(std::fs::read_dir(&folder).expect("ours").count(), 1, "only the file itself is left");
    std::fs::remove_dir_all(folder).expect("ours");
}

/// The bytes of `np.save` for `np.zeros((2, 3), '<f4')` and `np.zeros(5, '<f4')`.
#[test]
fn writes_the_bytes_that_numpy_writes() {
    let folder = folder("bytes");
    for (shape, text) in [(&[2, 3][..], "(2, 3)"), (&[5], "(5,)"), (&[], "()")] {
        let path = folder.join("a.npy");
        let count: usize = shape.iter().product();
        write_npy(&path, shape, &vec![0.0; count]).expect("the folder is ours");
        let head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}");
        let expected = file(1, &format!("{head:<117}\n"), &vec![0; count * 4]);
        assert_eq!(std::fs::read(&path).expect("just written"), expected);
    }
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn reads_all_versions_and_doubles() {
    let values: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    for version in 1..=3 {
        let array = read(&file(version, &header("<f4", "False", "(2,)"), &values)).expect("good");
        assert_eq!((array.shape, array.data), (vec![2], vec![1.5, -2.0]));
    }
    let doubles: Vec<u8> = [0.1_f64, 1e300].iter().flat_map(|value| value.to_le_bytes()).collect();
    let array = read(&file(1, &header("<f8", "False", "(1, 2)"), &doubles)).expect("good");
    assert_eq!(array.data, [0.1, f32::INFINITY]);
}

#[test]
fn refuses_what_it_cannot_read() {
    let kind = |bytes: &[u8]| read(bytes).expect_err("not readable");
    assert!(matches!(kind(b""), DataErrorKind::Empty));
    assert!(matches!(kind(b"PK\x03\x04 an .npz file"), DataErrorKind::NotNpy));
    assert!(matches!(kind(&file(9, "", b"")), DataErrorKind::NpyHeader(_)));
    assert!(matches!(kind(&file(1, "{}", b"")), DataErrorKind::NpyHeader(_)));
    let big_endian = file(1, &header(">f4", "False", "(1,)"), &[0; 4]);
    assert!(matches!(kind(&big_endian), DataErrorKind::NpyDtype(dtype) if dtype == ">f4"));
    let fortran = file(1, &header("<f4", "True", "(2, 2)"), &[0; 16]);
    assert!(matches!(kind(&fortran), DataErrorKind::NpyFortranOrder));
    let record = file(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4]);
    assert!(matches!(kind(&record), DataErrorKind::NpyDtype(_)));
}

/// Terabytes promised, a few bytes there: an error, and no memory taken for the promise.
#[test]
fn a_lying_header_costs_nothing() {
    let short = file(1, &header("<f4", "False", "(1000000, 1000000)"), &[0; 10]);
    let expected = 1_000_000_000_000;
    let kind = read(&short).expect_err("truncated");
    assert!(matches!(kind, DataErrorKind::NpyTruncated { expected: e, found: 2 } if e == expected), "{kind}");
    let overflow = file(1, &header("<f4", "False", "(9999999999, 9999999999, 9)"), &[0; 10]);
    assert!(matches!(read(&overflow), Err(DataErrorKind::NpyHeader(_))));
    let long_header = file(2, &" ".repeat(100_000), b"");
    assert!(matches!(read(&long_header), Err(DataErrorKind::NpyHeader(_))));
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = folder("failures");
    let path = folder.join("kept.npy");
    write_npy(&path, &[1], &[7.0]).expect("the folder is ours");
    let wrong = write_npy(&path, &[2, 2], &[1.0]).expect_err("the shape does not fit");
    assert_eq!(wrong.to_string(), format!("{}: shape [2, 2] does not hold 1 values", path.display()));
    assert_eq!(read_npy(&path).expect("untouched").data, [7.0]);
    assert!(matches!(write_npy(&folder, &[1], &[1.0]).map_err(|e| e.kind), Err(DataErrorKind::IsDirectory)));
    let nowhere = write_npy(folder.join("no/such/a.npy"), &[1], &[1.0]);
    assert!(matches!(nowhere.map_err(|error| error.kind), Err(DataErrorKind::NotFound)));
    assert_eq!(std::fs::read_dir(&folder).expect("ours").count(), 1);
    std::fs::remove_dir_all(folder).expect("ours");
}
