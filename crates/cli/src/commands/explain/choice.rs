//! What to explain: which class, and which feature map.

use crate::exit::Usage;
use cardinal_models::Backbone;
use cardinal_models::explain::Layer;

/// The class that `text` names: a number, a whole name, or one of a name's synonyms, in any case.
///
/// # Errors
///
/// No class is called that; the error has the nearest names. Or several are.
pub(super) fn class(text: &str, names: &[String]) -> anyhow::Result<usize> {
    if let Ok(index) = text.parse::<usize>() {
        if index < names.len() {
            return Ok(index);
        }
        let last = names.len() - 1;
        return Err(Usage(format!("--class {index}: the network's classes are 0 to {last}")).into());
    }
    let wanted = text.trim().to_lowercase();
    let whole = |name: &str| name.to_lowercase() == wanted;
    let synonym = |name: &str| name.to_lowercase().split(", ").any(|part| part == wanted);
    let found = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|&index| fits(&names[index])).collect()
    };
    let exact = found(&whole);
    let candidates = if exact.is_empty() { found(&synonym) } else { exact };
    match candidates[..] {
        [class] => Ok(class),
        [] => {
            Err(Usage(format!("--class '{text}': no class is called that{}", nearest(&wanted, names))).into())
        }
        _ => {
            let numbers: Vec<_> =
                candidates.iter().map(|index| format!("{index} ({})", names[*index])).collect();
            let text = format!("--class '{text}' is the name of {}; give the number", numbers.join(" and "));
            Err(Usage(text).into())
        }
    }
}

/// `; did you mean …?` with up to three names, each by its synonym that is most alike.
fn nearest(wanted: &str, names: &[String]) -> String {
    let mut scored: Vec<(f64, &str)> = names
        .iter()
        .flat_map(|name| name.split(", "))
        .map(|part| (strsim::jaro_winkler(wanted, &part.to_lowercase()), part))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    let names: Vec<_> = scored.iter().take(3).map(|(_, name)| format!("'{name}'")).collect();
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(", ")) }
}

/// What the last map is called on the command line.
pub(super) const LAST: &str = "last";

/// The feature map that `text` names: `last`, a stage's module path, or the path's last part.
///
/// # Errors
///
/// The network has no such stage; the error has those that it has.
pub(super) fn layer(text: &str, model: &impl Backbone) -> anyhow::Result<Layer> {
    if text == LAST {
        return Ok(Layer::Last);
    }
    let names = model.feature_names();
    let fits = |name: &String| name == text || name.rsplit('.').next() == Some(text);
    match names.iter().position(fits) {
        Some(stage) => Ok(Layer::Stage(stage)),
        None => {
            let text = format!("--layer {text}: the network's layers are {} and {LAST}", names.join(", "));
            Err(Usage(text).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["tabby, tabby cat", "crane", "Crane", "lynx, catamount"].map(String::from).into()
    }

    #[test]
    fn classes_are_numbers_names_and_synonyms() {
        assert_eq!(class("3", &names()).unwrap(), 3);
        assert_eq!(class("Tabby Cat", &names()).unwrap(), 0);
        assert_eq!(class("lynx, catamount", &names()).unwrap(), 3);
        assert_eq!(class("catamount", &names()).unwrap(), 3);
    }

    #[test]
    fn unclear_classes_are_refused() {
        let error = |text| class(text, &names()).unwrap_err().to_string();
        assert_eq!(error("4"), "--class 4: the network's classes are 0 to 3");
        assert_eq!(error("crane"), "--class 'crane' is the name of 1 (crane) and 2 (Crane); give the number");
        assert!(error("tabbi").ends_with("no class is called that; did you mean 'tabby', 'tabby cat'?"));
        assert_eq!(error("zzz"), "--class 'zzz': no class is called that");
    }
}
