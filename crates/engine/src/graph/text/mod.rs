//! Graphs as text, one node per line, for tests, diffs and the metadata of the portable file.
//!
//! ```text
//! graph tiny batch=free
//! input %x [1, 3, 32, 32]
//! const @conv1.weight [8, 3, 3, 3]
//! const @conv1.bias [8] = 0.5
//! %0 = conv2d(%x, @conv1.weight, bias=@conv1.bias) stride=2 padding=1 activation=relu  # conv1 -> [1, 8, 16, 16]
//! output %0
//! ```
//!
//! - `%` marks inputs and results, `@` constants. Digits are places, anything else is the value's name; names with
//!   other characters than letters, digits and `_.-/:` stand in quotes, as Rust writes strings.
//! - Attributes with their usual value are left out. One number stands for equal numbers on all sides or axes.
//! - The comment of a node is its module path and the sizes of its results. Both may be missing; sizes are checked.
//! - A constant without numbers is given reproducible ones that follow from its name and shape. `= 0.5` fills it,
//!   `= [1, 2]` lists it. Numbers of up to 16 elements are printed unless they are the reproducible ones; of longer
//!   constants only fills are.

mod attributes;
mod cursor;
mod operation;
mod parse;
mod print;
mod sample;

use super::{Graph, ValueId};
use crate::EngineError;
use std::sync::Arc;

pub(super) use attributes::attributes;

/// Where the numbers of a constant are, for [`Graph::parse_with`]: its name, shape and, if the text has one, its key.
pub(super) type Lookup<'a> = dyn FnMut(&str, &[usize], Option<&str>) -> Result<Arc<[f32]>, String> + 'a;

impl Graph {
    /// The text form; see the module's description in the source. [`Graph::parse`] reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        print::print(self, &|id| print::numbers(&self[id]))
    }

    /// [`Graph::to_text`] for a file that holds the constants elsewhere, each under `key`.
    pub(super) fn to_text_with(&self, key: &dyn Fn(ValueId) -> String) -> String {
        print::print(self, &|id| format!(" from {}", print::quoted(&key(id))))
    }

    /// Reads the text form. The header line and comments are optional.
    ///
    /// # Errors
    ///
    /// With the line and what was expected there. The graph is not verified: see [`Graph::verify`].
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        parse::parse(text, None)
    }

    /// [`Graph::parse`] for a text whose constants are elsewhere.
    pub(super) fn parse_with(text: &str, lookup: &mut Lookup<'_>) -> Result<Self, EngineError> {
        parse::parse(text, Some(lookup))
    }
}

impl std::fmt::Display for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Whether a name can stand in a text without quotes.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain_char) && !name.bytes().all(|b| b.is_ascii_digit())
}

fn is_plain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-/:".contains(c)
}
