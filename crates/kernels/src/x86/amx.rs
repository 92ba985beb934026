//! Tile registers: the permission to use them, their shapes, and the operations on bf16.
//!
//! The compiler's intrinsics for tiles are not stable, so each operation is one `asm!` statement.

use crate::simd::Kernel;
use crate::{Isa, Line};
use core::arch::asm;

/// Asks the system for the tile registers, once per process.
pub(crate) fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        use core::arch::x86_64::__cpuid_count;
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        const TILE: u32 = 1 << 24;
        const BF16: u32 = 1 << 22;
        if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & (TILE | BF16) != TILE | BF16 {
            return false;
        }
        // SAFETY: the call takes two numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// The tile registers' roles: four accumulators, two tiles of pixels, two of weights.
pub(crate) const LEFT: u8 = 4;
pub(crate) const RIGHT: u8 = 6;

/// Rows, and bytes of a row, of each tile register, laid out as `ldtilecfg` reads them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    pub(crate) bytes: [u16; 16],
    pub(crate) rows: [u8; 16],
}

impl Shapes {
    /// Accumulators 0 to 3 and pixels ([`LEFT`] and the next) of `rows` rows, weights ([`RIGHT`] and the next) of 16;
    /// all rows are 64 bytes long.
    pub(crate) fn new(rows: usize) -> Self {
        debug_assert!((1..=16).contains(&rows));
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        shapes.bytes[..8].fill(64);
        shapes.rows[..usize::from(RIGHT)].fill(rows as u8);
        shapes.rows[usize::from(RIGHT)..8].fill(16);
        shapes
    }
}

/// Eight tile registers of up to 16 rows of 64 bytes.
///
/// # Safety
///
/// A value's functions are called on one thread, between [`configure`](Tiles::configure) and
/// [`release`](Tiles::release), with registers that the shapes include; the processor has what the implementation
/// needs.
pub(crate) trait Tiles: Default {
    /// Calls `kernel` compiled for the vectors that go with these tiles.
    unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output;
    /// Gives the registers their shapes and fills them with zeros.
    unsafe fn configure(&mut self, shapes: &Shapes);
    /// Ends the use of tiles on this thread.
    unsafe fn release(&mut self);
    /// Fills register `T` with zeros.
    unsafe fn zero<const T: u8>(&mut self);
    /// Loads each row of register `T`, the rows `stride` bytes apart; every row must be readable.
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize);
    /// Stores each row of register `T`, the rows `stride` bytes apart; every row must be writable.
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize);
    /// Adds to `C[m][n]` in `f32` the products of pairs of bf16 `A[m][2k + i] * B[k][2n + i]`. Denormals count as
    /// zero.
    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self);
    /// Copies the first `count <= 32` numbers of 16 bits, reading no further, and writes zeros up to 32.
    unsafe fn copy_padded(to: *mut u16, from: *const u16, count: usize);
    /// Pairs the numbers of two rows, of which the first `counts` are read and the others count as zero. `WIDE`: 32 pairs,
    /// 16 of them at `to` and 16 behind a tile ([`TILE`]); otherwise 16, at `to`. Pair `i` goes to [`paired`]`(i)`.
    unsafe fn interleave<const WIDE: bool>(to: *mut u16, rows: [*const u16; 2], counts: [usize; 2]);
    /// Writes 16 rows of 32 numbers: the columns of 32 rows of 16, which begin at `offsets`.
    unsafe fn transpose(to: *mut u16, from: *const u16, offsets: &[usize; 32]);
}

/// Numbers of 16 bits in a whole tile.
pub(crate) const TILE: usize = 512;

/// Where [`Tiles::interleave`] puts a pair: what interleaving within each 16 bytes of a register gives, without a step that
/// restores the order.
#[inline(always)]
pub(crate) fn paired(pair: usize, wide: bool) -> usize {
    let half = if wide { 16 } else { 8 };
    pair / 4 % 2 * half + pair / 8 * 4 + pair % 4
}

/// The processor's own tiles.
#[derive(Default)]
pub(crate) struct Hardware;

/// One instruction that may write tiles.
///
/// A tile's content outlives the statement that wrote it. That is sound because nothing but these statements uses
/// tiles on the thread between `configure` and `release`: the compiler allocates tile registers only in code compiled
/// for AMX, which there is none of, and the system saves them when it switches threads. All eight are declared as
/// overwritten, since a constant cannot name a register here.
macro_rules! tile {
    ($template:literal, $($operands:tt)*) => {
        asm!(
            $template, $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

// SAFETY of every block: the caller has an `Isa` for AMX, keeps to the order of calls, and vouches for the memory of
// every row; no instruction here needs alignment. On values in tiles see `tile!`.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one argument for all, above")]
impl Tiles for Hardware {
    #[inline(always)]
    unsafe fn call<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
        debug_assert_eq!(isa.level(), crate::Level::Amx);
        unsafe { crate::x86::avx512::call_bf16(kernel) }
    }

    #[inline(always)]
    unsafe fn configure(&mut self, shapes: &Shapes) {
        unsafe { tile!("ldtilecfg [{shapes}]", shapes = in(reg) shapes,) }
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        unsafe { tile!("tilerelease",) }
    }

    #[inline(always)]
    unsafe fn zero<const T: u8>(&mut self) {
        unsafe { tile!("tilezero tmm{t}", t = const T,) }
    }

    #[inline(always)]
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        unsafe {
            tile!(
                "tileloadd tmm{t}, [{from} + {stride}*1]",
                t = const T,
                from = in(reg) from,
                stride = in(reg) stride,
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        unsafe {
            tile!(
                "tilestored [{to} + {stride}*1], tmm{t}",
                t = const T,
                to = in(reg) to,
                stride = in(reg) stride,
            );
        }
    }

    #[inline(always)]
    unsafe fn dot<const C: u8, const A: u8, const B: u8>(&mut self) {
        unsafe { tile!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,) }
    }

    #[inline(always)]
    unsafe fn copy_padded(to: *mut u16, from: *const u16, count: usize) {
        use core::arch::x86_64::{_mm512_maskz_loadu_epi16, _mm512_storeu_si512};
        let mask = ((1_u64 << count) - 1) as u32;
        unsafe { _mm512_storeu_si512(to.cast(), _mm512_maskz_loadu_epi16(mask, from.cast())) }
    }

    #[inline(always)]
    unsafe fn interleave<const WIDE: bool>(to: *mut u16, rows: [*const u16; 2], counts: [usize; 2]) {
        use core::arch::x86_64::*;
        unsafe {
            let first = _mm512_maskz_loadu_epi16(((1_u64 << counts[0]) - 1) as u32, rows[0].cast());
            let second = _mm512_maskz_loadu_epi16(((1_u64 << counts[1]) - 1) as u32, rows[1].cast());
            let (low, high) = (_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second));
            if WIDE {
                _mm512_storeu_si512(to.cast(), low);
                _mm512_storeu_si512(to.add(TILE).cast(), high);
            } else {
                _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(low));
                _mm256_storeu_si256(to.add(16).cast(), _mm512_castsi512_si256(high));
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(to: *mut u16, from: *const u16, offsets: &[usize; 32]) {
        unsafe {
            transpose_eight(to, from, offsets);
            transpose_eight(to.add(TILE / 2), from.add(8), offsets);
        }
    }
}

/// Half of [`Tiles::transpose`]: 8 columns. Each 16 bytes of a register hold 8 rows of a square of 8, so that three rounds
/// within them are enough.
///
/// # Safety
///
/// 8 rows of `to` can be written and 8 numbers at each offset read; the processor has AVX-512 with BW.
#[inline(always)]
unsafe fn transpose_eight(to: *mut u16, from: *const u16, offsets: &[usize; 32]) {
    use core::arch::x86_64::*;
    // SAFETY: the same contract; no instruction here needs alignment.
    unsafe {
        let mut a = [_mm512_setzero_si512(); 8];
        for i in 0..8 {
            let row = _mm512_castsi128_si512(_mm_loadu_si128(from.add(offsets[i]).cast()));
            let row = _mm512_inserti32x4::<1>(row, _mm_loadu_si128(from.add(offsets[8 + i]).cast()));
            let row = _mm512_inserti32x4::<2>(row, _mm_loadu_si128(from.add(offsets[16 + i]).cast()));
            a[i] = _mm512_inserti32x4::<3>(row, _mm_loadu_si128(from.add(offsets[24 + i]).cast()));
        }
        // Two rows of columns 0 to 3, then of 4 to 7.
        let mut b = a;
        for i in 0..4 {
            b[2 * i] = _mm512_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
        }
        // Four rows of columns 0 and 1, 2 and 3, 4 and 5, 6 and 7.
        for i in 0..2 {
            a[4 * i] = _mm512_unpacklo_epi32(b[4 * i], b[4 * i + 2]);
            a[4 * i + 1] = _mm512_unpackhi_epi32(b[4 * i], b[4 * i + 2]);
            a[4 * i + 2] = _mm512_unpacklo_epi32(b[4 * i + 1], b[4 * i + 3]);
            a[4 * i + 3] = _mm512_unpackhi_epi32(b[4 * i + 1], b[4 * i + 3]);
        }
        for i in 0..4 {
            _mm512_storeu_si512(to.add(64 * i).cast(), _mm512_unpacklo_epi64(a[i], a[4 + i]));
            _mm512_storeu_si512(to.add(64 * i + 32).cast(), _mm512_unpackhi_epi64(a[i], a[4 + i]));
        }
    }
}

/// Tile products alone, for measuring what a core can do at best: each step is four products, as in a convolution,
/// with two tiles of pixels and two of weights loaded from a window of memory or kept in registers.
#[doc(hidden)]
#[derive(Debug)]
pub struct TileProbe {
    rows: usize,
    /// Half of it is pixels, half weights; empty for products of registers.
    window: Vec<Line>,
}

impl TileProbe {
    /// Tiles of `rows` (at most 16) pixels, loaded from `bytes` of memory, or from nowhere if that is zero.
    #[must_use]
    pub fn new(isa: Isa, rows: usize, bytes: usize) -> Option<Self> {
        let possible = isa.level() == crate::Level::Amx && (1..=16).contains(&rows);
        possible.then(|| Self {
            rows,
            window: vec![Line::ZERO; bytes.next_multiple_of(STEP_BYTES) / Line::BYTES],
        })
    }

    /// Floating-point operations of a step.
    #[must_use]
    pub fn flops(&self) -> usize {
        4 * self.rows * 16 * 32 * 2
    }

    /// Runs at least `steps` steps on this thread and returns how many it were.
    #[must_use]
    pub fn run(&self, steps: usize) -> usize {
        let mut tiles = Hardware;
        let half = self.window.len() / 2;
        let mut done = 0;
        // SAFETY: an `Isa` for AMX was shown to `new`; tiles are 1 KiB at most, and each pass loads two of them 2 KiB
        // apart below the end of either half.
        unsafe {
            tiles.configure(&Shapes::new(self.rows));
            let (pixels, weights) = (self.window.as_ptr(), self.window.as_ptr().add(half));
            while done < steps {
                for line in (0..half.max(32)).step_by(32) {
                    if half > 0 {
                        tiles.load::<LEFT>(pixels.add(line).cast(), 64);
                        tiles.load::<{ LEFT + 1 }>(pixels.add(line + 16).cast(), 64);
                        tiles.load::<RIGHT>(weights.add(line).cast(), 64);
                        tiles.load::<{ RIGHT + 1 }>(weights.add(line + 16).cast(), 64);
                    }
                    tiles.dot::<0, LEFT, RIGHT>();
                    tiles.dot::<1, LEFT, { RIGHT + 1 }>();
                    tiles.dot::<2, { LEFT + 1 }, RIGHT>();
                    tiles.dot::<3, { LEFT + 1 }, { RIGHT + 1 }>();
                    done += 1;
                }
            }
            tiles.release();
        }
        done
    }
}

/// Bytes of two tiles of pixels and two of weights.
const STEP_BYTES: usize = 4 * 1024;
