//! How many cases the property tests try.

use proptest::prelude::ProptestConfig;

/// So many cases, or as many as the environment variable `PROPTEST_CASES` says: an emulator has time for a few.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    // The default follows the variable.
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked { default.cases } else { count }, ..default }
}
