//! A parameter's name: the path of fields that leads to it, spelled as timm spells it.
//!
//! Modules are written so that their fields are the checkpoint's keys. Four things are not:
//! - an enum's variant and the fields `net` (of the model) and `residual` (of a block) add nothing to a name;
//! - the blocks `b[0]`, `b[1]`, ... of a RegNet's stage are called `b1`, `b2`, ...;
//! - the classifier `head.fc` is `fc` in the ResNets and `classifier` in the mobile networks.

/// The stack of fields that a module visitor has entered.
#[derive(Debug, Default)]
pub(super) struct Path {
    segments: Vec<(String, String)>,
}

impl Path {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.segments.push((name.into(), container.into()));
    }

    pub(super) fn exit(&mut self) {
        self.segments.pop();
    }

    /// The parameter's name in a checkpoint.
    pub(super) fn name(&self) -> String {
        let mut parts: Vec<String> = Vec::with_capacity(self.segments.len());
        let mut in_regnet_stage = false;
        for (segment, container) in &self.segments {
            if container.starts_with("Enum:") || segment == "net" || segment == "residual" {
                continue;
            }
            match segment.parse::<usize>() {
                Ok(index) if in_regnet_stage => parts.push(format!("b{}", index + 1)),
                _ if segment == "b" => {}
                _ => parts.push(segment.clone()),
            }
            in_regnet_stage = segment == "b";
        }
        let name = parts.join(".");
        match name.strip_prefix("head.fc") {
            Some(rest) => format!("{}{rest}", self.classifier()),
            None => name,
        }
    }

    fn classifier(&self) -> &'static str {
        let within =
            |container: &str| self.segments.iter().any(|(_, c)| c.strip_prefix("Struct:") == Some(container));
        if within("ResNet") {
            "fc"
        } else if within("EfficientNet") || within("FbNet") {
            "classifier"
        } else {
            "head.fc"
        }
    }
}
