//! The inner loops of the memory-bound kernels for each format.
//!
//! A generic function is compiled in the crate that names its types, with that crate's optimisation level. These are
//! methods of the formats themselves, so that they are compiled here, once, with this crate's.

use crate::attention::WeighSplits;
use crate::grad::{Broadcast, Masked, MaxGrad, Products, Slopes, Spread, Sum, Sums, Weigh};
use crate::layout::{Gather, Scatter, Spans};
use crate::norm::{GradMoments, InputGrad, Moments};
use crate::pointwise::Run;
use crate::pooling::{Add, Blur, Windowed};
use crate::{Bf16, Isa};

/// # Safety
///
/// What the fields of the loops promise holds.
pub trait Loops: Sized {
    unsafe fn moments(isa: Isa, run: Moments<Self>);
    unsafe fn grad_moments(isa: Isa, run: GradMoments<Self>);
    unsafe fn norm_grad(isa: Isa, run: InputGrad<Self>);
    unsafe fn activation_grad(isa: Isa, run: Slopes<Self>);
    unsafe fn add_spans(isa: Isa, run: Sum<Self>);
    unsafe fn masked(isa: Isa, run: Masked<Self>);
    unsafe fn factor_grad(isa: Isa, run: Products<Self>);
    unsafe fn attention_grad(isa: Isa, run: Weigh<Self>);
    unsafe fn max_pool_grad(isa: Isa, run: MaxGrad<'_, Self>);
    unsafe fn put_sums(isa: Isa, run: Sums<Self>);
    unsafe fn spread(isa: Isa, run: Spread<'_, Self>);
    unsafe fn broadcast(isa: Isa, run: Broadcast<'_, Self>);
    unsafe fn pointwise(isa: Isa, run: Run<Self>);
    unsafe fn weigh_splits(isa: Isa, run: WeighSplits<Self>);
    unsafe fn largest(isa: Isa, run: Windowed<'_, Self, true>);
    unsafe fn mean(isa: Isa, run: Windowed<'_, Self, false>);
    unsafe fn add(isa: Isa, run: Add<Self>);
    unsafe fn blur(isa: Isa, run: Blur<Self>);
    unsafe fn gather(isa: Isa, run: Gather<Self>);
    unsafe fn scatter(isa: Isa, run: Scatter<Self>);
    unsafe fn to_f32s(isa: Isa, run: Spans<Self, f32>);
    unsafe fn to_bf16s(isa: Isa, run: Spans<Self, Bf16>);
}

macro_rules! loops {
    ($type:ty: $($name:ident($run:ty))*) => {
        impl Loops for $type {
            $(
                #[inline(never)]
                unsafe fn $name(isa: Isa, run: $run) {
                    // SAFETY: the same contract.
                    unsafe { isa.call(run) }
                }
            )*
        }
    };
    ($($type:ty)*) => {
        $(loops! {
            $type:
            moments(Moments<Self>)
            grad_moments(GradMoments<Self>)
            norm_grad(InputGrad<Self>)
            activation_grad(Slopes<Self>)
            add_spans(Sum<Self>)
            masked(Masked<Self>)
            factor_grad(Products<Self>)
            attention_grad(Weigh<Self>)
            max_pool_grad(MaxGrad<'_, Self>)
            put_sums(Sums<Self>)
            spread(Spread<'_, Self>)
            broadcast(Broadcast<'_, Self>)
            pointwise(Run<Self>)
            weigh_splits(WeighSplits<Self>)
            largest(Windowed<'_, Self, true>)
            mean(Windowed<'_, Self, false>)
            add(Add<Self>)
            blur(Blur<Self>)
            gather(Gather<Self>)
            scatter(Scatter<Self>)
            to_f32s(Spans<Self, f32>)
            to_bf16s(Spans<Self, Bf16>)
        })*
    };
}

loops!(f32 Bf16);
