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
