//! Where each buffer lies in the arena.

/// Lines that are needed during some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// How many lines; may be zero.
    pub(crate) lines: usize,
    /// The first step that touches them.
    pub(crate) first: usize,
    /// The last step that touches them.
    pub(crate) last: usize,
}

/// The first line of each request, such that no two that live at the same time overlap, and how many lines are used.
///
/// Largest first, each at the lowest free place: within a few percent of the bound by the largest live set on networks
/// of this kind.
pub(crate) fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<_> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].lines), requests[i].first));
    let mut offsets = vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let request = requests[i];
        let mut taken: Vec<_> = placed
            .iter()
            .filter(|&&other| requests[other].first <= request.last && request.first <= requests[other].last)
            .map(|&other| (offsets[other], offsets[other] + requests[other].lines))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if start >= offset + request.lines {
                break;
            }
            offset = offset.max(end);
        }
        offsets[i] = offset;
        total = total.max(offset + request.lines);
        placed.push(i);
    }
    (offsets, total)
}

/// The largest number of lines that live at the same time: no plan needs fewer.
pub(crate) fn lower_bound(requests: &[Request]) -> usize {
    let live = |step| {
        let alive = requests.iter().filter(|r| r.first <= step && step <= r.last);
        alive.map(|r| r.lines).sum()
    };
    requests.iter().map(|r| live(r.first)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_overlaps_and_little_is_lost(
            parts in prop::collection::vec((0_usize..50, 0_usize..20, 0_usize..6), 1..40),
        ) {
            let requests: Vec<_> = parts
                .into_iter()
                .map(|(lines, first, length)| Request { lines, first, last: first + length })
                .collect();
            let (offsets, total) = place(&requests);
            for (i, a) in requests.iter().enumerate() {
                prop_assert!(offsets[i] + a.lines <= total);
                for (j, b) in requests.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.lines <= offsets[j] || offsets[j] + b.lines <= offsets[i];
                    prop_assert!(!together || apart || a.lines == 0 || b.lines == 0);
                }
            }
            let bound = lower_bound(&requests);
            prop_assert!(total >= bound && total <= 2 * bound.max(1));
        }
    }

    #[test]
    fn a_chain_needs_two_neighbours() {
        let chain: Vec<_> = (0..10).map(|i| Request { lines: 100, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).1, 200);
    }
}
