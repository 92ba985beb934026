//! The two number formats that feature maps are kept in.

/// A brain float: the upper half of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Bf16 {
    /// The nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        if value.is_nan() {
            return Self((bits >> 16) as u16 | 0x40);
        }
        let round = 0x7fff + (bits >> 16 & 1);
        Self((bits.wrapping_add(round) >> 16) as u16)
    }

    /// The same number as an `f32`, exactly.
    #[inline(always)]
    #[must_use]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// The format of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE.
    F32,
    /// 16-bit brain float; sums are kept in `f32`.
    Bf16,
}

impl DType {
    /// Bytes of one number.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// `f32` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Bf16 {}
}

/// A number that feature maps are made of: [`f32`] or [`Bf16`].
pub trait Element:
    Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + sealed::Sealed + crate::loops::Loops + 'static
{
    /// Which one it is.
    const DTYPE: DType;

    /// Rounds to this format.
    fn from_f32(value: f32) -> Self;

    /// Widens, exactly.
    fn to_f32(self) -> f32;

    /// Loads `S::LANES` numbers, widened.
    ///
    /// # Safety
    ///
    /// `from` is valid for reading `S::LANES` numbers, and the processor has the level of `S`.
    unsafe fn load<S: crate::simd::Simd>(from: *const Self) -> S::V;

    /// Stores `S::LANES` numbers, rounded.
    ///
    /// # Safety
    ///
    /// `to` is valid for writing `S::LANES` numbers, and the processor has the level of `S`.
    unsafe fn store<S: crate::simd::Simd>(to: *mut Self, value: S::V);

    /// Loads the first `count <= S::LANES` numbers, widened; the rest are zero.
    ///
    /// # Safety
    ///
    /// `from` is valid for reading `count` numbers, and the processor has the level of `S`.
    unsafe fn load_part<S: crate::simd::Simd>(from: *const Self, count: usize) -> S::V;

    /// Stores the first `count <= S::LANES` numbers, rounded.
    ///
    /// # Safety
    ///
    /// `to` is valid for writing `count` numbers, and the processor has the level of `S`.
    unsafe fn store_part<S: crate::simd::Simd>(to: *mut Self, value: S::V, count: usize);
}

macro_rules! element {
    ($type:ty, $dtype:expr, $from:expr, $to:expr, $load:ident, $store:ident, $load_part:ident, $store_part:ident) => {
        impl Element for $type {
            const DTYPE: DType = $dtype;

            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                $from(value)
            }

            #[inline(always)]
            fn to_f32(self) -> f32 {
                $to(self)
            }

            #[inline(always)]
            unsafe fn load<S: crate::simd::Simd>(from: *const Self) -> S::V {
                // SAFETY: the same contract.
                unsafe { S::$load(from) }
            }

            #[inline(always)]
            unsafe fn store<S: crate::simd::Simd>(to: *mut Self, value: S::V) {
                // SAFETY: the same contract.
                unsafe { S::$store(to, value) }
            }

            #[inline(always)]
            unsafe fn load_part<S: crate::simd::Simd>(from: *const Self, count: usize) -> S::V {
                // SAFETY: the same contract.
                unsafe { S::$load_part(from, count) }
            }

            #[inline(always)]
            unsafe fn store_part<S: crate::simd::Simd>(to: *mut Self, value: S::V, count: usize) {
                // SAFETY: the same contract.
                unsafe { S::$store_part(to, value, count) }
            }
        }
    };
}

element!(f32, DType::F32, std::convert::identity, std::convert::identity, load, store, load_part, store_part);
element!(
    Bf16,
    DType::Bf16,
    Bf16::from_f32,
    Bf16::to_f32,
    load_bf16,
    store_bf16,
    load_bf16_part,
    store_bf16_part
);
