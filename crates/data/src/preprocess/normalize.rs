//! From levels to the numbers that a network reads.

use crate::RgbImage;

/// `(value / 255 + shift - mean) / std` for every level, in the order and precision of torchvision.
pub(crate) struct Normalizer {
    tables: [[f32; 256]; 3],
}

impl Normalizer {
    /// `shift` is added to the colours on the scale 0 to 1; zeros change nothing.
    pub(crate) fn new(mean: [f32; 3], std: [f32; 3], shift: [f32; 3]) -> Self {
        let table = |channel: usize| {
            let (shift, mean, std) = (shift[channel], mean[channel], std[channel]);
            std::array::from_fn(|level| (level as f32 / 255.0 + shift - mean) / std)
        };
        Self { tables: [table(0), table(1), table(2)] }
    }

    /// `[h, w, 3]` to `[3, h, w]`, mirrored left to right if `flip`. `output` has the image's length.
    pub(crate) fn run(&self, image: &RgbImage, flip: bool, output: &mut [f32]) {
        let width = image.width() as usize;
        let (red, rest) = output.split_at_mut(output.len() / 3);
        let (green, blue) = rest.split_at_mut(rest.len() / 2);
        let planes =
            red.chunks_exact_mut(width).zip(green.chunks_exact_mut(width)).zip(blue.chunks_exact_mut(width));
        for (row, ((red, green), blue)) in image.pixels().chunks_exact(width * 3).zip(planes) {
            let targets = red.iter_mut().zip(green).zip(blue);
            let pixels = row.as_chunks::<3>().0.iter();
            if flip {
                targets.zip(pixels.rev()).for_each(|(target, pixel)| self.write(target, pixel));
            } else {
                targets.zip(pixels).for_each(|(target, pixel)| self.write(target, pixel));
            }
        }
    }

    fn write(&self, ((red, green), blue): ((&mut f32, &mut f32), &mut f32), &[r, g, b]: &[u8; 3]) {
        *red = self.tables[0][usize::from(r)];
        *green = self.tables[1][usize::from(g)];
        *blue = self.tables[2][usize::from(b)];
    }
}
