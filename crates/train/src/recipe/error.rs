//! What can be wrong with a recipe.

use std::io;

use thiserror::Error;

/// Why a recipe cannot be used; one line that names the recipe or the key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Neither a recipe's name nor a file.
    #[error("unknown recipe '{name}'{}; known are {known}, or give a .toml file", suggest(.nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The most similar name.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        #[source]
        error: io::Error,
    },
    /// Not TOML.
    #[error("{origin}: line {line}: {message}")]
    Syntax {
        /// The file or recipe.
        origin: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A table that no recipe has.
    #[error("{origin}: there is no table [{table}]{}; the tables are {known}", suggest(.nearest))]
    UnknownTable {
        /// The file, the recipe or `--set`.
        origin: String,
        /// The table.
        table: String,
        /// The most similar one.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
    /// A key that no recipe has.
    #[error("{origin}: unknown key '{key}'{}; docs/recipes.md lists all", suggest(.nearest))]
    UnknownKey {
        /// The file, the recipe or `--set`.
        origin: String,
        /// The key.
        key: String,
        /// The most similar one.
        nearest: Option<String>,
    },
    /// A value of another type, or a name that is none of the known ones.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// The file, the recipe or `--set`.
        origin: String,
        /// The key.
        key: String,
        /// What was expected.
        message: String,
    },
    /// A value out of range, or one that contradicts another.
    #[error("recipe: {key} {message}")]
    Invalid {
        /// The key.
        key: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}
