//! From component planes to RGB rows: libjpeg's "fancy" (triangle) upsampling, then its colour conversion.

/// A component's samples: the part that the crop needs.
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride: usize,
    /// The component's column and row of the first sample.
    pub(super) left: usize,
    pub(super) top: usize,
    /// The component's real size, in samples.
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Plane {
    /// `len` samples of a row of the component, from column `from` on; both must lie in the part kept.
    #[inline(always)]
    pub(super) fn row(&self, y: usize, from: usize, len: usize) -> &[u8] {
        let start = (y - self.top) * self.stride + from - self.left;
        &self.samples[start..start + len]
    }
}

/// How a chroma plane is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upsampling {
    None,
    /// Twice as wide.
    H2V1,
    /// Twice as wide and twice as high.
    H2V2,
}

/// Row `y` of the enlarged plane from column `x` on, into `target`; `sums` is scratch space.
#[inline(always)]
pub(super) fn upsample(
    plane: &Plane,
    upsampling: Upsampling,
    (x, y): (usize, usize),
    sums: &mut Vec<u16>,
    target: &mut Vec<u8>,
    len: usize,
) {
    target.clear();
    if upsampling == Upsampling::None {
        target.extend_from_slice(plane.row(y, x, len));
        return;
    }
    let (first, last) = (x / 2, (x + len - 1) / 2);
    let count = last - first + 1;
    // Position 0 of the sums is column `first - 1`: one more on each side. At the border the outermost sample
    // is its own neighbour.
    let (from, to) = (first.saturating_sub(1), (last + 1).min(plane.width - 1));
    let (start, width) = (from + 1 - first, to - from + 1);
    sums.clear();
    sums.resize(count + 2, 0);
    let (near, far) = match upsampling {
        Upsampling::H2V2 => {
            let near = y / 2;
            let far = if y % 2 == 1 { (near + 1).min(plane.height - 1) } else { near.saturating_sub(1) };
            (near, far)
        }
        Upsampling::H2V1 | Upsampling::None => (y, y),
    };
    let both = plane.row(near, from, width).iter().zip(plane.row(far, from, width));
    for (sum, (&near, &far)) in sums[start..start + width].iter_mut().zip(both) {
        *sum = 3 * u16::from(near) + u16::from(far);
    }
    if start == 1 {
        sums[0] = sums[1];
    }
    if start + width < sums.len() {
        sums[start + width] = sums[start + width - 1];
    }
    target.resize(2 * count, 0);
    let pairs = target.as_chunks_mut::<2>().0.iter_mut();
    // A row that is only stretched sideways has sums of four times a sample: the same formula with other
    // roundings.
    let (even, odd) = if upsampling == Upsampling::H2V2 { (8, 7) } else { (4, 8) };
    let (before, own, after) = (&sums[..count], &sums[1..=count], &sums[2..count + 2]);
    for (((pair, &before), &own), &after) in pairs.zip(before).zip(own).zip(after) {
        *pair = [((3 * own + before + even) >> 4) as u8, ((3 * own + after + odd) >> 4) as u8];
    }
    target.drain(..x % 2);
    target.truncate(len);
}

/// libjpeg's YCbCr to RGB in 16-bit fixed point.
#[inline(always)]
pub(super) fn to_rgb(luma: &[u8], blue: &[u8], red: &[u8], target: &mut [u8]) {
    let planes = luma.iter().zip(blue).zip(red);
    for (pixel, ((&y, &cb), &cr)) in target.as_chunks_mut::<3>().0.iter_mut().zip(planes) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        const HALF: i32 = 1 << 15;
        let level = |offset: i32| (y + (offset >> 16)).clamp(0, 255) as u8;
        *pixel =
            [level(91_881 * cr + HALF), level(-22_554 * cb - 46_802 * cr + HALF), level(116_130 * cb + HALF)];
    }
}
