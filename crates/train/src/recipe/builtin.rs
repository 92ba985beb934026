//! The recipes that are part of the binary: the files of `recipes/`.

/// A recipe by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Its name: the file's, without `.toml`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

impl Builtin {
    /// The file's first line: what the recipe is for.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("../../../../recipes/", $name, ".toml")) }),*]
    };
}

/// All of them.
pub const BUILTIN: &[Builtin] = builtin![
    "digits",
    "resnest",
    "resnest-standard",
    "tresnet",
    "tresnet-finetune-448",
    "transfer",
    "fine-grained",
    "multi-label",
];
