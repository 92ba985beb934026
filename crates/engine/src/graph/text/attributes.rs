//! An operator's attributes as text. `parse.rs` reads what this writes.

use crate::Activation;
use crate::graph::{Conv2d, Drop, Op, Padding, Unary, Window};
use std::fmt::Display;

/// The attributes that differ from their usual value, `("stride", "2")`; the second is empty for a flag.
pub(in crate::graph) fn attributes(op: &Op) -> Vec<(&'static str, String)> {
    let mut list = List::default();
    match op {
        Op::Conv2d(Conv2d { stride, padding, dilation, groups, bias: _, residual: _, activation, pool }) => {
            list.sizes("stride", stride, Some(1));
            list.padding(*padding);
            list.sizes("dilation", dilation, Some(1));
            list.unless("groups", groups, &1);
            list.activation(*activation);
            pool.iter().for_each(|radix| list.always("pool", radix));
        }
        Op::Linear { bias: _, activation } => list.activation(*activation),
        Op::ActivatedNorm { epsilon, slope } => {
            list.unless("epsilon", epsilon, &1e-5);
            list.unless("slope", slope, &1.0);
        }
        Op::Unary(unary) => match *unary {
            Unary::Activation(Activation::LeakyRelu(slope)) => list.always("slope", slope),
            Unary::Activation(_) | Unary::Neg | Unary::Exp | Unary::Sqrt | Unary::Recip => {}
            Unary::AddScalar(scalar) | Unary::MulScalar(scalar) => list.always("scalar", scalar),
            Unary::Clamp(low, high) => {
                list.always("low", low);
                list.always("high", high);
            }
        },
        Op::MaxPool(window) => list.window(window),
        Op::AvgPool { window, count_padding } => {
            list.window(window);
            list.flag("count_padding", *count_padding);
        }
        Op::Reshape { shape } => list.always("shape", sizes(shape)),
        Op::Permute { order } => list.always("order", sizes(order)),
        Op::SliceChannels { start, end } => {
            list.always("start", start);
            list.always("end", end);
        }
        Op::Pad(padding) => list.padding(*padding),
        Op::RadixPool { radix } => list.always("radix", radix),
        Op::SplitAttention { radix, cardinality, activation } => {
            list.always("radix", radix);
            list.unless("cardinality", cardinality, &1);
            list.activation(*activation);
        }
        Op::Gate { hard, residual: _, activation } => {
            list.flag("hard", *hard);
            list.activation(*activation);
        }
        Op::SpaceToDepth { block } => list.always("block", block),
        Op::Drop { what, rate } => {
            match what {
                Drop::Elements => {}
                Drop::Images => list.flag("images", true),
                Drop::Squares { side } => list.always("squares", side),
            }
            list.always("rate", rate);
        }
        Op::Binary(_) | Op::GlobalAvgPool | Op::Softmax | Op::Concat | Op::BlurPool => {}
    }
    list.0
}

/// `[1, 2]`.
pub(super) fn sizes(sizes: &[usize]) -> String {
    format!("{sizes:?}")
}

#[derive(Default)]
struct List(Vec<(&'static str, String)>);

impl List {
    fn always(&mut self, key: &'static str, value: impl Display) {
        self.0.push((key, value.to_string()));
    }

    fn unless<T: Display + PartialEq>(&mut self, key: &'static str, value: &T, usual: &T) {
        if value != usual {
            self.always(key, value);
        }
    }

    fn flag(&mut self, key: &'static str, set: bool) {
        if set {
            self.always(key, "");
        }
    }

    fn sizes(&mut self, key: &'static str, list: &[usize], usual: Option<usize>) {
        match list {
            [first, rest @ ..] if rest.iter().all(|size| size == first) => {
                if Some(*first) != usual {
                    self.always(key, first);
                }
            }
            _ => self.always(key, sizes(list)),
        }
    }

    fn padding(&mut self, padding: Padding) {
        self.sizes("padding", &padding, Some(0));
    }

    fn window(&mut self, window: &Window) {
        let Window { kernel, stride, padding, dilation, ceil } = window;
        self.sizes("kernel", kernel, None);
        self.sizes("stride", stride, Some(1));
        self.padding(*padding);
        self.sizes("dilation", dilation, Some(1));
        self.flag("ceil", *ceil);
    }

    fn activation(&mut self, activation: Activation) {
        match activation {
            Activation::Identity => {}
            Activation::LeakyRelu(slope) => self.always("activation", format!("leaky_relu({slope})")),
            _ => self.always("activation", activation.name()),
        }
    }
}
