//! Reads operators and their attributes. `attributes.rs` writes what this reads.

use super::cursor::{Cursor, Result};
use crate::Activation;
use crate::graph::{Binary, Conv2d, Drop, Op, Padding, Unary, ValueId, Window};

/// More than any operator has, so that a hostile line takes no long time.
const MAX_ATTRIBUTES: usize = 16;

/// What stands before an input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    None,
    Bias,
    Residual,
}

/// An input of a node.
pub(super) struct Argument {
    pub(super) label: Label,
    pub(super) value: ValueId,
}

/// The attributes of a node that are not yet used.
pub(super) struct Attributes<'a>(Vec<(&'a str, Raw)>);

enum Raw {
    Flag,
    Sizes(Vec<usize>),
    Number(String),
    Activation(Activation),
}

impl<'a> Attributes<'a> {
    pub(super) fn read(line: &mut Cursor<'a>) -> Result<Self> {
        let mut list: Vec<(&str, Raw)> = Vec::new();
        while !line.is_at_end() && !line.next_is("#") {
            let key = line.word("an attribute")?;
            if list.len() == MAX_ATTRIBUTES {
                return Err(format!("a node has more than {MAX_ATTRIBUTES} attributes"));
            }
            if list.iter().any(|(other, _)| *other == key) {
                return Err(format!("`{key}` is given twice"));
            }
            let raw = match () {
                () if !line.eat("=") => Raw::Flag,
                () if line.next_is("[") => Raw::Sizes(line.sizes()?),
                () if key == "activation" => Raw::Activation(read_activation(line)?),
                () => Raw::Number(line.number("a number")?),
            };
            list.push((key, raw));
        }
        Ok(Self(list))
    }

    fn take(&mut self, key: &str) -> Option<Raw> {
        let index = self.0.iter().position(|(other, _)| *other == key)?;
        Some(self.0.remove(index).1)
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(Raw::Flag) => Ok(true),
            Some(_) => Err(format!("`{key}` takes no value")),
        }
    }

    fn size(&mut self, key: &str) -> Result<Option<usize>> {
        match self.take(key) {
            None => Ok(None),
            Some(Raw::Number(text)) => {
                text.parse().map(Some).map_err(|_| format!("`{key}={text}` is no whole number"))
            }
            Some(_) => Err(format!("`{key}` takes a whole number")),
        }
    }

    fn needed(&mut self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    fn list(&mut self, key: &str) -> Result<Vec<usize>> {
        match self.take(key) {
            Some(Raw::Sizes(sizes)) => Ok(sizes),
            Some(_) => Err(format!("`{key}` takes sizes in brackets")),
            None => Err(format!("`{key}` is missing")),
        }
    }

    /// One size for all, or one for each.
    fn sizes<const N: usize>(&mut self, key: &str, usual: Option<usize>) -> Result<[usize; N]> {
        if let Some((_, Raw::Sizes(_))) = self.0.iter().find(|(other, _)| *other == key) {
            let list = self.list(key)?;
            return list.try_into().map_err(|_| format!("`{key}` takes {N} sizes"));
        }
        let size = self.size(key)?.or(usual).ok_or_else(|| format!("`{key}` is missing"))?;
        Ok([size; N])
    }

    fn padding(&mut self) -> Result<Padding> {
        self.sizes("padding", Some(0))
    }

    fn float(&mut self, key: &str, usual: Option<f32>) -> Result<f32> {
        match self.take(key) {
            Some(Raw::Number(text)) => text.parse().map_err(|_| format!("`{key}={text}` is no number")),
            Some(_) => Err(format!("`{key}` takes a number")),
            None => usual.ok_or_else(|| format!("`{key}` is missing")),
        }
    }

    fn activation(&mut self) -> Result<Activation> {
        match self.take("activation") {
            None => Ok(Activation::Identity),
            Some(Raw::Activation(activation)) => Ok(activation),
            Some(_) => Err("`activation` takes a function's name".into()),
        }
    }

    fn window(&mut self) -> Result<Window> {
        Ok(Window {
            kernel: self.sizes("kernel", None)?,
            stride: self.sizes("stride", Some(1))?,
            padding: self.padding()?,
            dilation: self.sizes("dilation", Some(1))?,
            ceil: self.flag("ceil")?,
        })
    }

    pub(super) fn finish(self, operator: &str) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{operator} has no attribute `{key}`")),
        }
    }
}

/// `relu` or `leaky_relu(0.01)`.
fn read_activation(line: &mut Cursor<'_>) -> Result<Activation> {
    let name = line.word("an activation")?;
    if name == "leaky_relu" {
        line.expect("(")?;
        let slope = line.number("a slope")?;
        line.expect(")")?;
        return Ok(Activation::LeakyRelu(slope));
    }
    activation(name).ok_or_else(|| format!("there is no activation `{name}`"))
}

/// Activations without parameters.
fn activation(name: &str) -> Option<Activation> {
    use Activation::{HardSigmoid, HardSwish, Identity, Relu, Relu6, Sigmoid, Silu};
    [Identity, Relu, Relu6, Sigmoid, Silu, HardSigmoid, HardSwish].into_iter().find(|a| a.name() == name)
}

/// The operator `name` with these inputs and attributes.
pub(super) fn operation(name: &str, arguments: &[Argument], attributes: &mut Attributes<'_>) -> Result<Op> {
    let labels = labelled(name, arguments);
    let [bias, residual] = labels.clone().unwrap_or_default();
    let a = attributes;
    let op = match name {
        "conv2d" => Op::Conv2d(Conv2d {
            stride: a.sizes("stride", Some(1))?,
            padding: a.padding()?,
            dilation: a.sizes("dilation", Some(1))?,
            groups: a.size("groups")?.unwrap_or(1),
            bias,
            residual,
            activation: a.activation()?,
            pool: a.size("pool")?,
        }),
        "linear" => Op::Linear { bias, activation: a.activation()? },
        "activated_norm" => Op::ActivatedNorm {
            epsilon: a.float("epsilon", Some(1e-5))?,
            slope: a.float("slope", Some(1.0))?,
        },
        "add" => Op::Binary(Binary::Add),
        "sub" => Op::Binary(Binary::Sub),
        "mul" => Op::Binary(Binary::Mul),
        "div" => Op::Binary(Binary::Div),
        "max_pool" => Op::MaxPool(a.window()?),
        "avg_pool" => Op::AvgPool { window: a.window()?, count_padding: a.flag("count_padding")? },
        "global_avg_pool" => Op::GlobalAvgPool,
        "softmax" => Op::Softmax,
        "reshape" => Op::Reshape { shape: a.list("shape")? },
        "permute" => Op::Permute { order: a.list("order")? },
        "concat" => Op::Concat,
        "slice_channels" => Op::SliceChannels { start: a.needed("start")?, end: a.needed("end")? },
        "pad" => Op::Pad(a.padding()?),
        "radix_pool" => Op::RadixPool { radix: a.needed("radix")? },
        "split_attention" => Op::SplitAttention {
            radix: a.needed("radix")?,
            cardinality: a.size("cardinality")?.unwrap_or(1),
            activation: a.activation()?,
        },
        "gate" => Op::Gate { hard: a.flag("hard")?, residual, activation: a.activation()? },
        "blur_pool" => Op::BlurPool,
        "space_to_depth" => Op::SpaceToDepth { block: a.needed("block")? },
        "drop" => Op::Drop {
            what: match (a.flag("images")?, a.size("squares")?) {
                (false, None) => Drop::Elements,
                (true, None) => Drop::Images,
                (false, Some(side)) => Drop::Squares { side },
                (true, Some(_)) => return Err("drop takes either `images` or `squares`".into()),
            },
            rate: a.float("rate", None)?,
        },
        _ => Op::Unary(unary(name, a)?),
    };
    // An operator that does not exist is the better message of the two.
    labels.map(|_| op)
}

fn unary(name: &str, a: &mut Attributes<'_>) -> Result<Unary> {
    Ok(match name {
        "neg" => Unary::Neg,
        "exp" => Unary::Exp,
        "sqrt" => Unary::Sqrt,
        "recip" => Unary::Recip,
        "add_scalar" => Unary::AddScalar(a.float("scalar", None)?),
        "mul_scalar" => Unary::MulScalar(a.float("scalar", None)?),
        "clamp" => Unary::Clamp(a.float("low", None)?, a.float("high", None)?),
        "leaky_relu" => Unary::Activation(Activation::LeakyRelu(a.float("slope", None)?)),
        _ => Unary::Activation(activation(name).ok_or_else(|| format!("there is no operator `{name}`"))?),
    })
}

/// Whether the bias and the residual are among the arguments, behind the others and in this order.
fn labelled(operator: &str, arguments: &[Argument]) -> Result<[bool; 2]> {
    let labels: Vec<_> = arguments.iter().map(|a| a.label).filter(|&label| label != Label::None).collect();
    let takes: &[Label] = match operator {
        "conv2d" => &[Label::Bias, Label::Residual],
        "linear" => &[Label::Bias],
        "gate" => &[Label::Residual],
        _ => &[],
    };
    let unlabelled = arguments.iter().take_while(|a| a.label == Label::None).count();
    let in_order = labels.iter().eq(takes.iter().filter(|label| labels.contains(label)));
    if !in_order || unlabelled + labels.len() != arguments.len() {
        return Err(format!("{operator} takes no such inputs: `bias=` comes first, then `residual=`"));
    }
    Ok([labels.contains(&Label::Bias), labels.contains(&Label::Residual)])
}
