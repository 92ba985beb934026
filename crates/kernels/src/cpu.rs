//! Which instruction sets this processor has.
//!
//! An [`Isa`] is a proof: the only way to get one is detection, so that whoever holds it may call code that was
//! compiled for it.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that there are kernels for, from the slowest to the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust, any processor.
    Portable,
    /// 128-bit vectors of `AArch64`.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors (F, BW, DQ, VL).
    Avx512,
    /// AVX-512 with dot products of bf16 pairs.
    Avx512Bf16,
    /// Tile products of bf16, beside [`Level::Avx512Bf16`] for everything else.
    Amx,
}

impl Level {
    /// Every level, slowest first.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name that command lines take and reports print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A [`Level`] that this processor was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

impl Isa {
    /// The fastest level of this processor.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("the portable level is always there")
    }

    /// Every level of this processor, slowest first.
    #[must_use]
    pub fn available() -> &'static [Self] {
        static FOUND: OnceLock<Vec<Isa>> = OnceLock::new();
        FOUND.get_or_init(|| Level::ALL.into_iter().filter(|&level| present(level)).map(Isa).collect())
    }

    /// `level`, if this processor has it.
    #[must_use]
    pub fn get(level: Level) -> Option<Self> {
        Self::available().iter().copied().find(|isa| isa.0 == level)
    }

    /// The level that was found.
    #[must_use]
    pub fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(target_arch = "x86_64")]
fn present(level: Level) -> bool {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
    match level {
        Level::Portable => true,
        Level::Neon => false,
        Level::Avx2 => avx2,
        Level::Avx512 => avx512,
        Level::Avx512Bf16 => bf16,
        Level::Amx => bf16 && crate::x86::amx::permitted(),
    }
}

#[cfg(target_arch = "aarch64")]
fn present(level: Level) -> bool {
    matches!(level, Level::Portable | Level::Neon)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn present(level: Level) -> bool {
    level == Level::Portable
}
