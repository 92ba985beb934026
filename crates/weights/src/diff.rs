//! How a file and a model differ, so that weights are loaded whole or not at all.

use crate::tensor::NamedTensors;
use std::collections::HashSet;
use std::fmt;

/// A tensor that is there, in another shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// The file's shape.
    pub found: Vec<usize>,
}

/// The outcome of [`compare`]; it prints as counts and the first few names of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Names on both sides, with one shape.
    pub matched: Vec<String>,
    /// Names that the model has and the file lacks.
    pub missing: Vec<String>,
    /// Names that the file has and the model lacks.
    pub unexpected: Vec<String>,
    /// Names on both sides, with two shapes.
    pub mismatched: Vec<Mismatch>,
}

impl Comparison {
    /// Whether everything matches, on both sides.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// Whether the differences are only in tensors whose name begins with one of `prefixes`: what is left
    /// after a classifier was replaced, for one.
    pub fn differs_only_in(&self, prefixes: &[&str]) -> bool {
        let mismatched = self.mismatched.iter().map(|m| &m.name);
        let mut names = self.missing.iter().chain(&self.unexpected).chain(mismatched);
        names.all(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

/// Compares the names and shapes that a model expects with those of a file.
pub fn compare(expected: &[(String, Vec<usize>)], got: &NamedTensors) -> Comparison {
    let mut result = Comparison::default();
    for (name, shape) in expected {
        match got.get(name) {
            None => result.missing.push(name.clone()),
            Some(tensor) if tensor.shape() == shape => result.matched.push(name.clone()),
            Some(tensor) => {
                let (expected, found) = (shape.clone(), tensor.shape().to_vec());
                result.mismatched.push(Mismatch { name: name.clone(), expected, found });
            }
        }
    }
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    result.unexpected = got.names().filter(|name| !known.contains(name)).map(str::to_owned).collect();
    result
}

/// How many names of a kind are printed.
const SHOWN: usize = 4;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [self.matched.len(), self.missing.len(), self.unexpected.len(), self.mismatched.len()];
        let [matched, missing, unexpected, mismatched] = counts;
        write!(
            f,
            "{matched} matched, {missing} missing, {unexpected} unexpected, {mismatched} of another shape"
        )?;
        let shapes = |m: &Mismatch| format!("{} {:?} (the model has {:?})", m.name, m.found, m.expected);
        let differing: Vec<String> = self.mismatched.iter().take(SHOWN).map(shapes).collect();
        list(f, "missing from the file", &self.missing, missing)?;
        list(f, "unknown to the model", &self.unexpected, unexpected)?;
        list(f, "of another shape", &differing, mismatched)
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, names: &[String], count: usize) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.len().min(SHOWN);
    write!(f, "\n  {title}: {}", names[..shown].join(", "))?;
    if count > shown { write!(f, ", and {} more", count - shown) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    fn file() -> NamedTensors {
        let tensor = |n: usize| Tensor::from_f32(vec![n], &vec![0.0; n]).unwrap();
        [("a", tensor(1)), ("b", tensor(2)), ("fc.x", tensor(3))].into_iter().collect()
    }

    #[test]
    fn each_kind_of_difference_is_listed() {
        let model: Vec<_> =
            [("a", 1), ("b", 5), ("c", 1)].map(|(name, n)| (name.to_owned(), vec![n])).to_vec();
        let found = compare(&model, &file());
        assert!(!found.is_exact());
        assert_eq!(
            found.to_string(),
            "1 matched, 1 missing, 1 unexpected, 1 of another shape\n  missing from the file: c\n  \
             unknown to the model: fc.x\n  of another shape: b [2] (the model has [5])"
        );
        assert!(found.differs_only_in(&["b", "c", "fc."]));
        assert!(!found.differs_only_in(&["fc."]));
    }

    #[test]
    fn a_file_compared_with_itself_is_exact_and_short_to_print() {
        let found = compare(&file().shapes(), &file());
        assert!(found.is_exact());
        assert_eq!(found.to_string(), "3 matched, 0 missing, 0 unexpected, 0 of another shape");
    }

    #[test]
    fn long_lists_are_cut() {
        let model: Vec<_> = (0..9).map(|i| (format!("x{i}"), vec![1])).collect();
        let text = compare(&model, &NamedTensors::new()).to_string();
        assert!(text.ends_with("missing from the file: x0, x1, x2, x3, and 5 more"), "{text}");
    }
}
