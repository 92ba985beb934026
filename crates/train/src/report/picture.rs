//! The first augmented batch as a picture.

use cardinal_data::encode_png;
use std::io::Cursor;
use std::path::Path;

/// A grid of images as the network sees them, colours restored.
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) png: Vec<u8>,
}

impl Picture {
    /// The picture that an earlier part of the run left; `None` if there is none that can be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let png = std::fs::read(path).ok()?;
        let reader = png::Decoder::new(Cursor::new(&png)).read_info().ok()?;
        let (width, height) = reader.info().size();
        drop(reader);
        Some(Self { width, height, png })
    }
}

const COLUMNS: usize = 8;
const ROWS: usize = 4;
/// Images are brought near this side by a whole factor.
const TILE: usize = 128;
const GAP: usize = 2;

/// Puts up to 32 images of `[n, 3, h, w]`, normalised with `mean` and `std`, into a grid. `None` without images.
pub(super) fn grid(images: &[f32], size: [usize; 4], mean: [f32; 3], std: [f32; 3]) -> Option<Picture> {
    let [count, channels, height, width] = size;
    let count = count.min(COLUMNS * ROWS);
    if count == 0 || channels != 3 || height == 0 || width == 0 || images.len() < count * 3 * height * width {
        return None;
    }
    let tile = Tile::new(height, width);
    let (columns, rows) = (count.min(COLUMNS), count.div_ceil(COLUMNS));
    let (grid_width, grid_height) = (columns * (tile.width + GAP) + GAP, rows * (tile.height + GAP) + GAP);
    let mut pixels = vec![255; grid_width * grid_height * 3];
    for (number, image) in images.chunks_exact(3 * height * width).take(count).enumerate() {
        let left = GAP + number % COLUMNS * (tile.width + GAP);
        let top = GAP + number / COLUMNS * (tile.height + GAP);
        for y in 0..tile.height {
            for x in 0..tile.width {
                let at = ((top + y) * grid_width + left + x) * 3;
                for channel in 0..3 {
                    let plane = &image[channel * height * width..][..height * width];
                    let value = tile.mean(plane, width, x, y) * std[channel] + mean[channel];
                    pixels[at + channel] = (value * 255.0).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    let (width, height) = (grid_width as u32, grid_height as u32);
    let png = encode_png(width, height, &pixels).ok()?;
    Some(Picture { width, height, png })
}

/// How an image becomes a tile: repeated or averaged by a whole factor.
struct Tile {
    width: usize,
    height: usize,
    enlarge: usize,
    shrink: usize,
}

impl Tile {
    fn new(height: usize, width: usize) -> Self {
        let side = height.max(width);
        let (enlarge, shrink) = ((TILE / side).max(1), side.div_ceil(TILE));
        let length = |side: usize| (side * enlarge / shrink).max(1);
        Self { width: length(width), height: length(height), enlarge, shrink }
    }

    /// The colour of the tile's pixel (x, y), from a plane of the image.
    fn mean(&self, plane: &[f32], width: usize, x: usize, y: usize) -> f32 {
        let height = plane.len() / width;
        let range = |at: usize, end: usize| {
            let start = (at * self.shrink / self.enlarge).min(end - 1);
            start..(start + self.shrink).min(end)
        };
        let (rows, columns) = (range(y, height), range(x, width));
        let count = (rows.len() * columns.len()) as f32;
        rows.flat_map(|row| &plane[row * width..][columns.clone()]).sum::<f32>() / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_restored_and_images_enlarged_or_shrunk() {
        let decode = |picture: &Picture| {
            let mut reader = png::Decoder::new(Cursor::new(&picture.png)).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            pixels
        };
        let (mean, std) = ([0.5, 0.25, 0.0], [0.5, 0.5, 1.0]);
        // Two images of 32 x 32: red of 1, green of 0.25, blue of 0.2.
        let image: Vec<f32> = [1.0, 0.0, 0.2].iter().flat_map(|value| vec![*value; 32 * 32]).collect();
        let picture = grid(&[image.clone(), image].concat(), [2, 3, 32, 32], mean, std).unwrap();
        assert_eq!((picture.width, picture.height), (2 * 130 + 2, 132));
        let pixels = decode(&picture);
        assert_eq!(pixels[(50 * 262 + 60) * 3..][..3], [255, 64, 51]);
        assert_eq!(pixels[..3], [255; 3], "the gap is white");
        let wide = grid(&vec![0.0; 3 * 200 * 300], [1, 3, 200, 300], [0.0; 3], [1.0; 3]).unwrap();
        assert_eq!((wide.width, wide.height), (104, 70));
        assert!(grid(&[], [0, 3, 4, 4], mean, std).is_none());
        assert!(grid(&vec![f32::NAN; 40 * 3 * 4 * 5], [40, 3, 4, 5], mean, std).is_some());
    }
}
