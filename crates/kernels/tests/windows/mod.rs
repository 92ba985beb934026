//! Random convolutions and their definition, for the tests of gradients.
#![allow(dead_code, reason = "each test file uses its part")]

use cardinal_kernels::{Activation, ConvSpec, Element, Halo, Map};
use proptest::prelude::*;

/// Small numbers with a repeatable pattern.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn vec<T: Element>(&mut self, len: usize) -> Vec<T> {
        let next = |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            T::from_f32((self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..len).map(next).collect()
    }
}

/// A convolution whose output has this size, with the input and halo that it needs; channels are groups, inputs and
/// outputs of each.
pub(crate) fn spec(
    [oh, ow]: [usize; 2],
    [groups, ci, co]: [usize; 3],
    (kernel, stride, dilation): ([usize; 2], [usize; 2], [usize; 2]),
    padding: [usize; 2],
    extra: usize,
) -> ConvSpec {
    let reach =
        |axis: usize, size: usize| (size - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
    // The windows cover the padding above, the map, and what the halo must have below.
    let (h, w) = (
        reach(0, oh).saturating_sub(2 * padding[0]).max(1),
        reach(1, ow).saturating_sub(2 * padding[1]).max(1),
    );
    let halo = Halo {
        top: padding[0] + extra,
        left: padding[1],
        bottom: reach(0, oh).saturating_sub(padding[0] + h) + extra,
        right: reach(1, ow).saturating_sub(padding[1] + w),
    };
    ConvSpec {
        input: Map::new(h, w, groups * ci).with_halo(halo),
        output: Map::new(oh, ow, groups * co).with_halo(Halo::even(extra)),
        kernel,
        stride,
        dilation,
        padding,
        groups,
        activation: Activation::Identity,
        residual: None,
        pooled: false,
    }
}

pub(crate) fn specs() -> impl Strategy<Value = ConvSpec> {
    let axis = |most: usize| [1..=most, 1..=most];
    (axis(19), [1_usize..5, 1..40, 1..40], (axis(4), axis(3), axis(2)), [0_usize..3, 0..3], 0_usize..3)
        .prop_map(|(output, channels, window, padding, extra)| spec(output, channels, window, padding, extra))
}

/// Calls `visit` with the places of the output, the input and the weight of every product of the convolution. Pixels of
/// the padding are left out.
pub(crate) fn each_product(spec: &ConvSpec, images: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (inputs, outputs) = (spec.group_inputs(), spec.group_outputs());
    let [rows, columns] = spec.kernel;
    let place = |axis: usize, at: usize, tap: usize| {
        (at * spec.stride[axis] + tap * spec.dilation[axis]) as isize - spec.padding[axis] as isize
    };
    let inside = |at: isize, size: usize| (0..size as isize).contains(&at);
    for image in 0..images {
        for (y, x) in (0..spec.output.h).flat_map(|y| (0..spec.output.w).map(move |x| (y, x))) {
            for (ky, kx) in (0..rows).flat_map(|ky| (0..columns).map(move |kx| (ky, kx))) {
                let (row, column) = (place(0, y, ky), place(1, x, kx));
                if !inside(row, spec.input.h) || !inside(column, spec.input.w) {
                    continue;
                }
                for (o, i) in (0..spec.output.c).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
                    let to = image * spec.output.image() + spec.output.at(y as isize, x as isize) + o;
                    let from =
                        image * spec.input.image() + spec.input.at(row, column) + o / outputs * inputs + i;
                    visit(to, from, ((o * inputs + i) * rows + ky) * columns + kx);
                }
            }
        }
    }
}
