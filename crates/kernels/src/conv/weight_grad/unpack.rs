//! The sums in the order of the weight.

use super::{Panel, WeightGrad};
use crate::Pool;
use crate::work::Out;

/// Panels by their first channel: for one output, all taps of a channel are neighbours in the weight.
pub(super) fn sets(panels: &[Panel]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..panels.len()).collect();
    let key = |&index: &usize| (panels[index].group, panels[index].channel);
    order.sort_by_key(|index| (key(index), panels[*index].tap));
    order.chunk_by(|a, b| key(a) == key(b)).map(<[usize]>::to_vec).collect()
}

impl WeightGrad {
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
                    let mut from = &sums[index * self.panel_sums() + o * width..][..panel.width];
                    let filters = (panel.group * outputs + o) * inputs * taps;
                    let (mut channel, [y, mut x]) = (panel.channel, panel.tap);
                    while !from.is_empty() {
                        let (here, rest) = from.split_at((inputs - channel).min(from.len()));
                        let at = filters + channel * taps + y * columns + x;
                        for (i, sum) in here.iter().enumerate() {
                            // SAFETY: it is one of the weights, and no other panel's.
                            unsafe { *weight.at(at + i * taps) = *sum };
                        }
                        // A run of several taps goes on with the next one.
                        (from, channel, x) = (rest, 0, x + 1);
                    }
                }
            }
        });
    }
}
