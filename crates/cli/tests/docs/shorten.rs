//! Commands that take seconds in place of those that take hours.

/// Sides of images that every network can take.
const SIDE: &str = "64";

/// `cardinal`'s arguments, as they stand in the page, so that they end soon. What they exercise stays the same.
pub(crate) fn shorten(words: &mut Vec<String>) {
    let has = |words: &[String], flag: &str| words.iter().any(|word| word == flag);
    match words.get(1).map(String::as_str) {
        Some("train" | "finetune") if has(words, "--resume") => replace(words, "--epochs", "2"),
        Some("train") if !has(words, "--data") => set(words, "--epochs", "1"),
        Some("train" | "finetune") => {
            set(words, "--epochs", "1");
            set(words, "--warmup-epochs", "0");
            set(words, "--img-size", SIDE);
            if !words.iter().any(|word| word == "auto") {
                set(words, "--batch-size", "4");
            }
            replace(words, "--memory-limit", "700MiB");
        }
        Some("bench") => {
            set(words, "--size", SIDE);
            set(words, "--seconds", "0.05");
            replace(words, "--batch", "2");
            replace(words, "--memory-limit", "1500MiB");
            small(words);
        }
        Some("report") if has(words, "--run") => {
            set(words, "--seconds", "0.05");
            replace(words, "--batch", "2");
            replace(words, "--run", "'*fbnetv2_f1'");
        }
        Some("profile") => {
            set(words, "--size", SIDE);
            set(words, "--runs", "2");
            replace(words, "--batch", "2");
        }
        _ => {}
    }
}

/// A family's smallest networks in place of all of it.
fn small(words: &mut [String]) {
    for word in words {
        if word == "'resnest*'" {
            *word = "'resnest14*'".into();
        }
    }
}

/// Gives `flag` another value wherever it stands.
fn replace(words: &mut [String], flag: &str, value: &str) {
    let mut after = false;
    for word in words {
        if after {
            *word = value.to_owned();
        }
        after = word == flag;
    }
}

/// The same, and adds it where it is missing.
fn set(words: &mut Vec<String>, flag: &str, value: &str) {
    if words.iter().any(|word| word == flag) {
        replace(words, flag, value);
    } else {
        words.extend([flag.to_owned(), value.to_owned()]);
    }
}
