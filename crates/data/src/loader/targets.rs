//! Labels as rows of numbers.

use crate::Label;

/// Writes one row of targets: for one class `1 - smoothing` there and the rest shared by the others (ResNeSt,
/// arXiv:2004.08955, equation 4); for many classes 1 at each of them, without smoothing.
pub(super) fn write(label: &Label, smoothing: f32, row: &mut [f32]) {
    match label {
        Label::One(class) => {
            let others = row.len().saturating_sub(1).max(1) as f32;
            row.fill(smoothing / others);
            if let Some(value) = row.get_mut(*class as usize) {
                *value = 1.0 - smoothing;
            }
        }
        Label::Many(classes) => {
            row.fill(0.0);
            for class in classes {
                if let Some(value) = row.get_mut(*class as usize) {
                    *value = 1.0;
                }
            }
        }
    }
}
