//! One call: stretch by stretch, all workers pack the gradients, meet, and take items.

use super::WeightGradIo;
use super::windows::{BLOCK, ByWindows, Layout};
use super::work::{Items, PackGrads};
use crate::conv::taken::Taken;
use crate::work::{In, Out};
use crate::{Element, Line, Pool, as_f32_mut, share};
use std::ops::Range;

/// The pixels between two meetings of the workers, in blocks of equal size.
pub(super) struct Stretch {
    pub(super) pixels: Range<usize>,
    pub(super) blocks: usize,
    /// Pixels of a step; a block is cut between steps.
    step: usize,
}

impl Stretch {
    pub(super) fn new(pixels: Range<usize>, step: usize) -> Self {
        let blocks = pixels.len().div_ceil(BLOCK);
        Self { pixels, blocks, step }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.pixels.len()
    }

    /// The pixels of a block, from the stretch's first one.
    #[inline(always)]
    pub(super) fn block(&self, block: usize) -> Range<usize> {
        let steps = share(self.len().div_ceil(self.step), self.blocks, block);
        steps.start * self.step..(steps.end * self.step).min(self.len())
    }

    /// The pixels that a worker packs: whole steps.
    fn own(&self, threads: usize, worker: usize) -> Range<usize> {
        let steps = share(self.len().div_ceil(self.step), threads, worker);
        steps.start * self.step..(steps.end * self.step).min(self.len())
    }
}

/// What the workers of a stretch share.
pub(super) struct Call<'a, T> {
    pub(super) plan: &'a ByWindows,
    pub(super) stretch: Stretch,
    threads: usize,
    /// Which items were taken.
    pub(super) taken: Taken,
    /// Into how many chunks the tiles are cut.
    pub(super) chunks: usize,
    input: In<T>,
    grad: In<T>,
    scratch: Out<Line>,
    layout: Layout,
    /// Whether there are sums to add to.
    pub(super) add: bool,
}

impl<T: Element> Call<'_, T> {
    /// The pixels whose gradients a worker packs.
    pub(super) fn own_pixels(&self, worker: usize) -> Range<usize> {
        self.stretch.own(self.threads, worker)
    }

    /// The items that a worker takes first.
    pub(super) fn own_items(&self, worker: usize) -> Range<usize> {
        let items = self.plan.panels.len() * self.plan.parts * self.chunks;
        share(items, self.threads, worker)
    }

    pub(super) fn input(&self) -> *const T {
        // SAFETY: it is the first element, or the end of none.
        unsafe { self.input.at(0) }
    }

    pub(super) fn grad(&self) -> *const T {
        // SAFETY: as above.
        unsafe { self.grad.at(0) }
    }

    pub(super) fn starts(&self) -> *mut usize {
        self.line(self.layout.starts).cast()
    }

    pub(super) fn grads(&self) -> *mut Line {
        self.line(self.layout.grads)
    }

    /// A worker's panel.
    pub(super) fn panel(&self, worker: usize) -> *mut Line {
        self.line(self.layout.panels + worker * self.layout.worker)
    }

    /// A worker's sums of a stretch.
    pub(super) fn partial(&self, worker: usize) -> *mut f32 {
        self.line(self.layout.panels + worker * self.layout.worker + self.layout.partial).cast()
    }

    pub(super) fn sums(&self) -> *mut f32 {
        self.line(self.layout.sums).cast()
    }

    fn line(&self, line: usize) -> *mut Line {
        // SAFETY: the scratch was checked to hold the whole layout.
        unsafe { self.scratch.at(line) }
    }
}

/// The two steps of a stretch.
pub(super) trait Multiply<T> {
    /// Packs the gradients of a worker's pixels.
    ///
    /// # Safety
    ///
    /// The call's memory holds what its plan says; each worker calls it once, at the same time.
    unsafe fn pack(call: &Call<'_, T>, worker: usize);

    /// Computes items of the share of `owner`, as long as there are any.
    ///
    /// # Safety
    ///
    /// The same, after every worker has packed.
    unsafe fn multiply(call: &Call<'_, T>, worker: usize, owner: usize);
}

/// By vectors of `f32`.
pub(super) struct Vectors;

impl<T: Element> Multiply<T> for Vectors {
    unsafe fn pack(call: &Call<'_, T>, worker: usize) {
        // SAFETY: the same contract, and each worker has its own pixels.
        unsafe {
            call.plan.isa.call(PackGrads {
                plan: call.plan,
                stretch: &call.stretch,
                own: call.own_pixels(worker),
                grad: call.grad(),
                starts: call.starts(),
                to: call.grads().cast(),
            });
        }
    }

    unsafe fn multiply(call: &Call<'_, T>, worker: usize, owner: usize) {
        // SAFETY: the same contract, and each item has its own sums.
        unsafe {
            call.plan.isa.call(Items {
                plan: call.plan,
                stretch: &call.stretch,
                chunks: call.chunks,
                own: call.own_items(owner),
                taken: (call.taken, owner),
                input: call.input(),
                starts: call.starts(),
                grads: call.grads().cast(),
                panel: call.panel(worker).cast(),
                sums: call.sums(),
                add: call.add,
            });
        }
    }
}

impl ByWindows {
    /// The gradient by `M`, which is what the plan was made for; the slices were checked, and there are pixels.
    pub(super) fn gradient<T: Element, M: Multiply<T>>(
        &self,
        pool: &Pool,
        images: usize,
        io: WeightGradIo<'_, T>,
    ) {
        let WeightGradIo { input, grad, weight, scratch } = io;
        let threads = pool.threads();
        let layout = self.layout(threads);
        let pixels = images * self.spec.output.h * self.spec.output.w;
        let (input, grad) = (In::new(input), In::new(grad));
        let base = Out::new(scratch);
        let stretches = pixels.div_ceil(self.blocks() * BLOCK);
        let chunks = self.chunks(threads);
        for index in 0..stretches {
            let stretch = Stretch::new(share(pixels, stretches, index), self.product.step());
            let add = index > 0;
            // SAFETY: there is a line for each worker.
            let taken = unsafe { Taken::new(base.at(layout.taken), threads) };
            let scratch = base;
            let call =
                Call { plan: self, stretch, threads, taken, chunks, input, grad, scratch, layout, add };
            // SAFETY: the slices were checked to hold every pixel and the scratch the whole layout.
            pool.run(|worker| unsafe { M::pack(&call, worker) });
            pool.run(|worker| {
                for owner in (0..threads).map(|step| (worker + step) % threads) {
                    // SAFETY: as above, for every window; all gradients are packed.
                    unsafe { M::multiply(&call, worker, owner) };
                }
            });
        }
        self.unpack(pool, as_f32_mut(&mut scratch[layout.sums..layout.end]), weight);
    }
}
