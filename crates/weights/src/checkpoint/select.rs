//! Which dict of a training checkpoint is the model.
//!
//! Training scripts save a dict of things, one of which is the state dict. Its key is looked for under the
//! names in use; failing those, the only entry with tensors in it is taken, and a choice between several is
//! left to the caller.

use super::{CheckpointInfo, ReadOptions};
use crate::error::{Result, WeightsErrorKind, damaged, unsupported};
use crate::torch::{Pickle, TensorRef, Value};
use std::collections::HashSet;

const PLAIN_KEYS: [&str; 8] =
    ["state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "params"];
const EMA_KEYS: [&str; 6] =
    ["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema"];

/// Wrappers may nest (`{"ema": {"module": {...}}}`), but not without end.
const MAX_WRAPPERS: usize = 4;
/// Children of a saved module may nest; the deepest networks need about 10 levels.
const MAX_MODULES: usize = 32;
/// A dict may appear in many places, so what is listed is bounded apart from the size of the pickle.
const MAX_TENSORS: usize = 1 << 16;
const MAX_VISITS: usize = 1 << 20;
const MAX_NAME: usize = 512;
const MAX_IGNORED: usize = 100;

/// The chosen state dict.
pub(super) struct Found {
    pub(super) dict: Value,
    pub(super) path: Vec<String>,
    pub(super) is_ema: bool,
}

pub(super) fn find(pickle: &Pickle, options: &ReadOptions) -> Result<Found> {
    let mut found = Found { dict: pickle.root, path: Vec::new(), is_ema: false };
    if let Some(key) = &options.key {
        let Some(dict) = pickle.get(pickle.root, key) else {
            let text = format!("there is no '{key}' at its top; {}", describe(pickle, pickle.root));
            return Err(WeightsErrorKind::NoStateDict(text));
        };
        found = Found { dict, path: vec![key.clone()], is_ema: EMA_KEYS.contains(&key.as_str()) };
    }
    while found.path.len() < MAX_WRAPPERS {
        let Some((key, dict)) = unwrap(pickle, found.dict, options.ema) else { break };
        found.is_ema |= EMA_KEYS.contains(&key.as_str());
        found.path.push(key);
        found.dict = dict;
    }
    if has_tensors(pickle, found.dict) {
        return Ok(found);
    }
    let what = describe(pickle, found.dict);
    Err(WeightsErrorKind::NoStateDict(format!("no tensors under a key that is known; {what}")))
}

/// The entry of a wrapper that leads on to the state dict, or `None` where `dict` is one itself.
fn unwrap(pickle: &Pickle, dict: Value, ema: bool) -> Option<(String, Value)> {
    if pickle.module_tables(dict).is_some() {
        return None;
    }
    let by_name = |keys: &'static [&'static str]| {
        let mut entries = keys.iter().filter_map(|key| Some((*key, pickle.get(dict, key)?)));
        entries.find(|(_, value)| leads_to_tensors(pickle, *value))
    };
    let named = if ema {
        by_name(&EMA_KEYS).or_else(|| by_name(&PLAIN_KEYS))
    } else {
        by_name(&PLAIN_KEYS).or_else(|| by_name(&EMA_KEYS))
    };
    if let Some((key, value)) = named {
        return Some((key.to_owned(), value));
    }
    if has_tensors(pickle, dict) {
        return None;
    }
    let mut others = pickle.entries(dict)?.iter().filter(|(_, value)| has_tensors(pickle, *value));
    match (others.next(), others.next()) {
        (Some((key, value)), None) => Some((pickle.text(*key)?.to_owned(), *value)),
        _ => None,
    }
}

/// Whether `value` is a module or a dict with a tensor directly in it.
fn has_tensors(pickle: &Pickle, value: Value) -> bool {
    pickle.module_tables(value).is_some()
        || pickle.entries(value).is_some_and(|list| list.iter().any(|(_, v)| pickle.tensor(*v).is_some()))
}

fn leads_to_tensors(pickle: &Pickle, value: Value) -> bool {
    let inner = |value: Value| {
        let mut keys = PLAIN_KEYS.iter().chain(&EMA_KEYS);
        keys.any(|key| pickle.get(value, key).is_some_and(|v| has_tensors(pickle, v)))
    };
    has_tensors(pickle, value) || inner(value)
}

/// Lists a dict's keys for an error message.
fn describe(pickle: &Pickle, value: Value) -> String {
    let Some(entries) = pickle.entries(value) else {
        return format!("the file holds a {}", pickle.kind(value));
    };
    let mut seen = HashSet::new();
    let keys = entries.iter().filter_map(|(key, _)| pickle.text(*key)).filter(|key| seen.insert(*key));
    let keys: Vec<String> = keys.take(12).map(|key| key.chars().take(40).collect()).collect();
    format!("its keys are {}; name the one that holds the weights", keys.join(", "))
}

/// The entries of a state dict.
#[derive(Default)]
pub(super) struct Listing<'a> {
    pub(super) tensors: Vec<(String, &'a TensorRef)>,
    pub(super) ignored: Vec<(String, String)>,
    visits: usize,
}

/// Lists a state dict's tensors; those of a saved module are listed as its `state_dict()` would name them.
pub(super) fn list(pickle: &Pickle, dict: Value) -> Result<Listing<'_>> {
    let mut listing = Listing::default();
    listing.walk(pickle, dict, "", 0)?;
    Ok(listing)
}

impl<'a> Listing<'a> {
    fn walk(&mut self, pickle: &'a Pickle, value: Value, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_MODULES {
            return damaged("its modules are nested without end");
        }
        let Some([parameters, buffers, modules]) = pickle.module_tables(value) else {
            return self.dict(pickle, value, prefix);
        };
        self.dict(pickle, parameters, prefix)?;
        self.dict(pickle, buffers, prefix)?;
        for (key, child) in pickle.entries(modules).unwrap_or_default() {
            if let Some(key) = pickle.text(*key) {
                let prefix = format!("{}.", name(prefix, key)?);
                self.count()?;
                self.walk(pickle, *child, &prefix, depth + 1)?;
            }
        }
        Ok(())
    }

    fn dict(&mut self, pickle: &'a Pickle, dict: Value, prefix: &str) -> Result<()> {
        for (key, value) in pickle.entries(dict).unwrap_or_default() {
            self.count()?;
            let key = pickle.text(*key).unwrap_or("(a key that is no text)");
            if let Some(tensor) = pickle.tensor(*value) {
                self.tensors.push((name(prefix, key)?, tensor));
            } else if *value != Value::None && self.ignored.len() < MAX_IGNORED {
                self.ignored.push((name(prefix, key)?, pickle.kind(*value).to_owned()));
            }
        }
        if self.tensors.len() > MAX_TENSORS {
            return unsupported(format!("its state dict has over {MAX_TENSORS} tensors"));
        }
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return damaged("its modules repeat without end");
        }
        Ok(())
    }
}

fn name(prefix: &str, key: &str) -> Result<String> {
    if prefix.len() + key.len() <= MAX_NAME {
        return Ok(format!("{prefix}{key}"));
    }
    damaged(format!("a tensor's name has over {MAX_NAME} bytes"))
}

/// Notes what training scripts save beside the weights.
pub(super) fn side_facts(pickle: &Pickle, info: &mut CheckpointInfo) {
    let top = |key: &str| pickle.get(pickle.root, key);
    let number = |value: Option<Value>| value.and_then(|v| pickle.int(v)).and_then(|n| u64::try_from(n).ok());
    let argument = |name: &str| top("args").and_then(|args| pickle.attribute(args, name));
    let text =
        |value: Option<Value>| value.and_then(|v| pickle.text(v)).filter(|text| text.len() <= MAX_NAME);
    info.arch = text(top("arch")).or_else(|| text(argument("model"))).map(str::to_owned);
    info.num_classes = number(top("num_classes").or_else(|| argument("num_classes")));
    info.epoch = number(top("epoch"));
    info.classes = top("idx_to_class").and_then(|value| class_names(pickle, value));
}

/// `{0: "tench", 1: ...}` or `["tench", ...]`; `None` unless every index from 0 on has a name.
fn class_names(pickle: &Pickle, value: Value) -> Option<Vec<String>> {
    let owned = |value: Value| pickle.text(value).filter(|text| text.len() <= MAX_NAME).map(str::to_owned);
    if let Some(items) = pickle.sequence(value) {
        return items.iter().take(MAX_TENSORS + 1).map(|item| owned(*item)).collect();
    }
    let entries = pickle.entries(value)?;
    if entries.len() > MAX_TENSORS {
        return None;
    }
    let mut names = vec![None; entries.len()];
    for (key, value) in entries {
        let index = pickle.int(*key).or_else(|| pickle.text(*key)?.parse().ok())?;
        *names.get_mut(usize::try_from(index).ok()?)? = Some(owned(*value)?);
    }
    names.into_iter().collect()
}
