//! The sums of all parts in the order of the weight.

use super::windows::{ByWindows, Panel, Product};
use crate::Pool;
use crate::work::Out;

/// Panels by their first channel: for one output, all taps of a channel are neighbours in the weight.
pub(super) fn sets(panels: &[Panel]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..panels.len()).collect();
    let key = |&index: &usize| (panels[index].group, panels[index].channel);
    order.sort_by_key(|index| (key(index), panels[*index].tap));
    order.chunk_by(|a, b| key(a) == key(b)).map(<[usize]>::to_vec).collect()
}

impl ByWindows {
    /// The place of a panel's element among the sums of an output.
    #[inline(always)]
    fn column(&self, panel: &Panel, element: usize) -> usize {
        match self.product {
            Product::Vectors => element,
            #[cfg(target_arch = "x86_64")]
            Product::Tiles => super::amx::column(panel, element),
        }
    }

    /// Writes the sums to the weight.
    pub(super) fn unpack(&self, pool: &Pool, sums: &[f32], weight: &mut [f32]) {
        let (inputs, outputs) = (self.spec.group_inputs(), self.spec.group_outputs());
        let [rows, columns] = self.spec.kernel;
        let (taps, width) = (rows * columns, self.shape.width);
        let weight = Out::new(&mut weight[..self.spec.weights()]);
        pool.for_each(self.sets.len(), |set| {
            for o in 0..outputs {
                for &index in &self.sets[set] {
                    let panel = &self.panels[index];
                    let row = index * self.panel_sums() + o * width;
                    let mut element = 0;
                    let filters = (panel.group * outputs + o) * inputs * taps;
                    let (mut channel, [y, mut x]) = (panel.channel, panel.tap);
                    while element < panel.width {
                        let here = (inputs - channel).min(panel.width - element);
                        let at = filters + channel * taps + y * columns + x;
                        for i in 0..here {
                            let from = row + self.column(panel, element + i);
                            let mut sum = sums[from];
                            for part in 1..self.parts {
                                sum += sums[part * self.part_sums() + from];
                            }
                            // SAFETY: it is one of the weights, and no other panel's.
                            unsafe { *weight.at(at + i * taps) = sum };
                        }
                        // A run of several taps goes on with the next one.
                        (element, channel, x) = (element + here, 0, x + 1);
                    }
                }
            }
        });
    }
}
